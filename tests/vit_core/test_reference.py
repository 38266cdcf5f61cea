"""The oracle against transformers' golden files, published numbers, and what can be worked out by hand."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest

from vit_core.config import ACTIVATIONS, CONFIGS, ViTConfig, ViTMAEConfig
from vit_core.errors import CheckpointError, InputError
from vit_core.parameters import draw, parameter_table
from vit_core.positions import resize_matrix
from vit_core.reference import ACTIVATION_FUNCTIONS, erf, forward, patchify, unpatchify

MODELS = Path(__file__).parents[1] / "golden" / "models"
TOLERANCE = 1e-10  # of the scale; measured: 1.8e-15
STEP = 1e-30  # of the complex step


class Golden(NamedTuple):
    """One recorded call."""

    cls: str
    config: Any
    tensors: dict[str, Any]
    arguments: dict[str, Any]
    outputs: dict[str, Any]
    gradients: dict[str, Any]


def read(file: str, call: str) -> Golden:
    with np.load(MODELS / f"{file}.npz") as arrays:
        record = {name.removeprefix(f"calls/{call}/"): arrays[name] for name in keys_of(arrays, call)}
    under = {
        part: {name.removeprefix(f"{part}/"): array for name, array in record.items() if name.startswith(f"{part}/")}
        for part in ("tensors", "inputs", "outputs", "gradients")
    }
    settings = json.loads(str(record["config"]))
    config = CONFIGS[settings["model_type"]].from_dict(settings)
    inputs = {name: array if array.ndim else bool(array) for name, array in under["inputs"].items()}
    options = {name: on for name, on in json.loads(str(record["options"])).items() if name == "add_pooling_layer"}
    arguments = {**inputs, **options}
    return Golden(str(record["class"]), config, under["tensors"], arguments, under["outputs"], under["gradients"])


def keys_of(arrays: Any, call: str) -> list[str]:
    return [name for name in arrays.files if name.startswith(("tensors/", f"calls/{call}/"))]


def calls() -> list[tuple[str, str]]:
    found = []
    for path in sorted(MODELS.glob("*.npz")):
        with np.load(path) as arrays:
            names = [name.split("/")[1] for name in arrays.files if name.startswith("calls/")]
        found += [(path.stem, call) for call in dict.fromkeys(names)]
    return found


def flat(outputs: dict[str, Any]) -> dict[str, Any]:
    """Hidden states and attentions one by one, under the names that the golden files give them."""
    layers = {name: values for name, values in outputs.items() if isinstance(values, tuple)}
    single = {name: value for name, value in outputs.items() if name not in layers}
    return single | {f"{name}/{i}": value for name, values in layers.items() for i, value in enumerate(values)}


@pytest.mark.parametrize(("file", "call"), calls())
def test_equals_transformers(file, call):
    golden = read(file, call)
    got = flat(forward(golden.cls, golden.config, golden.tensors, **golden.arguments))
    with_states = "hidden_states/0" in golden.outputs
    got = {name: value for name, value in got.items() if with_states or "/" not in name}
    np.testing.assert_equal(sorted(got), sorted(golden.outputs))
    for name, want in golden.outputs.items():
        scale = np.abs(want).max()
        np.testing.assert_allclose(got[name] / scale, want / scale, rtol=0, atol=TOLERANCE, err_msg=name)


def test_golden_files_cover_everything():
    goldens = [read(file, call) for file, call in calls()]
    np.testing.assert_equal(
        {golden.cls for golden in goldens},
        {"ViTModel", "ViTForImageClassification", "ViTForMaskedImageModeling", "ViTMAEModel", "ViTMAEForPreTraining"},
    )
    unknown_to_transformers = {"glu", "selu"}
    np.testing.assert_equal({golden.config.hidden_act for golden in goldens} | unknown_to_transformers, {*ACTIVATIONS})
    np.testing.assert_equal(sorted(golden.cls for golden in goldens if golden.gradients), sorted(DIFFERENTIATED))


DIFFERENTIATED = {"ViTForImageClassification": ("classifier", "single_label"), "ViTMAEForPreTraining": ("mae", "plain")}


@pytest.mark.parametrize("cls", DIFFERENTIATED)
def test_complex_step_equals_transformers_gradients(cls):
    golden = read(*DIFFERENTIATED[cls])
    table = parameter_table(golden.config, cls)
    np.testing.assert_equal(sorted(golden.gradients), sorted(name for name, row in table.items() if row.trainable))
    scale = max(np.linalg.norm(gradient) for gradient in golden.gradients.values())
    for name, gradient in golden.gradients.items():
        way = np.random.default_rng(len(name)).standard_normal(gradient.shape)
        stepped = {**golden.tensors, name: golden.tensors[name] + 1j * STEP * way}
        loss = forward(cls, golden.config, stepped, **golden.arguments)["loss"]
        want = (gradient * way).sum()
        np.testing.assert_allclose(loss.imag / STEP, want, rtol=1e-9, atol=1e-14 * scale, err_msg=name)
        np.testing.assert_allclose(loss.real, golden.outputs["loss"], rtol=1e-14)


# ---- numbers measured on transformers 4.57.6 (torch, float32) with weights that are a formula -----------------------

SMALL: dict[str, Any] = {
    "hidden_size": 8,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 12,
    "image_size": 16,
    "patch_size": 4,
}
SMALL_DECODER: dict[str, Any] = {
    "decoder_hidden_size": 4,
    "decoder_num_hidden_layers": 1,
    "decoder_num_attention_heads": 2,
    "decoder_intermediate_size": 6,
}
VIT = ViTConfig(**SMALL, encoder_stride=4, num_labels=3)
MAE = ViTMAEConfig(**SMALL, **SMALL_DECODER)


def wave_tensors(config: Any, cls: str) -> dict[str, Any]:
    tensors = {}
    for k, (name, row) in enumerate(sorted(parameter_table(config, cls).items()), start=1):
        wave = 0.1 * np.sin(0.37 * k + 0.11 * np.arange(math.prod(row.shape))).reshape(row.shape)
        tensors[name] = (wave + (row.kind == "norm_scale")).astype(np.float32)
    return tensors


def wave_images(*shape: int) -> Any:
    return np.sin(0.05 * np.arange(math.prod(shape))).astype(np.float32).reshape(shape)


def wave_noise(batch: int, patches: int) -> Any:
    golden_ratio = 0.618033988749895
    return np.mod(golden_ratio * (np.arange(patches) + 1) + 0.37 * np.arange(batch)[:, None], 1)


def run(cls: str, images: Any, config: Any = None, **arguments: Any) -> dict[str, Any]:
    config = config or (MAE if cls.startswith("ViTMAE") else VIT)
    return forward(cls, config, wave_tensors(config, cls), images, **arguments)


def assert_printed(got: Any, printed: str, digits: int = 6) -> None:
    """Numbers as they were printed, of float32 computations."""
    want = np.array(printed.split(), np.float64)
    np.testing.assert_allclose(np.ravel(got), want, rtol=0, atol=1.6 * 10.0**-digits)


X = wave_images(2, 3, 16, 16)
Y = wave_images(1, 3, 24, 20)
CHEQUERED = np.add.outer(np.arange(2), np.arange(16)) % 2 == 0


def test_published_encoder_numbers():
    got = run("ViTModel", X)
    last = got["last_hidden_state"]
    assert_printed(last[0, 0], "-0.747698 -0.172730 0.568989 0.028304 -1.174174 -0.993555 0.908744 2.314186")
    assert_printed(last[1, 16], "-0.881613 -1.182000 0.035597 1.498307 1.840192 0.871679 -0.438094 -0.961767")
    assert_printed(last.sum(), "26.04078", digits=5)
    pooled = "0.028462 -0.033880 -0.006011 0.088185 0.174825 0.187475 0.112126 -0.004888"
    assert_printed(got["pooler_output"][0], pooled)
    embedded = "-0.341816 0.458106 0.959747 0.697219 -0.090181 -0.679226 -0.531507 0.208739"
    assert_printed(got["hidden_states"][0][0, 1], embedded)
    assert_printed(got["attentions"][0][0, 0, 0, :5], "0.060258 0.058074 0.058097 0.058190 0.058320")


def test_published_head_mask_numbers():
    got = run("ViTModel", X, head_mask=[[1, 0], [0.5, 1]])["last_hidden_state"][0, 0]
    assert_printed(got, "-1.178794 -0.274657 0.901486 0.509080 -0.921882 -1.082338 0.656934 2.127874")


def test_published_interpolation_numbers():
    got = run("ViTModel", Y, interpolate_pos_encoding=True)["last_hidden_state"][0]
    assert_printed(got[0], "-0.749110 -0.171944 0.571717 0.030877 -1.173813 -0.995453 0.906457 2.313395")
    assert_printed(got[30], "-0.615811 -1.350692 -0.411769 1.149886 1.868505 1.225360 -0.101925 -0.988182")
    table = wave_tensors(VIT, "ViTModel")["embeddings.position_embeddings"][0, 1:].reshape(4, 4, 8)
    resized = np.einsum("ri,cj,ijh->rch", resize_matrix(4, 6), resize_matrix(4, 5), table).reshape(30, 8)
    assert_printed(resized[0], "0.085710 0.076052 0.065475 0.054106 0.042084 0.029552 0.016664 0.003574")
    assert_printed(resized[29], "0.015448 0.002347 -0.010782 -0.023781 -0.036492 -0.048762 -0.060443 -0.071393")


def test_published_classification_numbers():
    got = run("ViTForImageClassification", X, labels=np.array([0, 2]))
    assert_printed(got["logits"], "0.094578 0.047581 -0.000993 0.094548 0.047608 -0.000928")
    assert_printed(got["loss"], "1.0996130")
    hot = np.array([[1.0, 0.0, 1.0], [0.0, 1.0, 0.0]])
    assert_printed(run("ViTForImageClassification", X, labels=hot)["loss"], "0.6936147")
    regression = ViTConfig(**SMALL, num_labels=3, problem_type="regression")
    assert_printed(run("ViTForImageClassification", X, regression, labels=hot)["loss"], "0.4566716")


def test_published_masked_image_numbers():
    got = run("ViTForMaskedImageModeling", X, bool_masked_pos=CHEQUERED)
    assert_printed(got["loss"], "0.6384509")
    painted = "0.084031 0.029755 -0.013162 0.026721 0.001931 0.031710 -0.122550 -0.067999 -0.018107"
    assert_printed(got["reconstruction"][0, :, 0, :3], painted)
    assert_printed(run("ViTForMaskedImageModeling", X)["reconstruction"][0, 0, 0, :3], "0.086335 0.099981 0.074024")


def test_published_mae_numbers():
    got = run("ViTMAEForPreTraining", X, noise=wave_noise(2, 16))
    assert_printed(got["mask"][0], "1 0 1 1 0 1 1 1 1 0 1 1 0 1 1 1")
    assert_printed(got["ids_restore"][0], "9 3 13 7 1 11 5 15 8 2 12 6 0 10 4 14")
    assert_printed(got["loss"], "0.5079739")
    assert_printed(got["logits"][0, 0, :4], "0.151409 0.147709 0.132330 0.107348")
    class_token = "-0.150991 -0.173551 -0.024115 0.054574 -0.062478 -0.207075 -0.181401 -0.056366"
    assert_printed(got["hidden_states"][-1][0, 0], class_token)
    normalised = ViTMAEConfig(**SMALL, **SMALL_DECODER, norm_pix_loss=True)
    assert_printed(run("ViTMAEForPreTraining", X, normalised, noise=wave_noise(2, 16))["loss"], "0.9902712")
    got = run("ViTMAEForPreTraining", Y, noise=wave_noise(1, 30), interpolate_pos_encoding=True)
    assert_printed(got["loss"], "0.5083214")
    assert_printed(got["logits"][0, 29, :4], "0.152320 0.148820 0.133431 0.108228")


# ---- by hand ---------------------------------------------------------------------------------------------------------


def test_erf_equals_the_standard_library():
    x = np.concatenate([np.linspace(-7, 7, 20001), np.logspace(-300, 0, 301), [0.0, 2.0, -2.0, 30.0, -400.0, 1e200]])
    want = np.array([math.erf(value) for value in x])
    np.testing.assert_allclose(erf(x), want, rtol=1e-15, atol=0)  # measured: 6.7e-16
    np.testing.assert_equal(np.signbit(erf(np.array([0.0, -0.0]))), [False, True])


def test_erf_is_complex_safe():
    x = np.linspace(-5, 5, 101)
    np.testing.assert_allclose(erf(x + 1j * STEP).imag / STEP, 2 / math.sqrt(math.pi) * np.exp(-(x**2)), rtol=1e-14)
    np.testing.assert_array_equal(erf(x + 1j * STEP).real, erf(x))


def activation_parameters(name: str) -> dict[str, Any]:
    xielu = {"alpha_p": np.array([0.2]), "alpha_n": np.array([-1.0]), "beta": np.array(0.5), "eps": np.array(-0.01)}
    return {"prelu": {"weight": np.array([0.3])}, "xielu": xielu}.get(name, {})


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_activations_are_complex_safe(name):
    x, h = np.linspace(-4.03, 7.11, 240), 1e-5  # no point within h of a kink
    function, parameters = ACTIVATION_FUNCTIONS[name], activation_parameters(name)
    difference = (function(x + h, **parameters) - function(x - h, **parameters)) / (2 * h)
    np.testing.assert_allclose(function(x + 1j * STEP, **parameters).imag / STEP, difference, rtol=0, atol=1e-8)
    np.testing.assert_allclose(function(x + 0j, **parameters).real, function(x, **parameters), rtol=1e-14, atol=1e-15)


def test_activations_that_transformers_lacks():
    np.testing.assert_equal(sorted(ACTIVATION_FUNCTIONS), sorted([*ACTIVATIONS, "swiglu"]))
    halved = ACTIVATION_FUNCTIONS["glu"](np.array([[1.0, -2.0, 0.0, math.log(3)]]))
    np.testing.assert_allclose(halved, [[0.5, -1.5]], rtol=1e-15)
    halved = ACTIVATION_FUNCTIONS["swiglu"](np.array([[0.0, math.log(3), 5.0, 4.0]]))  # sigmoid(log 3) = 3 / 4
    np.testing.assert_allclose(halved, [[0.0, 3 * math.log(3)]], rtol=1e-15)
    scale, alpha = 1.0507009873554805, 1.6732632423543772
    selu = ACTIVATION_FUNCTIONS["selu"](np.array([2.0, 0.0, -math.log(2)]))
    np.testing.assert_allclose(selu, [2 * scale, 0.0, -scale * alpha / 2], rtol=1e-15)


def test_patches_have_the_channel_fastest():
    images = np.arange(2 * 4 * 7).reshape(1, 2, 4, 7)
    patches = patchify(images, (2, 3))
    np.testing.assert_equal(patches.shape, (1, 4, 12))
    np.testing.assert_array_equal(patches[0, 1], [3, 31, 4, 32, 5, 33, 10, 38, 11, 39, 12, 40])
    np.testing.assert_array_equal(patches[0, 2, :2], [14, 42])  # patches go along the rows first
    np.testing.assert_array_equal(unpatchify(patches, (2, 2), (2, 3)), images[..., :6])


def test_ties_in_the_noise_keep_image_order():
    noise = [[0.5, 0.25, 0.5, 0.25, *[0.75] * 12], [0.5 + 1e-12, 0.5, *[0.5] * 14]]  # the second: equal in float32
    got = run("ViTMAEModel", X, noise=noise, mask_ratio=0.8)
    np.testing.assert_array_equal(got["ids_restore"], [[2, 0, 3, 1, *range(4, 16)], range(16)])
    np.testing.assert_array_equal(got["mask"], [[0, 0, 1, 0, *[1] * 12], [0, 0, 0, *[1] * 13]])  # int(16 * 0.2) kept
    fine = ViTMAEConfig(**{**SMALL, "patch_size": 1})
    noise = np.arange(2 * 256).reshape(2, 256) % 3
    ids = [sorted(range(256), key=row.tolist().__getitem__) for row in noise]
    got = run("ViTMAEModel", X, fine, noise=noise)
    np.testing.assert_array_equal(got["ids_restore"], np.argsort(ids, axis=1))


def test_mask_ratio_zero_keeps_image_order():
    got = run("ViTMAEModel", X, mask_ratio=0.0)
    np.testing.assert_array_equal(got["ids_restore"], np.tile(np.arange(16), (2, 1)))
    np.testing.assert_array_equal(got["mask"], np.zeros((2, 16)))
    np.testing.assert_equal(got["last_hidden_state"].shape, (2, 17, 8))
    noisy = run("ViTMAEModel", X, mask_ratio=0.0, noise=wave_noise(2, 16))
    np.testing.assert_array_equal(noisy["last_hidden_state"], got["last_hidden_state"])
    with pytest.raises(InputError, match="no patch is removed"):
        run("ViTMAEForPreTraining", X, mask_ratio=0.0)


def test_ignored_and_unknown_labels():
    def loss(*labels: int) -> Any:
        return run("ViTForImageClassification", X, labels=np.array(labels))["loss"]

    logits = run("ViTForImageClassification", X)["logits"]
    alone = -logits[1, 2] + np.log(np.exp(logits[1]).sum())
    np.testing.assert_allclose(loss(-100, 2), alone, rtol=1e-15)
    np.testing.assert_equal([loss(-100, -100), loss(0, 3), loss(-1, 0)], [np.nan] * 3)


def test_pruned_heads_are_masked_heads():
    cls, fields = "ViTModel", {**SMALL, "hidden_size": 12, "num_attention_heads": 4}
    whole, pruned = ViTConfig(**fields), ViTConfig(**fields, pruned_heads={1: [0, 2]})
    tensors = wave_tensors(whole, cls)
    rows = np.r_[3:6, 9:12]  # of heads 1 and 3
    cut = dict(tensors)
    for name in ("query", "key", "value"):
        for part in ("weight", "bias"):
            key = f"encoder.layer.1.attention.attention.{name}.{part}"
            cut[key] = tensors[key][rows]
    key = "encoder.layer.1.attention.output.dense.weight"
    cut[key] = tensors[key][:, rows]
    mask = np.array([[1.0, 0.5, 1.0, 0.0], [1.0, 0.25, 1.0, 0.75]])
    got = forward(cls, pruned, cut, X, head_mask=mask)  # heads keep their numbers
    want = forward(cls, whole, tensors, X, head_mask=mask * [[1, 1, 1, 1], [0, 1, 0, 1]])
    np.testing.assert_allclose(got["last_hidden_state"], want["last_hidden_state"], rtol=0, atol=1e-14)
    np.testing.assert_allclose(got["attentions"][1], want["attentions"][1][:, [1, 3]], rtol=0, atol=1e-15)


def test_masked_image_loss_on_a_grid_that_is_not_square():
    config = ViTConfig(**{**SMALL, "image_size": (8, 16)}, encoder_stride=4)
    tensors = {name: np.zeros_like(tensor) for name, tensor in draw(config, "ViTForMaskedImageModeling", 0).items()}
    tensors["decoder.0.bias"] += 0.25  # the reconstruction
    images = np.ones((1, 3, 8, 16))
    images[0, :, 4:, 12:] = 5.25  # patch 7, off by 5 in all channels; the others are off by 0.75
    mask = np.array([[1, 0, 0, 0, 0, 0, 0, 1]])
    got = forward("ViTForMaskedImageModeling", config, tensors, images, bool_masked_pos=mask)
    np.testing.assert_array_equal(got["reconstruction"], np.full((1, 3, 8, 16), 0.25))
    np.testing.assert_allclose(got["loss"], (16 * 0.75 + 16 * 5) / (32 + 1e-5), rtol=1e-15)


def test_channels_last_images():
    got, want = run("ViTModel", X.transpose(0, 2, 3, 1)), run("ViTModel", X)
    np.testing.assert_array_equal(got["last_hidden_state"], want["last_hidden_state"])


@pytest.mark.parametrize(
    ("cls", "arguments"),
    [
        ("ViTModel", {"labels": np.array([0, 1])}),
        ("ViTModel", {"bool_masked_pos": CHEQUERED}),  # it has no mask token
        ("ViTForImageClassification", {"mask_ratio": 0.5}),
        ("ViTForMaskedImageModeling", {"noise": wave_noise(2, 16)}),
        ("ViTMAEModel", {"bool_masked_pos": CHEQUERED, "mask_ratio": 0.5}),
        ("ViTMAEForPreTraining", {}),  # the oracle draws no noise
        ("ViTMAEModel", {"noise": wave_noise(1, 16)}),
    ],
)
def test_arguments_that_do_not_fit(cls, arguments):
    with pytest.raises(InputError):
        run(cls, X, **arguments)


def test_tensors_that_do_not_fit():
    tensors = wave_tensors(VIT, "ViTModel")
    with pytest.raises(CheckpointError, match="pooler"):
        forward("ViTModel", VIT, tensors, X, add_pooling_layer=False)
    del tensors["encoder.layer.0.output.dense.bias"]
    with pytest.raises(CheckpointError, match=r"encoder\.layer\.0\.output\.dense\.bias"):
        forward("ViTModel", VIT, tensors, X)
