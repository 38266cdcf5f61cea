"""Configurations in files: byte for byte those of transformers 4.57.6, and every way to read one."""

import json
import pickle
from copy import deepcopy
from pathlib import Path

import pytest

from vit_core.config import AutoConfig, PretrainedConfig, ViTConfig, ViTMAEConfig
from vit_core.errors import ConfigError, MissingFileError
from vit_core.limits import LIMITS

GOLDEN = Path(__file__).parents[1] / "golden" / "configs"
CASES = json.loads((GOLDEN / "index.json").read_text(encoding="utf-8"))
CLASSES = {"ViTConfig": ViTConfig, "ViTMAEConfig": ViTMAEConfig}

# What we write differently, on purpose: labels map both ways, and indices are numbers.
DEPARTURES = {
    "vit_id2label": ('"label2id": null', '"label2id": {\n    "a": 0,\n    "b": 1,\n    "c": 2\n  }'),
    "vit_text_indices": ('"no": "0",\n    "yes": "1"', '"no": 0,\n    "yes": 1'),
}

VIT = {"hidden_size": 24, "num_attention_heads": 3, "intermediate_size": 20, "image_size": 32}


def golden(case):
    return (GOLDEN / f"{case}.json").read_text(encoding="utf-8")


def expected(case):
    theirs, ours = DEPARTURES.get(case, ("", ""))
    assert theirs in golden(case)
    return golden(case).replace(theirs, ours) if theirs else golden(case)


def built(case):
    arguments = dict(CASES[case]["arguments"])
    config = CLASSES[CASES[case]["class"]](*arguments.pop("args", []), **arguments)
    config.attn_implementation = None  # never written: a choice of this run
    return config


@pytest.fixture
def folder(tmp_path, request):
    """A folder with a ViT configuration, or with the fields of the test's parameter."""
    fields = getattr(request, "param", VIT)
    ViTConfig(**fields, pooler_act="relu", foo=1).save_pretrained(tmp_path / "vit")
    return tmp_path / "vit"


# Against the files that transformers writes


def test_there_is_a_golden_file_for_every_case():
    files = {path.stem for path in GOLDEN.glob("*.json")} - {"index", "parameters"}
    assert files == {*CASES} and len(CASES) >= 12


@pytest.mark.parametrize("case", CASES)
def test_the_same_arguments_give_the_same_file(case, tmp_path):
    config = built(case)
    assert config.to_json_string() == expected(case)
    config.save_pretrained(tmp_path / "new" / "folder")
    config.to_json_file(tmp_path / "one.json")
    for path in (tmp_path / "new" / "folder" / "config.json", tmp_path / "one.json"):
        assert path.read_bytes() == expected(case).encode()


@pytest.mark.parametrize("case", CASES)
def test_a_file_read_and_written_again_is_unchanged(case, tmp_path):
    config_class, text = CLASSES[CASES[case]["class"]], expected(case).replace("4.57.6", "4.19.0.dev0")
    (tmp_path / "config.json").write_text(text, encoding="utf-8")
    for config in (
        config_class.from_pretrained(tmp_path),
        config_class.from_pretrained(str(tmp_path / "config.json")),
        config_class.from_json_file(tmp_path / "config.json"),
        config_class.from_dict(json.loads(text)),
        AutoConfig.from_pretrained(tmp_path),
    ):
        assert type(config) is config_class
        assert config.to_json_string() == text
        assert config == built(case)
        assert json.loads(config.to_json_string(use_diff=False)).items() >= json.loads(text).items()


@pytest.mark.parametrize("case", CASES)
def test_a_dict_of_everything_is_a_configuration_again(case):
    config = built(case)
    assert type(config)(**config.to_dict()) == config == type(config).from_dict(config.to_dict())
    assert type(config).from_dict(config.to_diff_dict()) == config
    assert type(config).from_dict(json.loads(config.to_json_string(use_diff=False))) == config


# Reading


def test_reading_names_its_source_and_writing_does_not(folder):
    config = ViTConfig.from_pretrained(str(folder))
    assert config.name_or_path == str(folder)
    assert str(folder) not in config.to_json_string()
    assert config == ViTConfig.from_pretrained(folder.parent, subfolder="vit")


def test_any_file_name_will_do(folder):
    path = folder.parent / "settings"
    (folder / "config.json").rename(path)
    assert ViTConfig.from_pretrained(path).hidden_size == 24


@pytest.mark.parametrize("config_class", [ViTConfig, ViTMAEConfig, AutoConfig])
@pytest.mark.parametrize("name", ["vit/../empty", "vit/no.json", "../none", "no/such/folder/at/all", ""])
def test_a_missing_file_is_no_default_configuration(config_class, name, folder):
    (folder.parent / "empty").mkdir()
    with pytest.raises(MissingFileError) as caught:
        config_class.from_pretrained(f"{folder.parent}/{name}" if name else name)
    assert isinstance(caught.value, FileNotFoundError)
    assert "no such f" in str(caught.value)


@pytest.mark.parametrize(
    "text", ['{"model_type": "vit"', "[]", "", '{"hidden_size": 1, "hidden_size": 2}', '{"a": 1e}']
)
def test_a_file_that_is_no_configuration(text, folder):
    (folder / "config.json").write_text(text)
    for config_class in (ViTConfig, AutoConfig):
        with pytest.raises(ConfigError, match=r"config\.json: "):
            config_class.from_pretrained(folder)


@pytest.mark.parametrize("model_type", ["beit", "VIT", "", None, 3, ["vit"], {"vit": 1}, "vit-mae"])
def test_another_model_type_is_refused(model_type, folder):
    text = json.dumps({**VIT, "model_type": model_type})
    (folder / "config.json").write_text(text)
    for build in (ViTConfig.from_pretrained, ViTMAEConfig.from_pretrained, AutoConfig.from_pretrained):
        with pytest.raises(ConfigError, match="expected model_type"):
            build(folder)
    with pytest.raises(ConfigError, match="expected model_type to be one of vit, vit_mae"):
        AutoConfig.for_model(model_type)


def test_without_a_model_type_the_class_decides(folder):
    (folder / "config.json").write_text(json.dumps(VIT))
    assert ViTMAEConfig.from_pretrained(folder).hidden_size == 24
    with pytest.raises(ConfigError, match=r"vit: expected model_type to be one of vit, vit_mae, .*, got None\."):
        AutoConfig.from_pretrained(folder)


def test_hand_over_between_the_two_models_drops_what_only_the_other_has(folder):
    mae = ViTMAEConfig.from_pretrained(folder)
    assert (mae.hidden_size, mae.decoder_hidden_size, mae.extra) == (24, 512, {"foo": 1})
    mae = ViTMAEConfig(**VIT, mask_ratio=0.5, norm_pix_loss=True, dtype="float16", num_labels=5, bar=2)
    mae.save_pretrained(folder)
    for config in (ViTConfig.from_pretrained(folder), ViTConfig.from_json_file(folder / "config.json")):
        assert config == ViTConfig(**VIT, dtype="float16", num_labels=5, bar=2)
    assert type(AutoConfig.from_pretrained(folder)) is ViTMAEConfig
    with pytest.raises(ConfigError, match="no field called 'mask_ratio'"):
        ViTConfig.from_pretrained(folder, mask_ratio=0.25)


def test_a_bad_file_is_named_with_everything_that_is_wrong_in_it(folder):
    (folder / "config.json").write_text(json.dumps({**VIT, "model_type": "vit", "patch_size": 0, "qkv_bias": "false"}))
    with pytest.raises(ConfigError) as caught:
        ViTConfig.from_pretrained(folder)
    first, problems = str(caught.value).split("\n")
    assert first == f"ViTConfig of {folder}: 2 invalid settings:"
    assert "patch_size: expected" in problems and "qkv_bias: expected True or False, got 'false'" in problems


# Overrides


@pytest.mark.parametrize(
    ("stored", "overrides", "found"),
    [
        ({}, {"hidden_size": 48}, {"hidden_size": 48, "pooler_output_size": 48}),
        ({"pooler_output_size": 7}, {"hidden_size": 48}, {"pooler_output_size": 7}),
        ({}, {"hidden_size": 48, "pooler_output_size": 24}, {"pooler_output_size": 24}),
        ({}, {"num_labels": 3}, {"num_labels": 3, "label2id": {"LABEL_0": 0, "LABEL_1": 1, "LABEL_2": 2}}),
        ({"id2label": {0: "a"}}, {"num_labels": 1}, {"id2label": {0: "a"}}),
        ({"id2label": {0: "a"}}, {"num_labels": None, "id2label": None}, {"id2label": {0: "a"}}),
        ({"id2label": {0: "a"}}, {"num_labels": 2}, {"id2label": {0: "LABEL_0", 1: "LABEL_1"}}),
        ({"id2label": {0: "a"}}, {"id2label": {0: "x", 1: "y"}}, {"label2id": {"x": 0, "y": 1}}),
        ({"id2label": {0: "a"}}, {"id2label": {0: "x"}, "num_labels": 1}, {"label2id": {"x": 0}}),
        ({"id2label": {0: "a"}}, {"label2id": {"z": 0}}, {"id2label": {0: "a"}, "label2id": {"z": 0}}),
        ({"dtype": "float16"}, {"torch_dtype": "bfloat16"}, {"dtype": "bfloat16", "torch_dtype": "bfloat16"}),
        ({"dtype": "float16"}, {"dtype": None}, {"dtype": None}),
        ({"torch_dtype": "float16"}, {}, {"dtype": "float16"}),
        ({"image_size": (32, 48)}, {"foo": 2, "output_attentions": True}, {"image_size": (32, 48), "foo": 2}),
        ({}, {"attn_implementation": "eager"}, {"attn_implementation": "eager"}),
        ({}, {"_attn_implementation": "sdpa"}, {"attn_implementation": "sdpa"}),
    ],
)
def test_overrides_are_laid_over_the_file(stored, overrides, found, tmp_path):
    ViTConfig(**{**VIT, **stored}, foo=1).save_pretrained(tmp_path)
    for config in (ViTConfig.from_pretrained(tmp_path, **overrides), AutoConfig.from_pretrained(tmp_path, **overrides)):
        assert {name: getattr(config, name) for name in found} == found
        assert type(config).from_dict(config.to_dict()) == config


@pytest.mark.parametrize(
    ("overrides", "part"),
    [
        ({"hidden_sise": 1}, "ViTConfig: no field called 'hidden_sise'"),
        ({"mask_ratio": 0.5, "bar": 2}, "no field called 'mask_ratio', 'bar'"),
        ({"hidden_size": 50}, "multiple of num_attention_heads 3, got 50"),
        ({"num_labels": 3, "id2label": {0: "a"}}, "num_labels: expected the 1 of id2label, got 3"),
        ({"num_labels": "3"}, "num_labels: expected an int"),
        ({"patch_size": None}, "patch_size: expected"),
    ],
)
def test_overrides_refused(overrides, part, folder):
    for config_class in (ViTConfig, AutoConfig):
        with pytest.raises(ConfigError, match=part):
            config_class.from_pretrained(folder, **overrides)


def test_unused_keywords_are_handed_back_when_asked_for(folder):
    for config_class in (ViTConfig, AutoConfig):
        config, unused = config_class.from_pretrained(
            folder, image_size=64, foo=3, bar=4, num_labels=5, return_unused_kwargs=True, local_files_only=True
        )
        assert (config.image_size, config.foo, config.num_labels, unused) == (64, 3, 5, {"bar": 4})
    assert ViTConfig.from_dict(VIT, return_unused_kwargs=True) == (ViTConfig(**VIT), {})


def test_auto_config_builds_by_model_type():
    assert AutoConfig.for_model("vit", image_size=64) == ViTConfig(image_size=64)
    assert AutoConfig.for_model("vit_mae", mask_ratio=0.5) == ViTMAEConfig(mask_ratio=0.5)


# Writing, and limits


def test_saving_into_a_file_is_refused(tmp_path):
    (tmp_path / "file").write_text("mine")
    with pytest.raises(ConfigError, match="expected a folder to save into, got a file"):
        ViTConfig().save_pretrained(tmp_path / "file")
    assert (tmp_path / "file").read_text() == "mine"


@pytest.mark.parametrize("value", [object(), {1, 2}, b"bytes", {(1, 2): 3}])
def test_what_json_cannot_hold_is_refused_and_shown(value):
    config = ViTConfig(foo=value)
    with pytest.raises(ConfigError, match="ViTConfig cannot be written as JSON"):
        config.to_json_string()
    assert repr(value)[:6] in repr(config)


def test_a_circle_is_refused():
    circle: list = []
    circle.append(circle)
    with pytest.raises(ConfigError, match="cannot be written as JSON"):
        ViTConfig(foo=circle).to_json_string()


@pytest.mark.every_day("21843")
@pytest.mark.parametrize("count", [21_843, 100_000])
def test_many_labels_are_written_and_read(count, tmp_path):
    labels = {index: f"{'a rather long name of a thing':.29s}{index}" for index in range(count)}
    config = ViTConfig(id2label=labels)
    config.save_pretrained(tmp_path)
    assert (tmp_path / "config.json").stat().st_size < LIMITS.config_bytes
    assert ViTConfig.from_pretrained(tmp_path) == config


@pytest.mark.long
def test_as_many_labels_as_there_may_be_fit_into_the_file(tmp_path):
    ViTConfig(num_labels=LIMITS.labels).save_pretrained(tmp_path)
    assert ViTConfig.from_pretrained(tmp_path).num_labels == LIMITS.labels


def nested(depth):
    value: list = []
    for _ in range(depth):
        value = [value]
    return value


@pytest.mark.parametrize(
    ("change", "part"),
    [
        (lambda config: setattr(config, "note", "x" * LIMITS.config_bytes), r"bytes, above the limit of 16000000, so"),
        (lambda config: setattr(config, "note", nested(31)), "nested deeper than the limit of 32"),
        (lambda config: setattr(config, "note", {"a": {1: 0, None: 1}}), "cannot be written as JSON"),
        (lambda config: setattr(config, "note", {True: 0, "true": 1}), "cannot be written as JSON|stands there twice"),
        (lambda config: setattr(config, "patch_size", 33), "patch_size: expected a height of at most image_size 32"),
        (lambda config: config.id2label.update({3: "c"}), "id2label: expected the indices 0 to 2 for 3 classes"),
        (lambda config: config.id2label.update({1: None}), "id2label: expected text for class 1, got None"),
        (lambda config: config.extra.update(pool="mean"), "pool: expected 'token' or"),
    ],
)
def test_what_no_load_would_read_is_not_saved(change, part, folder):
    before = (folder / "config.json").read_bytes()
    config = ViTConfig.from_pretrained(folder)
    change(config)
    for save in config.save_pretrained, lambda folder: config.to_json_file(folder / "config.json"):
        with pytest.raises(ConfigError, match=part) as caught:
            save(folder)
        assert len(str(caught.value).split("\n")) <= 3
    assert (folder / "config.json").read_bytes() == before
    assert [path.name for path in folder.iterdir()] == ["config.json"]


def test_the_base_class_is_not_for_use():
    assert PretrainedConfig.model_type == ""
    with pytest.raises(TypeError, match="missing"):
        PretrainedConfig()


def test_what_every_configuration_of_transformers_says_can_be_asked():
    config = ViTConfig()
    for name in ("is_encoder_decoder", "is_decoder", "add_cross_attention", "tie_word_embeddings", "torchscript"):
        assert getattr(config, name) is False
        assert name not in config.to_dict()
    assert dict(config.sub_configs) == {} and config.get_text_config() is config
    said = ViTConfig.from_dict({"model_type": "vit", "tie_word_embeddings": True})
    assert said.tie_word_embeddings is True and said.to_dict()["tie_word_embeddings"] is True
    assert deepcopy(said) == said == pickle.loads(pickle.dumps(said))


def test_a_drop_path_rate_is_written_only_where_there_is_one(config_class):
    """transformers keeps the key and ignores it: models compute the same, as nothing is left out in evaluation."""
    plain = config_class(drop_path_rate=0.0)
    assert plain.to_json_string() == config_class().to_json_string()
    assert "drop_path_rate" not in plain.to_json_string()
    deep = config_class(drop_path_rate=0.25)
    assert '"drop_path_rate": 0.25' in deep.to_json_string()
    assert config_class.from_dict(deep.to_diff_dict()).drop_path_rate == 0.25
    assert config_class.from_dict(deep.to_diff_dict(), drop_path_rate=None) == plain
    assert (
        config_class.from_dict({**plain.to_diff_dict(), "drop_path_rate": 0}).to_json_string() == plain.to_json_string()
    )
