"""A dialect is one module: one that no program speaks, all of it here, is read, inspected, converted and verified."""

import json

import numpy as np
import pytest
import safetensors.numpy
from backends import INSTALLED
from checkpoints import make_config, make_tensors, write

import conversion
from conversion.dialect import Dialect, Target
from conversion.dialects import DIALECTS
from conversion.folds import mapped, zero_biases
from conversion.images import BILINEAR, HALVES, in_colour
from vit_core.errors import CheckpointError, ConfigError
from vitriad.inspect import describe
from vitriad.verify import compare

CLS = "ViTForImageClassification"
MODULES = {
    "embeddings.patch_embeddings.projection": "patches",
    **{
        f"encoder.layer.{{i}}.{ours}": f"layer-{{i}}/{theirs}"
        for ours, theirs in {
            "layernorm_before": "norm_a",
            "attention.attention.query": "q",
            "attention.attention.key": "k",
            "attention.attention.value": "v",
            "attention.output.dense": "out",
            "layernorm_after": "norm_b",
            "intermediate.dense": "wide",
            "output.dense": "narrow",
        }.items()
    },
    "layernorm": "norm",
    "classifier": "classes",
}


def tempered(where, found, allow):
    """These programs divide logits by a temperature."""
    temperature = found.pop("classifier.temperature", None)
    if temperature is None:
        return []
    for name in ("classifier.weight", "classifier.bias"):
        found[name] = mapped(found[name], lambda array: array / temperature.read())
    return ["folded: a temperature"]


def read_config(where, data):
    return {"num_attention_heads": data["made_up"]["heads"], "image_size": data["made_up"]["size"]}


def write_config(config, model, processor):
    labels = [config.id2label[i] for i in range(config.num_labels)]
    said = {"heads": config.num_attention_heads, "size": list(config.image_size), "labels": labels}
    return {"made_up": said, "kind": "made up"}


MADE_UP = Dialect(
    name="made_up",
    convention="keras",
    rows={
        "embeddings.cls_token": ("first",),
        "embeddings.position_embeddings": ("places",),
        **{f"{ours}.weight": (f"{theirs}/w",) for ours, theirs in MODULES.items()},
        **{f"{ours}.bias": (f"{theirs}/b",) for ours, theirs in MODULES.items()},
    },
    folded={"classifier.temperature": ("classes/temperature",)},
    folds=(tempered, zero_biases),
    dropped={"step": "a counter of training"},
    marks={"hinge": "a door"},
    numerics={"layer_norm_eps": 1e-6, "hidden_act": "gelu"},
    config_key="kind",
    read_config=read_config,
    read_labels=lambda data: ("labels", data["made_up"]["labels"]),
    read_images=lambda opened, config, limits: in_colour(
        {**HALVES, "resample": BILINEAR}, "mean and deviation of made-up models", config.num_channels
    ),
    target=Target(
        classes=(CLS,),
        container="safetensors",
        suffix=".safetensors",
        file="model.safetensors",
        lacks={"embeddings.mask_token": "mask token"},
        config=write_config,
    ),
)


@pytest.fixture
def made_up(tmp_path):
    """The folders of a model in our names and in the made-up ones."""
    config = make_config(CLS, layer_norm_eps=1e-6, id2label={i: f"kind {i}" for i in range(5)})
    write(tmp_path / "ours", config, make_tensors(CLS, config))
    DIALECTS.append(MADE_UP)
    conversion.convert(tmp_path / "ours", tmp_path / "theirs", to="made_up")
    yield tmp_path / "ours", tmp_path / "theirs"
    DIALECTS.remove(MADE_UP)


def stored(folder):
    return safetensors.numpy.load_file(folder / "model.safetensors")


def change(folder, **tensors):
    safetensors.numpy.save_file({**stored(folder), **tensors}, folder / "model.safetensors")
    (folder / "manifest.json").unlink()


def test_it_is_written_in_its_names_and_its_layout(made_up):
    ours, theirs = map(stored, made_up)
    assert {"first", "places", "patches/w", "layer-1/wide/b", "classes/w"} < {*theirs} and len(theirs) == len(ours)
    np.testing.assert_array_equal(theirs["layer-1/q/w"].T, ours["vit.encoder.layer.1.attention.attention.query.weight"])
    assert json.loads((made_up[1] / "config.json").read_text())["made_up"]["heads"] == 3


def test_it_is_read_as_what_it_was_written_from(made_up):
    (config, expected, _), (found, tensors, report) = map(conversion.load, made_up)
    assert (report.dialect, report.model) == ("made_up", CLS) and conversion.detect(made_up[1]) == "made_up"
    assert tensors.keys() == expected.keys() and found.id2label == config.id2label
    for name, tensor in tensors.items():
        np.testing.assert_array_equal(tensor, expected[name], err_msg=name)


def test_it_is_inspected(made_up):
    found = describe(str(made_up[1]))
    assert (found["dialect"], found["class"], found["problems"]) == ("made_up", CLS, [])
    names = {row["name"]: row["stored_as"] for row in found["parameters"]}
    assert names["vit.encoder.layer.0.output.dense.weight"] == "layer-0/narrow/w"


def test_it_is_converted_with_its_way_to_prepare_images(made_up, tmp_path):
    notes = conversion.convert(made_up[1], tmp_path / "again", to="hf").notes
    assert "image processor: by mean and deviation of made-up models" in notes
    again, ours = stored(tmp_path / "again"), stored(made_up[0])
    assert again.keys() == ours.keys()
    for name, tensor in again.items():
        np.testing.assert_array_equal(tensor, ours[name], err_msg=name)
    assert json.loads((tmp_path / "again" / "preprocessor_config.json").read_text())["resample"] == BILINEAR


@pytest.mark.parametrize("backend", INSTALLED)
def test_it_is_verified(made_up, backend):
    rows = compare(*map(str, made_up), backend)["outputs"]
    assert [row["output"] for row in rows] == ["logits"]
    np.testing.assert_array_less(rows[0]["difference"], 1e-6 * rows[0]["scale"])


def test_what_its_programs_add_is_folded_or_left_out(made_up):
    ours, theirs = made_up
    change(theirs, **{"classes/temperature": np.float32([2]), "step": np.float32([7])})
    _, tensors, report = conversion.load(theirs)
    np.testing.assert_array_equal(tensors["classifier.weight"] * 2, stored(ours)["classifier.weight"])
    assert {"folded: a temperature", "left out, a counter of training: step"} <= {*report.notes}


def test_what_it_cannot_hold_is_refused_by_name(made_up, tmp_path):
    with pytest.raises(CheckpointError, match=r"ViTModel as 'made_up': it has ViTForImageClassification only"):
        conversion.convert(made_up[0], tmp_path / "new", to="made_up", cls="ViTModel", add_pooling_layer=False)
    change(made_up[1], **{"layer-0/hinge/w": np.float32([1])})
    with pytest.raises(CheckpointError, match=r"layer-0/hinge/w: a door; no ViT or ViTMAE can hold it"):
        conversion.load(made_up[1])


def test_labels_that_it_says_have_to_be_those_of_the_head(made_up):
    said = {"heads": 3, "size": [8, 12], "labels": ["one"]}
    (made_up[1] / "config.json").write_text(json.dumps({"kind": "made up", "made_up": said}))
    with pytest.raises(ConfigError, match="Mend labels there"):
        conversion.load(made_up[1])


def test_without_its_line_in_the_list_nobody_knows_it(made_up):
    DIALECTS.remove(MADE_UP)
    try:
        with pytest.raises(CheckpointError, match="not a known dialect"):
            conversion.detect(made_up[1])
    finally:
        DIALECTS.append(MADE_UP)
