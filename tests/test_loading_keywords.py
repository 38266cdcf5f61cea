"""from_pt, from_tf and from_flax: what a port carries along is true of everything that a class of ours saved."""

from itertools import product

import numpy as np
import pytest
from backends import INSTALLED, canonical
from bad_calls import VIT, small_config

from vit_core import InputError
from vitriad.auto import model_class

KEYWORDS = ("from_pt", "from_tf", "from_flax")


@pytest.mark.parametrize(("saver", "loader"), [*product(INSTALLED, INSTALLED)])
def test_what_any_backend_saved_passes_for_every_framework(saver, loader, tmp_path):
    model = model_class(VIT, saver)(small_config(VIT))
    model.save_pretrained(tmp_path)
    expected = canonical(saver, model)
    for keyword in KEYWORDS:
        found = canonical(loader, model_class(VIT, loader).from_pretrained(tmp_path, **{keyword: True}))
        assert found.keys() == expected.keys()
        for name, array in expected.items():
            np.testing.assert_array_equal(found[name], array, err_msg=f"{keyword}, {name}")


@pytest.mark.parametrize("loader", INSTALLED)
def test_another_program_s_file_has_to_be_of_that_framework(loader, tmp_path):
    model_class(VIT, loader)(small_config(VIT)).save_pretrained(tmp_path)
    (tmp_path / "manifest.json").unlink()  # as transformers leaves a folder
    cls = model_class(VIT, loader)
    cls.from_pretrained(tmp_path, from_pt=True)
    for keyword in ("from_tf", "from_flax"):
        with pytest.raises(InputError, match=rf"{keyword}=True, but its weights are of the dialect 'hf'"):
            cls.from_pretrained(tmp_path, **{keyword: True})
