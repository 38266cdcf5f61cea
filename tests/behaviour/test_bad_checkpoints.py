"""Checkpoints of the family that are not sound are refused by every backend, with what was expected."""

import pytest
from bad_checkpoints import BAD, CLASSIFIER, write_bad

from vit_core.errors import CheckpointError, ConfigError


@pytest.mark.every_day("torch", "tf-registers of one axis", "flax-registers of another count")
@pytest.mark.parametrize("case", BAD)
def test_no_backend_loads_them(backend, case, tmp_path):
    with pytest.raises((CheckpointError, ConfigError), match=BAD[case][-1]) as caught:
        backend.cls(CLASSIFIER).from_pretrained(write_bad(case, tmp_path))
    assert str(tmp_path) in str(caught.value) and len(str(caught.value).splitlines()) <= 3
