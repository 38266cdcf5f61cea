"""Every backend takes the same keywords of save_pretrained: honoured, true anyway, or refused with what to write."""

import pytest
from backends import INSTALLED
from bad_calls import VIT, small_config

from conversion.keywords import SAVING
from vit_core import InputError
from vitriad.auto import model_class

HONOURED = {"torch": ("state_dict", "save_function"), "tf": ("saved_model", "version", "signatures"), "flax": ()}


def small(backend: str):
    return model_class(VIT, backend)(small_config(VIT))


@pytest.mark.parametrize("backend", INSTALLED)
def test_keywords_are_refused_with_what_to_write_and_nothing_is_written(backend, tmp_path):
    model = small(backend)
    for name in [name for name in SAVING if name not in HONOURED[backend]]:
        passes = SAVING[name].passes
        value = next(value for value in (True, False, "x") if not any(value is passing for passing in passes))
        with pytest.raises(InputError, match=rf"save_pretrained: delete {name}=: ") as caught:
            model.save_pretrained(tmp_path / "out", **{name: value})
        assert "\n" not in str(caught.value)
    with pytest.raises(InputError, match=r"save_pretrained: no keyword 'max_shard'; delete token=: .*push_to_hub"):
        model.save_pretrained(tmp_path / "out", max_shard=3, token="x")
    model.save_pretrained(tmp_path / "out", is_main_process=False)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("backend", INSTALLED)
def test_values_that_are_true_anyway_pass(backend, tmp_path):
    mine = HONOURED[backend]
    given = {name: rule.passes[0] for name, rule in SAVING.items() if rule.passes and name not in mine}
    nothing = {name: None for name in SAVING if name not in (*mine, "push_to_hub", "safe_serialization")}
    small(backend).save_pretrained(tmp_path, is_main_process=True, **{**nothing, **given})
    assert sorted(path.name for path in tmp_path.glob("*.safetensors")) == ["model.safetensors"]
