"""The parity harness: odd little models, and the verdict of `vit_core.reference` on what a backend makes of them.

A backend's test, in whole:

    @pytest.mark.parametrize("case", oracle.CASES, ids=str)
    def test_parity(case):
        model = Model.from_tensors(case.config, oracle.random_tensors(case), **case.options)   # of case.cls
        outputs = model(**case.inputs, output_attentions=True, output_hidden_states=True)
        oracle.check_outputs(case, {name: as NumPy}, "float64")
        scalar = sum((weights * outputs[name]).sum() for name, weights in oracle.projection(case).items())
        oracle.check_gradients(case, {canonical name: gradient of scalar, canonical shape}, "float64")

Every parameter is random, biases and norms included, and no two sizes agree that could be mixed up: default weights and
square shapes hide lost biases and swapped matrices.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cache
from typing import Any, NamedTuple
from zlib import crc32

import numpy as np

from vit_core.config import ACTIVATIONS, PretrainedConfig, ViTConfig, ViTMAEConfig, pair, patch_grid
from vit_core.parameters import Parameter, parameter_table
from vit_core.reference import forward
from vit_core.tensors import Array, to_numpy

Random = np.random.Generator


class Rung(NamedTuple):
    """How far from the oracle is equal.

    Attributes:
        tolerance: allowed distance, as a share of the scale: the largest |reference| of an output, or of all
            directional derivatives of a model.
        floor: the largest distance measured over CASES, outputs and gradients: PyTorch 2.13 on a CPU, eager attention.
    """

    tolerance: float
    floor: float


LADDER = {
    "float64": Rung(1e-10, floor=6e-15),
    "float32": Rung(1e-5, floor=2.4e-6),
    "float16": Rung(1.5e-1, floor=7.3e-2),  # one unit of prelu on the other side of its kink; 1.8e-2 without it
    "bfloat16": Rung(1.5e-1, floor=6.4e-2),
}
STEP = 1e-30  # of the complex step: far below rounding, far above underflow

# (heads, head_dim): different from one another; their product divides by 4, for the sin-cos positions.
HEADS = ((2, 6), (3, 4), (4, 3), (2, 10), (3, 8), (5, 4), (4, 7))
MLP_SIZES = (10, 14, 18, 22, 26, 34)  # even, for glu; never a hidden size
PATCHES = (2, 3, 4, (2, 3), (4, 2), (3, 5))
GRIDS = ((2, 3), (3, 2), (3, 4), (5, 3), (4, 6))
# Standard deviations of random parameters; those of weights follow their fan-in.
SPREAD = {"bias": 0.3, "heads_bias": 0.3, "norm_scale": 0.25, "norm_shift": 0.3, "token": 0.6, "positions": 0.6}
SPREAD |= {"layer_scale": 0.7}
SMOOTH = ("gelu", "gelu_new", "quick_gelu", "silu", "mish", "tanh")


@dataclass(frozen=True, eq=False)
class Case:
    """One model and one call of it.

    Attributes:
        name: class and feature; everything random comes from it.
        cls: canonical class name.
        config: of the model.
        options: constructor options (add_pooling_layer, use_mask_token) where they are not the default.
        inputs: arguments of the call by their documented names: arrays of NumPy, and flags.
        spread: ending of a canonical name -> standard deviation of those parameters, where it is not the usual one.
    """

    name: str
    cls: str
    config: PretrainedConfig
    options: dict[str, bool] = field(default_factory=dict)
    inputs: dict[str, Any] = field(default_factory=dict)
    spread: dict[str, float] = field(default_factory=dict)

    def __str__(self) -> str:
        return self.name


def rng(*words: str) -> Random:
    """Random numbers that depend on nothing but the words."""
    return np.random.default_rng(crc32(" ".join(words).encode()))


def random_tensors(case: Case) -> dict[str, Array]:
    """canonical name -> float64 array, exact in float32: every parameter of the model, none at its starting value."""
    return {name: _random(row, case.spread, rng(case.name, name)) for name, row in _table(case).items()}


@cache
def expected(case: Case) -> dict[str, Any]:
    """What the oracle computes for a case."""
    return run(case, random_tensors(case))


@cache
def projection(case: Case) -> dict[str, Array]:
    """output name -> weights: their product, summed, is the scalar to differentiate: the loss where there is one."""
    if "loss" in expected(case):
        return {"loss": np.ones(())}
    main = ("last_hidden_state", "pooler_output", "logits", "reconstruction")
    shapes = {name: expected(case)[name].shape for name in main if name in expected(case)}
    return {name: _normal(rng(case.name, "projection", name), shape) for name, shape in shapes.items()}


def scalar(outputs: Mapping[str, Any], case: Case) -> Any:
    """The number that `directional_derivatives` differentiates: ()."""
    return sum((weights * outputs[name]).sum() for name, weights in projection(case).items())


@cache
def directions(case: Case) -> dict[str, Array]:
    """A random direction for every trainable parameter, by canonical name."""
    rows = {name: row for name, row in _table(case).items() if row.trainable}
    return {name: _normal(rng(case.name, "direction", name), row.shape) for name, row in rows.items()}


@cache
def directional_derivatives(case: Case) -> dict[str, float]:
    """<gradient of the scalar, direction> for every trainable parameter, by one complex step each."""
    tensors = random_tensors(case)
    return {
        name: float(scalar(run(case, {**tensors, name: tensors[name] + 1j * STEP * way}), case).imag / STEP)
        for name, way in directions(case).items()
    }


def as_numpy(output: Mapping[str, Any]) -> dict[str, Any]:
    """The output of any backend's model."""
    return {
        name: tuple(map(to_numpy, value)) if isinstance(value, tuple) else to_numpy(value)
        for name, value in output.items()
    }


def check_outputs(case: Case, got: Mapping[str, Any], dtype: str) -> None:
    """Compares every output of a call, hidden states and attentions included, with the oracle's.

    Args:
        case: what was run.
        got: output name -> NumPy array, or tuple of them for hidden_states and attentions.
        dtype: rung of the LADDER.
    """
    want = expected(case)
    _check_names(f"{case}: outputs", got, want)
    for name, reference in want.items():
        if not isinstance(reference, tuple):
            _check_array(f"{case}: {name}", got[name], reference, dtype)
            continue
        np.testing.assert_equal(len(got[name]), len(reference), f"{case}: number of {name}")
        for layer, (array, layer_reference) in enumerate(zip(got[name], reference, strict=True)):
            _check_array(f"{case}: {name}[{layer}]", array, layer_reference, dtype)


def check_gradients(case: Case, gradients: Mapping[str, Any], dtype: str) -> None:
    """Compares the gradient of the scalar along one direction per trainable parameter with the oracle's.

    Args:
        case: what was run.
        gradients: canonical name -> NumPy array of canonical shape, zeros for a parameter that was not used.
        dtype: rung of the LADDER.
    """
    want = directional_derivatives(case)
    _check_names(f"{case}: gradients", gradients, want)
    scale = max(map(abs, want.values()))
    for name, way in directions(case).items():
        gradient = np.asarray(gradients[name], np.float64)
        np.testing.assert_equal(gradient.shape, way.shape, f"{case}: shape of the gradient of {name}")
        _check_close(f"{case}: gradient of {name}", (gradient * way).sum(), want[name], scale, dtype)


def check_cross_entropy(loss: Any, logits: Any, labels: Any) -> None:
    """Compares a loss with that of these logits in float64: it differs if it was computed in half precision."""
    logits = np.asarray(logits, np.float64)  # (batch, classes)
    likelihoods = logits - np.log(np.exp(logits).sum(1, keepdims=True))
    np.testing.assert_allclose(loss, -likelihoods[np.arange(len(labels)), labels].mean(), rtol=1e-5)


def _check_names(what: str, got: Mapping[str, Any], want: Mapping[str, Any]) -> None:
    np.testing.assert_equal(sorted(got), sorted(want), f"{what}: names")


def _check_array(what: str, got: Any, reference: Any, dtype: str) -> None:
    np.testing.assert_equal(np.shape(got), np.shape(reference), f"{what}: shape")
    if what.endswith((": mask", ": ids_restore")):
        np.testing.assert_array_equal(got, reference, what)
    else:
        _check_close(what, np.asarray(got, np.float64), reference, np.abs(reference).max(initial=0.0), dtype)


def _check_close(what: str, got: Any, reference: Any, scale: float, dtype: str) -> None:
    tolerance = LADDER[dtype].tolerance * scale
    np.testing.assert_allclose(got, reference, rtol=0, atol=tolerance, err_msg=f"{what} ({dtype}, scale {scale:.3g})")


def run(case: Case, tensors: Mapping[str, Array]) -> dict[str, Any]:
    """What the oracle computes for a case with other tensors, real or complex."""
    pooled = {name: value for name, value in case.options.items() if name == "add_pooling_layer"}
    return forward(case.cls, case.config, tensors, **case.inputs, **pooled)


def _table(case: Case) -> dict[str, Parameter]:
    return parameter_table(case.config, case.cls, **case.options)


def _random(row: Parameter, spread: Mapping[str, float], random: Random) -> Array:
    normal = _normal(random, row.shape)
    given = [value for ending, value in spread.items() if row.name.endswith(ending)]
    if row.kind == "scalar":  # of an activation; xielu's eps stays negative
        numbers = row.init.value - 0.4 * np.abs(normal)
    elif row.kind in ("linear", "heads_in", "heads_out", "conv"):
        numbers = 1.3 * normal / np.sqrt(np.prod(row.shape[1:]))
    else:
        numbers = (row.kind == "norm_scale") + (given or [SPREAD[row.kind]])[0] * normal
    return np.asarray(numbers, np.float32).astype(np.float64)


def _normal(random: Random, shape: tuple[int, ...]) -> Array:
    return random.standard_normal(shape).astype(np.float32).astype(np.float64)


# Makers of inputs.


class Sizes(NamedTuple):
    """What the shape of an input depends on."""

    batch: int
    patches: int
    layers: int
    heads: int
    classes: int


Maker = Callable[[Random, Sizes], Any]


def per_patch(random: Random, sizes: Sizes) -> Array:
    """In [0, 1), exact in float32: noise, or a mask that blends."""
    return random.random((sizes.batch, sizes.patches), np.float32)


def mask(random: Random, sizes: Sizes) -> Array:
    return random.random((sizes.batch, sizes.patches)) < 0.4


def tied_noise(random: Random, sizes: Sizes) -> Array:
    """Few values, and differences that float32 does not see: only rounding first and a stable sort agree on it."""
    shape = sizes.batch, sizes.patches
    return random.integers(0, 3, shape) / 4 + 1e-12 * random.random(shape)


def per_head(random: Random, sizes: Sizes) -> Array:
    return random.random(sizes.heads, np.float32)


def per_layer_and_head(random: Random, sizes: Sizes) -> Array:
    return random.integers(0, 3, (sizes.layers, sizes.heads)) / 2


def per_image_and_head(random: Random, sizes: Sizes) -> Array:
    return random.random((sizes.layers, sizes.batch, sizes.heads, 1, 1), np.float32)


def per_key(random: Random, sizes: Sizes) -> Array:
    return random.random((sizes.layers, 1, 1, 1, 1 + sizes.patches), np.float32)


def branches(random: Random, sizes: Sizes) -> Array:
    """Of layers, left out for some images: by chance, and in the first layer too, whose rate is 0."""
    return random.random((sizes.layers, 2, sizes.batch)) < 0.5


def classes(random: Random, sizes: Sizes) -> Array:
    return random.integers(0, sizes.classes, sizes.batch)


def column_of_classes(random: Random, sizes: Sizes) -> Array:
    return random.integers(0, sizes.classes, (sizes.batch, 1)).astype(np.int32)


def ignored_classes(random: Random, sizes: Sizes) -> Array:
    return np.where(np.arange(sizes.batch) == 1, -100, random.integers(0, sizes.classes, sizes.batch))


def hot(random: Random, sizes: Sizes) -> Array:
    return random.integers(0, 2, (sizes.batch, sizes.classes)).astype(np.float32)


def targets(random: Random, sizes: Sizes) -> Array:
    return _normal(random, (sizes.batch, sizes.classes))


def one_target(random: Random, sizes: Sizes) -> Array:
    return _normal(random, (sizes.batch,))


# The cases.


def build(
    cls: str,
    feature: str,
    inputs: Mapping[str, Maker | float] | None = None,
    options: dict[str, bool] | None = None,
    image: tuple[int, int] | None = None,
    spread: dict[str, float] | None = None,
    **fields: Any,
) -> Case:
    """A case of random sizes with some settled: config fields, constructor options, inputs (values or makers).

    An `image` of its own size (height, width) asks for interpolated positions.
    """
    name = f"{cls}-{feature}"
    random, is_mae = rng(name), cls.startswith("ViTMAE")
    config = _random_config(random, is_mae, fields)
    batch, size = int(random.integers(2, 4)), image or config.image_size
    rows, columns = patch_grid(config, size)
    sizes = Sizes(batch, rows * columns, config.num_hidden_layers, config.num_attention_heads, config.num_labels)
    wanted: dict[str, Any] = {**({"noise": per_patch} if is_mae else {}), **(inputs or {})}
    made = {argument: make(random, sizes) if callable(make) else make for argument, make in wanted.items()}
    pixels = _normal(random, (batch, config.num_channels, *pair(size)))
    flags = {"interpolate_pos_encoding": True} if image else {}
    return Case(name, cls, config, options or {}, {"pixel_values": pixels, **made, **flags}, spread or {})


def _random_config(random: Random, is_mae: bool, fields: Mapping[str, Any]) -> PretrainedConfig:
    def pick(values: Any) -> Any:
        return values[random.integers(len(values))]

    (heads, head_dim), (decoder_heads, decoder_head_dim) = pick(HEADS), pick(HEADS)
    (rows, columns), patch = pick(GRIDS), pick(PATCHES)
    height, width = pair(fields.get("patch_size", patch))
    common = {
        "hidden_size": heads * head_dim,
        "num_hidden_layers": int(random.integers(1, 3)),
        "num_attention_heads": heads,
        "intermediate_size": pick(MLP_SIZES),
        "hidden_act": pick(SMOOTH),
        "layer_norm_eps": pick((1e-12, 1e-6, 1e-5)),
        "image_size": (rows * height, columns * width),
        "patch_size": patch,
        "num_channels": int(random.integers(1, 5)),
    }
    decoder = {
        "decoder_hidden_size": decoder_heads * decoder_head_dim,
        "decoder_num_hidden_layers": int(random.integers(1, 3)),
        "decoder_num_attention_heads": decoder_heads,
        "decoder_intermediate_size": pick(MLP_SIZES),
        "mask_ratio": pick((0.25, 0.5, 0.75)),
    }
    head = {"encoder_stride": int(random.integers(2, 4)), "num_labels": 5}
    return ViTMAEConfig(**{**common, **decoder, **fields}) if is_mae else ViTConfig(**{**common, **head, **fields})


def _activation_cases() -> list[Case]:
    """One small model per activation, in its layer and in its pooler, far enough out for gelu_10 and relu6 to clip."""
    sizes = {"num_hidden_layers": 1, "pooler_output_size": 16}
    spread = {"intermediate.dense.bias": 5.0, "pooler.dense.bias": 5.0}
    return [
        build("ViTModel", f"act_{name}", spread=spread, hidden_act=name, pooler_act=name, **sizes)
        for name in ACTIVATIONS
    ]


_SINGLE = {"problem_type": "single_label_classification"}
_MIM = {"patch_size": 3, "encoder_stride": 3}
_PRUNED = {"num_hidden_layers": 3, "pruned_heads": {0: [1], 2: [0]}}
_MANY_PATCHES = {"patch_size": (2, 3), "image_size": (16, 21)}  # short arrays are often sorted stably by luck
_DEEP = {"num_hidden_layers": 3, "drop_path_rate": 0.4}
_WIDE_HEADS = {"hidden_size": 20, "num_attention_heads": 4}
_REGISTERS = {"num_register_tokens": 3, "layerscale_value": 0.1, "use_swiglu_ffn": True}
_MEAN = {"use_mean_pooling": True}
_LARGER = {"patch_size": (2, 3), "image_size": (6, 9)}
_PATCHES_ALONE = {"use_class_token": False, "use_mean_pooling": True, "norm_before_pooling": True}
_TOKEN_AND_MEAN = {"use_mean_pooling": True, "norm_before_pooling": True, "pool_class_token": True}

# Options that transformers' ViT has not.
_FAMILY: tuple[Case, ...] = (
    build("ViTModel", "registers", image=(15, 8), patch_size=(3, 2), image_size=(9, 6), **_REGISTERS),
    build("ViTModel", "mean", use_mean_pooling=True, num_register_tokens=2),
    build("ViTModel", "patches_alone", {"head_mask": per_head}, image=(8, 15), **_LARGER, **_PATCHES_ALONE),
    build("ViTModel", "mean_without_pooler", options={"add_pooling_layer": False}, **_MEAN),
    build("ViTForImageClassification", "mean", {"labels": classes}, layerscale_value=1.0, **_MEAN),
    build("ViTForImageClassification", "patches_alone", {"labels": classes}, num_register_tokens=1, **_PATCHES_ALONE),
    build("ViTForImageClassification", "norm_then_mean", norm_before_pooling=True, **_MEAN, **_WIDE_HEADS, **_PRUNED),
    build("ViTForMaskedImageModeling", "registers", {"bool_masked_pos": mask}, **_MIM, **_REGISTERS),
    build("ViTModel", "token_and_mean", image=(8, 15), num_register_tokens=2, **_LARGER, **_TOKEN_AND_MEAN),
    build("ViTForImageClassification", "token_and_mean", {"labels": classes}, **_REGISTERS, **_TOKEN_AND_MEAN),
)

CASES: tuple[Case, ...] = (
    build("ViTModel", "plain"),
    build("ViTModel", "no_layers", num_hidden_layers=0),
    build("ViTModel", "one_head", hidden_size=12, num_attention_heads=1),
    build("ViTModel", "no_pooler", options={"add_pooling_layer": False}),
    build("ViTModel", "wide_pooler", pooler_output_size=50, pooler_act="gelu"),
    build("ViTModel", "no_qkv_bias", qkv_bias=False),
    build("ViTModel", "odd_image", patch_size=(3, 4), image_size=(10, 15)),
    build("ViTModel", "square", patch_size=4, image_size=12, num_channels=3),
    build("ViTModel", "one_patch", patch_size=(4, 3), image_size=(4, 3)),
    build("ViTModel", "mask", {"bool_masked_pos": mask}, {"use_mask_token": True}),
    build("ViTModel", "blended_mask", {"bool_masked_pos": per_patch}, {"use_mask_token": True}),
    build("ViTModel", "idle_mask_token", options={"use_mask_token": True, "add_pooling_layer": False}),
    build("ViTModel", "head_mask", {"head_mask": per_head}),
    build("ViTModel", "head_mask_per_layer", {"head_mask": per_layer_and_head}, num_hidden_layers=3),
    build("ViTModel", "head_mask_per_image", {"head_mask": per_image_and_head}),
    build("ViTModel", "head_mask_per_key", {"head_mask": per_key}),
    build("ViTModel", "pruned", **_WIDE_HEADS, **_PRUNED),
    build("ViTModel", "pruned_head_mask", {"head_mask": per_layer_and_head}, **_WIDE_HEADS, **_PRUNED),
    build("ViTModel", "larger", image=(15, 21), patch_size=3, image_size=(9, 12)),
    build("ViTModel", "smaller", image=(6, 8), patch_size=(2, 4), image_size=(10, 16)),
    build("ViTModel", "one_side_larger", image=(8, 18), patch_size=(2, 3), image_size=(8, 9)),
    build("ViTModel", "no_multiple", image=(17, 11), patch_size=4, image_size=12),
    build("ViTModel", "same_count", image=(12, 8), patch_size=2, image_size=(8, 12)),
    build("ViTModel", "same_size", image=(8, 12), patch_size=2, image_size=(8, 12)),
    *_activation_cases(),
    build("ViTForImageClassification", "no_labels"),
    build("ViTForImageClassification", "single_label", {"labels": classes}),
    build("ViTForImageClassification", "single_label_column", {"labels": column_of_classes}, **_SINGLE),
    build("ViTForImageClassification", "ignored_label", {"labels": ignored_classes}),
    build("ViTForImageClassification", "multi_label", {"labels": hot}),
    build("ViTForImageClassification", "regression_one", {"labels": one_target}, num_labels=1),
    build("ViTForImageClassification", "regression_many", {"labels": targets}, problem_type="regression"),
    build("ViTForImageClassification", "one_class", {"labels": targets}, num_labels=1),
    build("ViTForImageClassification", "no_classifier", num_labels=0),
    build("ViTForImageClassification", "larger", {"labels": classes}, image=(11, 9), patch_size=2, image_size=(6, 8)),
    build("ViTForImageClassification", "pruned", {"labels": hot, "head_mask": per_head}, **_WIDE_HEADS, **_PRUNED),
    build("ViTForImageClassification", "prelu", {"labels": classes}, hidden_act="prelu", num_hidden_layers=2),
    build("ViTForMaskedImageModeling", "no_mask"),
    build("ViTForMaskedImageModeling", "mask", {"bool_masked_pos": mask}, **_MIM),
    build("ViTForMaskedImageModeling", "blended_mask", {"bool_masked_pos": per_patch}, **_MIM),
    build("ViTForMaskedImageModeling", "larger", {"bool_masked_pos": mask}, image=(12, 15), **_MIM),
    build("ViTForMaskedImageModeling", "no_multiple", {"bool_masked_pos": mask}, image=(14, 10), **_MIM),
    build("ViTForMaskedImageModeling", "head_mask", {"bool_masked_pos": mask, "head_mask": per_head}, **_MIM),
    build("ViTMAEModel", "plain"),
    build("ViTMAEModel", "no_layers", num_hidden_layers=0),
    build("ViTMAEModel", "mask_ratio", {"mask_ratio": 0.3}),
    build("ViTMAEModel", "everything_kept", {"mask_ratio": 0.0}),
    build("ViTMAEModel", "tied_noise", {"noise": tied_noise}, **_MANY_PATCHES),
    build("ViTMAEModel", "head_mask", {"head_mask": per_layer_and_head}),
    build("ViTMAEModel", "pruned", **_WIDE_HEADS, **_PRUNED),
    build("ViTMAEModel", "larger", image=(15, 8), patch_size=(3, 2), image_size=(9, 6)),
    build("ViTMAEForPreTraining", "plain"),
    build("ViTMAEForPreTraining", "norm_pix", norm_pix_loss=True),
    build("ViTMAEForPreTraining", "square", patch_size=4, image_size=16, num_channels=3),
    build("ViTMAEForPreTraining", "mask_ratio", {"mask_ratio": 0.9}, patch_size=2, image_size=(8, 10)),
    build("ViTMAEForPreTraining", "tied_noise", {"noise": tied_noise}, **_MANY_PATCHES),
    build("ViTMAEForPreTraining", "no_qkv_bias", qkv_bias=False),
    build("ViTMAEForPreTraining", "no_layers", num_hidden_layers=0, decoder_num_hidden_layers=0),
    build("ViTMAEForPreTraining", "head_mask", {"head_mask": per_head}),
    build("ViTMAEForPreTraining", "pruned", **_WIDE_HEADS, **_PRUNED),
    build("ViTMAEForPreTraining", "larger", image=(12, 10), patch_size=2, image_size=(6, 8)),
    build("ViTMAEForPreTraining", "smaller", image=(6, 8), patch_size=(3, 2), image_size=(12, 10), norm_pix_loss=True),
    build("ViTMAEForPreTraining", "no_multiple", image=(13, 11), patch_size=4, image_size=8),
    build("ViTMAEForPreTraining", "xielu", hidden_act="xielu"),
    build("ViTMAEForPreTraining", "glu", hidden_act="glu"),
    *_FAMILY,
)

# Calls in training, with branches of layers left out: of models without dropout, so that nothing is drawn.
TRAINING_CASES: tuple[Case, ...] = (
    build("ViTModel", "branches", {"drop_path_mask": branches}, **_DEEP),
    build("ViTModel", "branches_of_rate_0", {"drop_path_mask": branches, "head_mask": per_head}),
    build("ViTForImageClassification", "branches", {"labels": classes, "drop_path_mask": branches}, **_DEEP),
    build("ViTForImageClassification", "pruned_branches", {"drop_path_mask": branches}, **_WIDE_HEADS, **_PRUNED),
    build(
        "ViTForMaskedImageModeling", "branches", {"bool_masked_pos": mask, "drop_path_mask": branches}, **_MIM, **_DEEP
    ),
    build("ViTMAEModel", "branches", {"drop_path_mask": branches}, **_DEEP),
    build("ViTMAEForPreTraining", "branches", {"drop_path_mask": branches}, **_DEEP, norm_pix_loss=True),
)

# Where making or compiling a model takes long: of the activations one function and those with parameters. The other
# functions have a test of their own, in tests/behaviour. Of the options of the family each once.
_LONG = ("mean_without_pooler", "norm_then_mean", "ViTModel-mean", "ForMaskedImageModeling-registers")
EVERY_DAY = [
    case.name
    for case in (*CASES, *TRAINING_CASES)
    if ("-act_" not in case.name or case.name.endswith(("gelu_new", "prelu", "xielu")))
    and not case.name.endswith(_LONG)
]

# Where each is compiled by itself, not what the same encoder does in another class.
_REPEATED = {
    *("ViTModel-act_prelu", "ViTModel-act_xielu", "ViTForImageClassification-larger"),
    *(f"ViTForImageClassification-{name}" for name in ("branches", "pruned", "patches_alone")),
    *(f"ViTForMaskedImageModeling-{name}" for name in ("blended_mask", "head_mask", "branches")),
    *(f"ViTMAEModel-{name}" for name in ("plain", "mask_ratio", "tied_noise", "head_mask", "pruned", "branches")),
}
EVERY_DAY_COMPILED = [name for name in EVERY_DAY if name not in _REPEATED]
assert len(EVERY_DAY) - len(EVERY_DAY_COMPILED) == len(_REPEATED)
