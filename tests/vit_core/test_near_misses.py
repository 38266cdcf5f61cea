"""Names that are most likely a field misspelt: refused where they were typed, kept with one warning in a file."""

import json
import logging
from pathlib import Path

import pytest

from vit_core.config import AutoConfig, ViTConfig, ViTMAEConfig
from vit_core.config.foreign_fields import ROWS
from vit_core.errors import ConfigError

NAMES = (Path(__file__).parents[1] / "golden" / "configs" / "names.txt").read_text(encoding="utf-8").split()
TYPOS = {
    "hidden_sise": "hidden_size",
    "hiden_size": "hidden_size",
    "hidden_szie": "hidden_size",
    "idden_size": "hidden_size",
    "hidensize": None,
    "hiden_sise": "hidden_size",
    "hidden_droput": "hidden_dropout_prob",
    "hidden_droput_prob": "hidden_dropout_prob",
    "atention_probs_droput_prob": "attention_probs_dropout_prob",
    "num_atention_head": "num_attention_heads",
    "layers_norm": "layer_norm_eps",
    "num_label": "num_labels",
    "dtyp": "dtype",
    "id2labels": "id2label",
    "image_sizE": "image_size",
    "drop_path_rat": "drop_path_rate",
    "use_mean_poling": "use_mean_pooling",
    # names of their own
    "hidden_dropout": None,
    "pooler_output": None,
    "hide_sizes": None,
    "Hidden_Size": None,
    "proj_hidden_size": None,
    "hidden_size_2": None,
    "num_levels": None,
    "tool": None,
    "death": None,
}
MISSES = {name: meant for name, meant in TYPOS.items() if meant}
OWN = {ViTConfig: {*ViTConfig().to_dict()}, ViTMAEConfig: {*ViTMAEConfig().to_dict()}}


@pytest.mark.parametrize("name", TYPOS)
def test_what_counts_as_misspelt(name, config_class):
    if not TYPOS[name]:
        assert config_class(**{name: 1}).extra == {name: 1}
        return
    part = f"{name}: no such field; did you mean {TYPOS[name]!r}"
    config = config_class(hidden_size=96, image_size=64, num_labels=3, dtype="float16")
    for build in (
        lambda: config_class(**{name: 1}),
        lambda: config_class(**{name: None, "hidden_size": 96, "num_labels": 3}),
        lambda: setattr(config, name, 1),
        lambda: config.update({name: 1}),
    ):
        with pytest.raises(ConfigError) as caught:
            build()
        assert part in str(caught.value)


@pytest.mark.parametrize("name", MISSES)
def test_a_misspelt_override_is_refused(name, config_class, tmp_path):
    config_class().save_pretrained(tmp_path)
    for reader in config_class, AutoConfig:
        with pytest.raises(ConfigError) as caught:
            reader.from_pretrained(tmp_path, **{name: 1, "bar": 2})
        assert f"no field called {name!r}, 'bar'.\nDid you mean {MISSES[name]!r}?" in str(caught.value)


def test_no_name_of_transformers_is_misspelt(config_class):
    """Of its base configuration, its ViTs, and of every other model that it has."""
    strangers = {name: 7 for name in NAMES if name not in OWN[config_class] and name not in ROWS}
    given = {name: v for name, v in strangers.items() if name not in ("num_labels", "use_return_dict", "torch_dtype")}
    assert config_class(**given).extra == given
    assert len(given) > 1800 and {"patch_stride", "decoder_depth", "is_decoder", "tie_word_embeddings"} <= {*given}
    others = {"decoder_hidden_size", "mask_ratio", "norm_pix_loss", "decoder_num_attention_heads"}
    assert others <= {*(given if config_class is ViTConfig else OWN[config_class])}


def warnings_of(caplog, load):
    caplog.clear()
    with caplog.at_level(logging.WARNING, logger="vitriad"):
        load()
    return [record.getMessage() for record in caplog.records]


@pytest.fixture
def folder(tmp_path, config_class):
    """A folder with a configuration in which two fields are misspelt."""
    config = config_class(hidden_size=24, num_attention_heads=3)
    stored = {**config.to_dict(), "hidden_droput": 0.1, "image_sise": [1], "foo": 2}
    (tmp_path / "config.json").write_text(json.dumps(stored))
    return tmp_path


def test_in_a_file_they_are_kept_with_one_warning(folder, config_class, caplog):
    for reader in config_class, AutoConfig:
        config = None

        def load(reader=reader):
            nonlocal config
            config = reader.from_pretrained(folder, foo=3)

        said = warnings_of(caplog, load)
        assert config.extra == {"hidden_droput": 0.1, "image_sise": [1], "foo": 3}
        assert config.hidden_dropout_prob == 0.0
        if reader is config_class:
            assert said == [
                f"{folder}: config.json: kept, but no fields: 'hidden_droput' (did you mean 'hidden_dropout_prob'?), "
                "'image_sise' (did you mean 'image_size'?)"
            ]
        else:
            assert said == []  # of this folder it was said
    config.save_pretrained(folder)
    assert config_class.from_json_file(folder / "config.json") == config
    with pytest.raises(ConfigError, match="did you mean 'image_size'"):
        config.update({"image_sise": 3})


def test_many_are_counted(config_class, caplog):
    names = [f"hidden_siz{letter}" for letter in "abcdfghij"]
    said = warnings_of(caplog, lambda: config_class.from_dict(dict.fromkeys(names, 1)))
    assert len(said) == 1 and said[0].endswith("and 4 more") and said[0].count("did you mean") == 5
