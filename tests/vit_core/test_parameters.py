"""The canonical parameters: names and shapes of transformers' state dicts, and fresh values from a seed alone."""

import json
import math
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vit_core.config import ViTConfig, ViTMAEConfig
from vit_core.errors import CheckpointError, ConfigError, InputError
from vit_core.parameters import MODEL_CLASSES, check_tensors, class_name, draw, parameter_table, sincos_of
from vit_core.positions import sincos_table

ROWS = json.loads((Path(__file__).parents[1] / "golden" / "configs" / "parameters.json").read_text(encoding="utf-8"))
SMALL = {"hidden_size": 24, "num_hidden_layers": 2, "num_attention_heads": 3, "intermediate_size": 20}
SMALL |= {"image_size": (12, 20), "patch_size": 4}
DECODER = {"decoder_hidden_size": 8, "decoder_num_attention_heads": 2, "decoder_num_hidden_layers": 1}


def small(cls, **fields):
    decoder = DECODER if "MAE" in cls else {}
    return MODEL_CLASSES[cls](**{**SMALL, **decoder, **fields})


def count(table):
    return sum(math.prod(row.shape) for row in table.values())


# Names, shapes, kinds


@pytest.mark.parametrize("row", ROWS, ids=lambda row: f"{row['class']}-{len(row['shapes'])}")
def test_names_and_shapes_are_those_of_transformers(row):
    table = parameter_table(MODEL_CLASSES[row["class"]](**row["config"]), row["class"], **row["options"])
    assert {name: list(entry.shape) for name, entry in table.items()} == row["shapes"]
    assert [name for name, entry in table.items() if entry.name != name] == []
    assert {name for name, entry in table.items() if not entry.trainable} == {*row["fixed"]}


@pytest.mark.parametrize(
    ("cls", "fields", "total", "trainable"),
    [
        ("ViTModel", {}, 86_389_248, 86_389_248),
        ("ViTForImageClassification", {"num_labels": 1000}, 86_567_656, 86_567_656),
        ("ViTForMaskedImageModeling", {}, 86_390_016, 86_390_016),
        ("ViTMAEModel", {}, 85_798_656, 85_647_360),
        ("ViTMAEForPreTraining", {}, 111_907_840, 111_655_680),
    ],
)
def test_numbers_of_parameters(cls, fields, total, trainable):
    table = parameter_table(MODEL_CLASSES[cls](**fields), cls)
    assert count(table) == total
    assert count({name: row for name, row in table.items() if row.trainable}) == trainable


SHAPES_OF = {
    "linear": lambda name, shape: len(shape) == 2 and name.endswith(".weight") and ".attention." not in name,
    "heads_in": lambda name, shape: name.endswith(("query.weight", "key.weight", "value.weight")),
    "heads_bias": lambda name, shape: name.endswith(("query.bias", "key.bias", "value.bias")),
    "heads_out": lambda name, shape: name.endswith(".attention.output.dense.weight"),
    "conv": lambda name, shape: len(shape) == 4 and name.endswith(("projection.weight", "decoder.0.weight")),
    "bias": lambda name, shape: (
        len(shape) == 1
        and name.endswith((".dense.bias", "projection.bias", ".0.bias", "classifier.bias", "embed.bias", "pred.bias"))
    ),
    "norm_scale": lambda name, shape: len(shape) == 1 and name.endswith(".weight") and "norm" in name,
    "norm_shift": lambda name, shape: len(shape) == 1 and name.endswith(".bias") and "norm" in name,
    "token": lambda name, shape: shape[:2] == (1, 1) and name.endswith("_token"),
    "positions": lambda name, shape: shape[:2] == (1, 16) and name.endswith(("position_embeddings", "pos_embed")),
    "scalar": lambda name, shape: shape in ((), (1,)) and ".intermediate_act_fn." in name,
}
PARTS = {"pooler.": "pooler", "embeddings.mask_token": "mask_token", "classifier.": "classifier", "decoder.": "decoder"}


@pytest.mark.parametrize("cls", MODEL_CLASSES)
@pytest.mark.parametrize("activation", ["gelu", "prelu", "xielu"])
def test_kinds_and_parts_follow_from_the_name(cls, activation):
    table = parameter_table(small(cls, hidden_act=activation), cls, use_mask_token=True)
    for name, row in table.items():
        assert [kind for kind, fits in SHAPES_OF.items() if fits(name, row.shape)] == [row.kind], name
        parts = [part for start, part in PARTS.items() if name.removeprefix("vit.").startswith(start)]
        assert row.part == (parts or ["encoder"])[0]
        assert name.startswith("vit.") == (
            cls not in ("ViTModel", "ViTMAEModel") and (row.part in ("encoder", "mask_token"))
        )
    assert {"ViTModel": "pooler", "ViTMAEModel": "encoder"}.get(cls, "classifier" if "Class" in cls else "decoder") in {
        row.part for row in table.values()
    }


def test_options_mean_something_to_the_bare_encoder_only():
    full = parameter_table(small("ViTModel"), "ViTModel", use_mask_token=True)
    bare = parameter_table(small("ViTModel"), "ViTModel", add_pooling_layer=False)
    assert {*full} - {*bare} == {"pooler.dense.weight", "pooler.dense.bias", "embeddings.mask_token"}
    for cls in [*MODEL_CLASSES][1:]:
        config = small(cls)
        assert parameter_table(config, cls) == parameter_table(
            config, cls, add_pooling_layer=False, use_mask_token=True
        )


def test_a_gated_activation_halves_the_mlp():
    config = small("ViTMAEForPreTraining", hidden_act="glu", intermediate_size=10, decoder_intermediate_size=6)
    table = parameter_table(config, "ViTMAEForPreTraining")
    assert table["vit.encoder.layer.1.output.dense.weight"].shape == (24, 5)
    assert table["decoder.decoder_layers.0.output.dense.weight"].shape == (8, 3)


@pytest.mark.parametrize("given_class", ["ViTModel", "TFViTModel", "FlaxViTModel", type("TFViTModel", (), {})])
def test_names_of_every_backend(given_class):
    assert class_name(given_class) == "ViTModel"
    assert parameter_table(small("ViTModel"), given_class) == parameter_table(small("ViTModel"), "ViTModel")


@pytest.mark.parametrize("wrong", ["DeiTModel", "", "TF", "vitmodel", dict, "ViTForPreTraining"])
def test_classes_refused(wrong):
    with pytest.raises(ConfigError, match=f"expected one of {', '.join(MODEL_CLASSES)}, got"):
        class_name(wrong)
    with pytest.raises(ConfigError, match=r"ViTModel: expected a ViTConfig, got a ViTMAEConfig\."):
        parameter_table(small("ViTMAEModel"), "ViTModel")


SIZES = st.integers(1, 40)


@settings(max_examples=60, deadline=None, derandomize=True)
@given(SIZES, st.integers(0, 5), SIZES, SIZES, SIZES, SIZES, SIZES)
def test_the_limit_counts_what_a_model_has(hidden, layers, mlp, patch, rows, channels, labels):
    sizes = {"hidden_size": 4 * hidden, "num_hidden_layers": layers, "num_attention_heads": 2, "intermediate_size": mlp}
    sizes |= {
        "image_size": (patch * rows, patch * 2),
        "patch_size": patch,
        "num_channels": channels,
        "num_labels": labels,
    }
    decoder = {"decoder_hidden_size": 4 * mlp, "decoder_num_attention_heads": 2, "decoder_num_hidden_layers": layers}
    for config in ViTConfig(**sizes, encoder_stride=patch), ViTMAEConfig(**sizes, **decoder):
        rows_of = {}
        for cls, config_class in MODEL_CLASSES.items():
            if isinstance(config, config_class):
                table = parameter_table(config, cls)
                rows_of |= {name.removeprefix("vit."): row for name, row in table.items() if len(row.shape) > 1}
        tokens = 3 * config.hidden_size + 2 * 4 * mlp  # class and mask tokens and their positions: not worth counting
        labelled = config.hidden_size * labels * isinstance(config, ViTMAEConfig)  # which has no classifier
        assert 0 <= count(rows_of) + labelled - config._num_weights() <= tokens


# Tensors that are not those of the table


def test_tensors_that_fit_and_that_do_not():
    table = parameter_table(small("ViTModel"), "ViTModel")
    shapes = {name: list(row.shape) for name, row in table.items()}
    check_tensors("ViTModel", table, shapes)
    renamed = {name.replace("layer.1", "layer.7"): shape for name, shape in shapes.items()}
    renamed["layernorm.bias"] = [3]
    with pytest.raises(CheckpointError) as caught:
        check_tensors("ViTModel", table, renamed)
    message = str(caught.value)
    assert message.startswith(
        "ViTModel: the tensors do not fit the model: 16 missing: encoder.layer.1.layernorm_before"
    )
    assert "; 16 unknown: encoder.layer.7." in message
    assert message.endswith("; 1 of another shape: layernorm.bias (3,) instead of (24,).")
    assert Counter(message.split())["encoder.layer.7.attention.attention.query.weight,"] == 1
    assert message.count("encoder.layer.") == 20  # ten names of each sort


# Fresh values


@pytest.mark.parametrize("cls", MODEL_CLASSES)
def test_fresh_values_depend_on_the_seed_and_the_name_alone(cls):
    config, options = small(cls), {"use_mask_token": True} if cls == "ViTModel" else {}
    first, again, other = draw(config, cls, 5, **options), draw(config, f"TF{cls}", 5, **options), draw(config, cls, 6)
    assert list(first) == list(parameter_table(config, cls, **options))
    for name, row in parameter_table(config, cls, **options).items():
        assert (first[name].shape, first[name].dtype) == (row.shape, np.float32)
        np.testing.assert_array_equal(first[name], again[name])
        if row.init.kind not in ("constant", "sincos"):
            assert (first[name] != other[name]).mean() > 0.9
    deeper = draw(small(cls, num_hidden_layers=4, num_channels=1), cls, 5)
    name = next(name for name in deeper if name.endswith("layer.1.output.dense.weight"))
    np.testing.assert_array_equal(deeper[name], first[name])  # whatever comes before it


def test_no_two_tensors_share_a_stream():
    random = [
        array
        for array in draw(small("ViTForMaskedImageModeling"), "ViTForMaskedImageModeling", 0).values()
        if array.std() > 0
    ]
    assert len({array.ravel()[:4].tobytes() for array in random}) == len(random)


PINNED = {
    ("ViTModel", "embeddings.cls_token"): [0.02703251875936985, -0.014408647082746029, 0.01692565158009529],
    ("ViTMAEModel", "embeddings.patch_embeddings.projection.weight"): [0.27103182673454285, 0.11796946078538895],
}


@pytest.mark.parametrize(("cls", "name"), PINNED)
def test_fresh_values_never_change(cls, name):
    config = MODEL_CLASSES[cls](24, 1, 3, 20, image_size=8, patch_size=4)
    expected = PINNED[cls, name]
    np.testing.assert_array_equal(draw(config, cls, 7)[name].ravel()[: len(expected)], np.float32(expected))


@pytest.mark.parametrize(
    ("cls", "deviation", "largest", "expected"),
    [
        ("ViTModel", 0.02, 0.15, 0.02),  # not cut at two standard deviations
        ("ViTModel", 1.0, 2.0, 0.8796),  # cut at 2: sqrt(1 - 4 phi(2) / (2 Phi(2) - 1))
        ("ViTModel", 2.0, 2.0, 1.0792),  # cut at one standard deviation
        ("ViTModel", 1e6, 2.0, 2 / math.sqrt(3)),  # all but uniform, and no hang
        ("ViTModel", 0, 0.0, 0.0),
        ("ViTMAEModel", 1.0, 6.0, 1.0),  # not cut at all
    ],
)
def test_distributions(cls, deviation, largest, expected):
    config = MODEL_CLASSES[cls](**{**SMALL, "intermediate_size": 2000}, initializer_range=deviation)
    values = draw(config, cls, 0)["encoder.layer.0.intermediate.dense.weight"]  # 48,000 numbers
    np.testing.assert_allclose(values.std(), expected, rtol=0.01)  # standard error 0.003
    np.testing.assert_allclose(values.mean(), 0, atol=0.02 * expected)
    assert largest / 2 <= np.abs(values).max() <= largest


def test_fixed_and_constant_values():
    config = small("ViTMAEForPreTraining", hidden_act="xielu")
    tensors = draw(config, "ViTMAEForPreTraining", 0)
    for name, hidden in ("vit.embeddings.position_embeddings", 24), ("decoder.decoder_pos_embed", 8):
        np.testing.assert_array_equal(tensors[name], sincos_table(hidden, 3, 5).astype(np.float32))
        np.testing.assert_array_equal(
            sincos_of(parameter_table(config, "ViTMAEForPreTraining")[name], config), tensors[name]
        )
    bound = math.sqrt(6 / (24 + 3 * 4 * 4))
    patches = tensors["vit.embeddings.patch_embeddings.projection.weight"]
    assert 0.99 * bound < np.abs(patches).max() <= bound
    for name, array in tensors.items():
        if name.endswith(".bias"):
            assert not array.any()
        elif "norm" in name:
            assert (array == 1).all()
    act = "vit.encoder.layer.0.intermediate.intermediate_act_fn"
    softplus = np.log1p(np.exp([tensors[f"{act}.alpha_p"], tensors[f"{act}.alpha_n"]])).ravel()
    np.testing.assert_allclose(softplus, [0.8, 0.3], rtol=1e-6)
    assert (tensors[f"{act}.beta"], tensors[f"{act}.eps"]) == (0.5, np.float32(-1e-6))
    assert not draw(small("ViTForMaskedImageModeling"), "ViTForMaskedImageModeling", 0)[
        "vit.embeddings.mask_token"
    ].any()
    assert tensors["decoder.mask_token"].std() > 0.005
    prelu = draw(small("ViTModel", pooler_act="prelu"), "ViTModel", 0)["pooler.activation.weight"]
    np.testing.assert_array_equal(prelu, [0.25])


@pytest.mark.parametrize("seed", [-1, 2**64, 1.0, "1", None, True])
def test_seeds_refused(seed):
    with pytest.raises(InputError, match=r"seed: expected an int from 0 to 2\*\*64 - 1, got"):
        draw(small("ViTModel"), "ViTModel", seed)
    assert draw(small("ViTModel", num_hidden_layers=0), "ViTModel", 2**64 - 1)
