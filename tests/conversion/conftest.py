"""Small checkpoints, each in a folder of its own."""

import pytest
from checkpoints import FIELDS, make_config, make_tensors, write


@pytest.fixture
def saved(tmp_path):
    """saved(cls) -> (folder, its tensors); saved(cls, change) writes what `change` makes of the tensors."""

    def save(cls, change=dict, options=None, name="model", **fields):
        config = make_config(cls, **fields)
        tensors = make_tensors(cls, config, **(options or {}))
        write(tmp_path / name, config, change(tensors))
        return tmp_path / name, tensors

    return save


@pytest.fixture
def config_of():
    """config_of(cls, **fields) -> a small configuration."""
    return make_config


@pytest.fixture(params=FIELDS)
def cls(request):
    return request.param
