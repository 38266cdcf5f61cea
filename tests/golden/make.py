"""Writes tests/golden/models: what transformers' own PyTorch models compute, in float64, from random parameters.

Run it in an environment of its own, from the root of the repository:

    pip install transformers==4.57.6 torch==2.13.0 numpy==2.4.6
    python tests/golden/make.py

The same versions write the same bytes. One file holds one model and some calls of it; its keys:

    tensors/<canonical name>                   every parameter, float32 (the models run on them as float64)
    calls/<call>/config, class, options        the model of the call: config.json, class name, constructor options
    calls/<call>/tensors/<canonical name>      parameters that only the model of this call has
    calls/<call>/inputs/<argument>             arrays and flags
    calls/<call>/outputs/<output>[/<layer>]    every output; not every call has hidden states and attentions
    calls/<call>/gradients/<canonical name>    of the loss, where the call asks for them
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from zlib import crc32

import numpy as np
import torch
import transformers
from transformers import ViTConfig, ViTMAEConfig
from transformers.activations import ACT2CLS
from transformers.models.vit.modeling_vit import ViTForImageClassification, ViTForMaskedImageModeling, ViTModel
from transformers.models.vit_mae.modeling_vit_mae import ViTMAEForPreTraining, ViTMAEModel

FOLDER = Path(__file__).parent / "models"
VERSIONS = {"transformers": "4.57.6", "torch": "2.13.0", "numpy": "2.4.6"}
BATCH = 2

Array = np.ndarray[Any, np.dtype[Any]]


@dataclass(frozen=True)
class Call:
    """One call of a model.

    Attributes:
        inputs: arguments beside pixel_values.
        image: (height, width) other than the config's, which asks for interpolated positions.
        config: fields of the model that this call changes.
        with_states: whether hidden states and attentions are kept; another call may hold the same ones.
        with_gradients: whether the gradients of the loss are kept.
    """

    inputs: dict[str, Any] = field(default_factory=dict)
    image: tuple[int, int] | None = None
    config: dict[str, Any] = field(default_factory=dict)
    with_states: bool = True
    with_gradients: bool = False


@dataclass(frozen=True)
class Model:
    """One file: a class, its config, calls by name, and the constructor options."""

    cls: Any
    config: dict[str, Any]
    calls: dict[str, Call]
    options: dict[str, bool] = field(default_factory=dict)


def rng(*words: str) -> np.random.Generator:
    """Random numbers that depend on nothing but the words."""
    return np.random.default_rng(crc32(" ".join(words).encode()))


def uniform(*shape: int) -> Array:
    """In [0, 1): noise, masks that blend, head masks."""
    return rng("uniform", str(shape)).random(shape, np.float32)


def mask(*shape: int) -> Array:
    return uniform(*shape) < 0.4


def normal(*shape: int) -> Array:
    return rng("normal", str(shape)).standard_normal(shape).astype(np.float32)


VIT: dict[str, Any] = {
    "hidden_size": 12,
    "num_hidden_layers": 2,
    "num_attention_heads": 3,
    "intermediate_size": 10,
    "image_size": 7,
    "patch_size": 2,
    "num_channels": 2,
    "layer_norm_eps": 1e-6,
    "encoder_stride": 2,
}
MAE: dict[str, Any] = {
    **{name: value for name, value in VIT.items() if name != "encoder_stride"},
    "image_size": 8,
    "decoder_hidden_size": 8,
    "decoder_num_hidden_layers": 1,
    "decoder_num_attention_heads": 4,
    "decoder_intermediate_size": 14,
    "mask_ratio": 0.6,
}
MODELS: dict[str, Model] = {
    "vit": Model(
        ViTModel,
        {**VIT, "pooler_output_size": 5, "pooler_act": "gelu"},
        {
            "plain": Call(),
            "mask": Call({"bool_masked_pos": mask(BATCH, 9)}),
            "blended_mask": Call({"bool_masked_pos": uniform(BATCH, 9)}, with_states=False),
            "head_mask": Call({"head_mask": uniform(3)}),
            "head_mask_per_layer": Call({"head_mask": np.array([[1.0, 0.0, 0.5], [0.0, 1.0, 1.0]])}),
            "head_mask_per_image": Call({"head_mask": uniform(2, BATCH, 3, 1, 1)}, with_states=False),
            "larger": Call(image=(10, 8)),
            "smaller": Call(image=(4, 6), with_states=False),
            "same_count": Call(image=(2, 18), with_states=False),
            "no_multiple": Call(image=(11, 5), with_states=False),
        },
        {"use_mask_token": True},
    ),
    "vit_tuple_sizes": Model(
        ViTModel,
        {**VIT, "image_size": (8, 9), "patch_size": (4, 3), "num_channels": 3, "layer_norm_eps": 1e-12},
        {"plain": Call()},
    ),
    "vit_no_qkv_bias": Model(ViTModel, {**VIT, "qkv_bias": False}, {"plain": Call()}, {"add_pooling_layer": False}),
    "vit_pruned": Model(
        ViTModel,
        {**VIT, "hidden_size": 16, "num_attention_heads": 8, "pruned_heads": {0: [1, 4], 1: [0]}},
        {"plain": Call()},
    ),
    "classifier": Model(
        ViTForImageClassification,
        {**VIT, "num_labels": 4},
        {
            "no_labels": Call(),
            "single_label": Call({"labels": np.array([3, 1])}, with_gradients=True, with_states=False),
            "one_ignored": Call({"labels": np.array([-100, 2])}, with_states=False),
            "all_ignored": Call({"labels": np.array([-100, -100])}, with_states=False),
            "multi_label": Call({"labels": np.array([[1.0, 0.0, 0.0, 1.0], [0.0, 1.0, 0.0, 0.0]])}, with_states=False),
            "regression": Call({"labels": normal(BATCH, 4)}, config={"problem_type": "regression"}, with_states=False),
            "larger": Call({"labels": np.array([0, 2]), "head_mask": uniform(3)}, image=(8, 10), with_states=False),
        },
    ),
    "classifier_of_one": Model(
        ViTForImageClassification,
        {**VIT, "num_labels": 1},
        {
            "floats": Call({"labels": normal(BATCH)}, with_states=False),
            "integers": Call({"labels": np.array([2, -1])}, with_states=False),
        },
    ),
    "classifier_of_none": Model(ViTForImageClassification, {**VIT, "num_labels": 0}, {"plain": Call()}),
    "masked_images": Model(
        ViTForMaskedImageModeling,
        {**VIT, "image_size": 6},
        {
            "no_mask": Call(),
            "mask": Call({"bool_masked_pos": mask(BATCH, 9)}),
            "blended_mask": Call({"bool_masked_pos": uniform(BATCH, 9)}, with_states=False),
            "larger": Call(image=(8, 8)),
        },
    ),
    "masked_images_other_stride": Model(ViTForMaskedImageModeling, {**VIT, "encoder_stride": 3}, {"plain": Call()}),
    "mae_encoder": Model(
        ViTMAEModel,
        MAE,
        {
            "plain": Call({"noise": uniform(BATCH, 16)}),
            "mask_ratio": Call({"noise": uniform(BATCH, 16)}, config={"mask_ratio": 0.9}),
            "larger": Call({"noise": uniform(BATCH, 15)}, image=(6, 11)),
            "head_mask": Call({"noise": uniform(BATCH, 16), "head_mask": uniform(2, 3)}),
        },
    ),
    "mae": Model(
        ViTMAEForPreTraining,
        MAE,
        {
            "plain": Call({"noise": uniform(BATCH, 16)}, with_gradients=True),
            "norm_pix": Call({"noise": uniform(BATCH, 16)}, config={"norm_pix_loss": True}, with_states=False),
            "larger": Call({"noise": uniform(BATCH, 24)}, image=(12, 8)),
            "smaller": Call({"noise": uniform(BATCH, 10)}, image=(4, 10), with_states=False),
            "head_mask": Call({"noise": uniform(BATCH, 16), "head_mask": uniform(3)}),
        },
    ),
    "mae_no_qkv_bias": Model(
        ViTMAEForPreTraining,
        {**MAE, "qkv_bias": False, "hidden_act": "quick_gelu", "layer_norm_eps": 1e-12},
        {"plain": Call({"noise": uniform(BATCH, 16)})},
    ),
    "activations": Model(
        ViTModel,
        {**VIT, "num_hidden_layers": 1},
        {name: Call(config={"hidden_act": name, "pooler_act": name}, with_states=False) for name in sorted(ACT2CLS)},
    ),
}


def without_cast(softmax: Callable[..., torch.Tensor]) -> Callable[..., torch.Tensor]:
    """Softmax in the dtype of its input: the models ask for float32, which would end float64 at seven digits."""
    return lambda scores, dim, dtype=None: softmax(scores, dim=dim)


def random_parameter(file: str, name: str, tensor: torch.Tensor) -> Array:
    """Float32 numbers at the scale of a trained model's, none of them a starting value."""
    numbers = rng(file, name).standard_normal(tuple(tensor.shape))
    if name.endswith(("act_fn.weight", "activation.weight", "alpha_p", "alpha_n", "beta", "eps")):
        numbers = tensor.numpy() - 0.4 * np.abs(numbers)  # eps stays negative
    elif file == "activations" and name.endswith(("intermediate.dense.bias", "pooler.dense.bias")):
        numbers = 5 * numbers**3  # most of them small, some far enough out for gelu_10 and relu6 to clip
    elif "norm" in name and name.endswith("weight"):
        numbers = 1 + 0.25 * numbers
    elif name.endswith("weight"):
        numbers = 1.3 * numbers / np.sqrt(np.prod(tensor.shape[1:]))
    else:
        numbers = (0.3 if name.endswith("bias") else 0.6) * numbers
    return np.asarray(numbers, np.float32)


def run(file: str, model: Model, call: Call) -> tuple[dict[str, Array], dict[str, Any]]:
    """The parameters, and what `calls/<call>/` holds."""
    fields = {**model.config, **call.config}
    config = (ViTMAEConfig if "mask_ratio" in fields else ViTConfig)(**fields, attn_implementation="eager")
    text = config.to_json_string()  # before the call, which writes the problem type it infers into the config
    network = model.cls(config, **model.options).double().eval()
    tensors = {name: random_parameter(file, name, tensor) for name, tensor in network.state_dict().items()}
    network.load_state_dict({name: torch.from_numpy(tensor) for name, tensor in tensors.items()})

    height, width = call.image or np.broadcast_to(fields["image_size"], 2)
    inputs = {"pixel_values": normal(BATCH, fields["num_channels"], int(height), int(width)), **call.inputs}
    given = {name: torch.from_numpy(wide(array)) for name, array in inputs.items()}
    flags = {"interpolate_pos_encoding": True} if call.image else {}
    states = dict.fromkeys(("output_hidden_states", "output_attentions"), call.with_states)
    outputs = network(**given, **flags, **states)
    record: dict[str, Any] = {"config": text, "class": model.cls.__name__, "options": json.dumps(model.options)}
    record.update({f"inputs/{name}": value for name, value in {**inputs, **flags}.items()})
    record.update(flattened("outputs", outputs))
    if call.with_gradients:
        outputs.loss.backward()
        trainable = {name: row.grad for name, row in network.named_parameters() if row.requires_grad}
        record.update(flattened("gradients", trainable))
    return tensors, record


def wide(array: Array) -> Array:
    """Float64 for floats and masks: a boolean mask would make the masked-image loss divide by a float32 sum."""
    return array.astype(np.float64) if array.dtype.kind in "fb" else array


def flattened(prefix: str, values: Any) -> Iterator[tuple[str, Array]]:
    """A tuple's tensors one by one, under their numbers."""
    for name, value in values.items():
        layers = enumerate(value) if isinstance(value, tuple) else [(None, value)]
        for layer, tensor in layers:
            yield f"{prefix}/{name}" + ("" if layer is None else f"/{layer}"), tensor.detach().numpy()


def write(file: str, model: Model) -> None:
    """The first call's parameters are the file's; a later call adds those that only its model has."""
    shared: dict[str, Array] = {}
    records: dict[str, Any] = {}
    for name, call in model.calls.items():
        tensors, record = run(file, model, call)
        shared = shared or tensors
        own = {f"tensors/{key}": tensor for key, tensor in tensors.items() if key not in shared}
        records.update({f"calls/{name}/{key}": value for key, value in {**record, **own}.items()})
    np.savez_compressed(FOLDER / f"{file}.npz", **{f"tensors/{key}": value for key, value in shared.items()}, **records)


def main() -> None:
    found = {"transformers": transformers.__version__, "torch": torch.__version__, "numpy": np.__version__}
    if {name: version.split("+")[0] for name, version in found.items()} != VERSIONS:
        raise SystemExit(f"expected {VERSIONS}, got {found}")
    torch.set_num_threads(1)
    torch.nn.functional.softmax = without_cast(torch.nn.functional.softmax)
    FOLDER.mkdir(exist_ok=True)
    for file, model in MODELS.items():
        write(file, model)


if __name__ == "__main__":
    main()
