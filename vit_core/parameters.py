"""The canonical parameters: name, shape, kind, initialiser and trainability of every tensor of every model class.

Names and layouts are those of transformers' PyTorch files (`model.safetensors`). This table drives initialisation,
loading, saving, conversion, and the errors about missing, unexpected and mismatched tensors.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple
from zlib import crc32

import numpy as np

from vit_core.config import GATED_ACTIVATIONS, PretrainedConfig, ViTConfig, ViTMAEConfig, pair, patch_grid
from vit_core.errors import CheckpointError, ConfigError, SizeMismatchError
from vit_core.masking import check_seed
from vit_core.positions import sincos_table
from vit_core.tensors import Array

# What a tensor is; a framework's or a dialect's layout is a function of this and of nothing else.
#   linear: (out, in)   conv: (out, channels, height, width)   bias: (out,)   norm_scale, norm_shift: (hidden,)
#   heads_in: (heads * head_dim, in)   heads_bias: (heads * head_dim,)   heads_out: (out, heads * head_dim)
#   token: (1, tokens of that kind, hidden)   positions: (1, tokens, hidden)   layer_scale: (hidden,)
#   scalar: (1,) or (), of an activation with parameters
Kind = Literal[
    "linear",
    "heads_in",
    "heads_bias",
    "heads_out",
    "conv",
    "bias",
    "norm_scale",
    "norm_shift",
    "token",
    "positions",
    "layer_scale",
    "scalar",
]


class Initialiser(NamedTuple):
    """How a fresh tensor is filled.

    kind: "trunc_normal" (mean 0, standard deviation `value`, cut at -2 and 2), "normal" (the same, not cut), "uniform"
    (from -value to value), "constant" (`value`), or "sincos" (the fixed position table).

    Differs: the decoder of a fresh ViTMAE gets sin-cos positions and a normal mask token, as in the paper's code;
    transformers 4.57 leaves both at zero. Linear and patch weights are cut at the absolute bounds -2 and 2, which is
    what the reference does, not at two standard deviations.
    """

    kind: Literal["trunc_normal", "normal", "uniform", "constant", "sincos"]
    value: float = 0.0


@dataclass(frozen=True)
class Parameter:
    """One row of the table.

    Attributes:
        name: canonical name.
        shape: canonical shape.
        kind: see `Kind`.
        init: see `Initialiser`.
        trainable: False for fixed position tables and constants.
        part: "encoder", or the exchangeable part it belongs to ("pooler", "mask_token", "classifier", "decoder"):
            such a part may be absent from a checkpoint, or be extra in it.
    """

    name: str
    shape: tuple[int, ...]
    kind: Kind
    init: Initialiser
    trainable: bool = True
    part: str = "encoder"

    @property
    def size(self) -> int:
        """Number of elements."""
        return math.prod(self.shape)


MODEL_CLASSES: dict[str, type[PretrainedConfig]] = {
    "ViTModel": ViTConfig,
    "ViTForImageClassification": ViTConfig,
    "ViTForMaskedImageModeling": ViTConfig,
    "ViTMAEModel": ViTMAEConfig,
    "ViTMAEForPreTraining": ViTMAEConfig,
}
BASE_CLASSES = ("ViTModel", "ViTMAEModel")
BASE_PREFIX = "vit."  # in front of the encoder's names in every class that has a head

_ZEROS, _ONES = Initialiser("constant", 0.0), Initialiser("constant", 1.0)
_SINCOS = Initialiser("sincos")

# Activations with parameters -> name, shape, the reference's starting value and trainability of each.
ACTIVATION_PARAMETERS: dict[str, dict[str, tuple[tuple[int, ...], Initialiser, bool]]] = {
    "prelu": {"weight": ((1,), Initialiser("constant", 0.25), True)},
    "xielu": {
        "alpha_p": ((1,), Initialiser("constant", math.log(math.expm1(0.8))), True),
        "alpha_n": ((1,), Initialiser("constant", math.log(math.expm1(0.8 - 0.5))), True),
        "beta": ((), Initialiser("constant", 0.5), False),
        "eps": ((), Initialiser("constant", -1e-6), False),
    },
}


def class_name(cls: str | type) -> str:
    """The canonical name of a model class of any backend, or of a subclass of one: "TFViTModel" -> "ViTModel".

    Args:
        cls: the class, or its name.

    Raises:
        ConfigError: no such class.
    """
    given = [cls] if isinstance(cls, str) else [base.__name__ for base in cls.__mro__]
    names = [name.removeprefix("TF").removeprefix("Flax") for name in given]
    known = next((name for name in names if name in MODEL_CLASSES), None)
    if known is None:
        raise ConfigError(f"model class: expected one of {', '.join(MODEL_CLASSES)}, got {given[0]!r}.")
    return known


def parameter_table(
    config: PretrainedConfig, cls: str | type, *, add_pooling_layer: bool = True, use_mask_token: bool = False
) -> dict[str, Parameter]:
    """Every parameter of a model, by canonical name, in the order in which they are created.

    Args:
        config: a ViTConfig or ViTMAEConfig.
        cls: a model class of any backend, or its name.
        add_pooling_layer: whether a ViTModel has its pooler. Means nothing to the other classes.
        use_mask_token: whether a ViTModel has a mask token. Means nothing to the other classes.

    Raises:
        ConfigError: unknown class, or a configuration of the other model type or with an option that the class has not.
    """
    name = class_name(cls)
    if not isinstance(config, MODEL_CLASSES[name]):
        raise ConfigError(f"{name}: expected a {MODEL_CLASSES[name].__name__}, got a {type(config).__name__}.")
    pools_mean = config.use_mean_pooling
    if name == "ViTForMaskedImageModeling" and pools_mean and not config.norm_before_pooling:
        raise ConfigError(f"{name}: use_mean_pooling: the final norm is that of the mean, which this class has not.")
    base = name in BASE_CLASSES
    has_mask_token = name == "ViTForMaskedImageModeling" or (name == "ViTModel" and use_mask_token)
    has_pooler = (name == "ViTModel" and add_pooling_layer) or (name == "ViTForImageClassification" and pools_mean)
    rows = list(_encoder("" if base else BASE_PREFIX, config, has_mask_token, has_pooler))
    rows += _HEADS.get(name, lambda config: [])(config)
    return {row.name: row for row in rows}


def has_pooler(config: PretrainedConfig, names: Iterable[str]) -> bool:
    """Whether parameters, by canonical names, are those of a ViTModel with its pooler; one of a mean can have none."""
    return any(name.startswith("pooler.") for name in names) or (config.use_mean_pooling and config.norm_before_pooling)


def draw(config: PretrainedConfig, cls: str | type, seed: int, **options: bool) -> dict[str, Array]:
    """Fresh weights that depend only on the seed: with `from_tensors`, all three backends start from equal weights.

    Args:
        config: a ViTConfig or ViTMAEConfig.
        cls: a model class of any backend, or its name.
        seed: any int from 0 to 2**64 - 1.
        **options: as for `parameter_table`.

    Returns:
        canonical name -> float32 array, distributed as a fresh model's weights.

    Raises:
        InputError: the seed is not such an int.
    """
    return {
        name: _filled(row, config, np.random.Generator(np.random.Philox(key=_key(seed, name))))
        for name, row in parameter_table(config, cls, **options).items()
    }


def check_tensors(model: str, table: Mapping[str, Parameter], shapes: Mapping[str, Sequence[int]]) -> None:
    """Checks that tensors are exactly those of a table.

    Raises:
        CheckpointError: naming up to ten missing, unknown and wrongly shaped tensors each; a SizeMismatchError where
            some are wrongly shaped.
    """
    problems = {
        "missing": [name for name in table if name not in shapes],
        "unknown": [name for name in shapes if name not in table],
        "of another shape": [
            f"{name} {tuple(shapes[name])} instead of {row.shape}"
            for name, row in table.items()
            if name in shapes and tuple(shapes[name]) != row.shape
        ],
    }
    found = [f"{len(names)} {what}: {', '.join(names[:10])}" for what, names in problems.items() if names]
    if found:
        error = SizeMismatchError if problems["of another shape"] else CheckpointError
        raise error(f"{model}: the tensors do not fit the model: {'; '.join(found)}.")


def pruned_heads(
    config: PretrainedConfig, heads_to_prune: Mapping[int, Iterable[int]]
) -> tuple[dict[int, list[int]], dict[int, list[int]]]:
    """The heads that are pruned after pruning some more: those of the layers named, and those of all layers.

    Args:
        config: of the model before pruning; not changed.
        heads_to_prune: layer, counted from the end where negative -> heads, numbered as in the unpruned model.

    Raises:
        ConfigError: no such layer or head, or none would be left in a layer.
    """
    old, layers = config.pruned_heads, config.num_hidden_layers
    new: dict[int, list[int]] = {}
    for index, heads in heads_to_prune.items():
        layer = index + layers if -layers <= index < 0 else index
        new[layer] = sorted({*old.get(layer, ()), *new.get(layer, ()), *heads})
    changed = deepcopy(config)
    changed.update({"pruned_heads": {**old, **new}})
    return new, changed.pruned_heads


def sincos_of(row: Parameter, config: PretrainedConfig) -> Array:
    """The fixed position table that belongs in `row`: (1, tokens, hidden), float32."""
    return sincos_table(row.shape[-1], *patch_grid(config)).astype(np.float32)


def _key(seed: int, name: str) -> Array:
    return np.array([check_seed("seed", seed), crc32(name.encode())], dtype=np.uint64)


def _filled(row: Parameter, config: PretrainedConfig, random: np.random.Generator) -> Array:
    kind, value = row.init
    if kind == "sincos":
        return sincos_of(row, config)
    if kind == "constant":
        return np.full(row.shape, value, np.float32)
    if kind == "uniform":
        return random.uniform(-value, value, row.shape).astype(np.float32)
    values = value * random.standard_normal(row.shape)
    while kind == "trunc_normal" and (outside := np.abs(values) > 2).any():
        values[outside] = _proposals(value, int(outside.sum()), random)
    return values.astype(np.float32)


def _proposals(value: float, count: int, random: np.random.Generator) -> Array:
    """Normal numbers to be cut at -2 and 2; where few would fall inside, thinned out uniform ones instead."""
    if value <= 1:
        return value * random.standard_normal(count)
    drawn = random.uniform(-2, 2, count)
    return np.where(random.random(count) < np.exp(-0.5 * (drawn / value) ** 2), drawn, np.inf)


def _linear(
    prefix: str,
    out: int,
    inputs: int,
    init: Initialiser,
    bias: bool = True,
    part: str = "encoder",
    kinds: tuple[Kind, Kind] = ("linear", "bias"),
) -> list[Parameter]:
    weight = Parameter(f"{prefix}.weight", (out, inputs), kinds[0], init, part=part)
    return [weight] + [Parameter(f"{prefix}.bias", (out,), kinds[1], _ZEROS, part=part)] * bias


def _norm(prefix: str, hidden: int, part: str = "encoder") -> list[Parameter]:
    return [
        Parameter(f"{prefix}.weight", (hidden,), "norm_scale", _ONES, part=part),
        Parameter(f"{prefix}.bias", (hidden,), "norm_shift", _ZEROS, part=part),
    ]


def _scale(prefix: str, config: PretrainedConfig, hidden: int, part: str) -> list[Parameter]:
    """A LayerScale, where the layers have it."""
    if config.layerscale_value is None:
        return []
    init = Initialiser("constant", config.layerscale_value)
    return [Parameter(f"{prefix}.lambda1", (hidden,), "layer_scale", init, part=part)]


def _activation(prefix: str, name: object, part: str) -> list[Parameter]:
    """The parameters of the two activations that have any."""
    rows = ACTIVATION_PARAMETERS.get(name, {}) if isinstance(name, str) else {}
    return [
        Parameter(f"{prefix}.{key}", shape, "scalar", init, trainable, part)
        for key, (shape, init, trainable) in rows.items()
    ]


def weights_of(config: PretrainedConfig) -> Initialiser:
    """How weights of layers and tokens are filled; the patch projection has its own way."""
    if not config.initializer_range:  # frameworks divide by it
        return _ZEROS
    return Initialiser("normal" if isinstance(config, ViTMAEConfig) else "trunc_normal", config.initializer_range)


def patch_weights_of(config: PretrainedConfig) -> Initialiser:
    """How the patch projection is filled: in ViTMAE by Xavier's rule on the flattened kernel."""
    if not isinstance(config, ViTMAEConfig):
        return weights_of(config)
    pixels = math.prod(pair(config.patch_size)) * config.num_channels
    return Initialiser("uniform", math.sqrt(6 / (config.hidden_size + pixels)))


def _encoder(prefix: str, config: PretrainedConfig, mask_token: bool, pooler: bool) -> Iterator[Parameter]:
    is_mae = isinstance(config, ViTMAEConfig)
    hidden, init = config.hidden_size, weights_of(config)
    rows, columns = patch_grid(config)
    patch_shape, patch_init = (config.num_channels, *pair(config.patch_size)), patch_weights_of(config)
    at = f"{prefix}embeddings"
    if config.use_class_token:
        yield Parameter(f"{at}.cls_token", (1, 1, hidden), "token", init)
    if mask_token:
        yield Parameter(f"{at}.mask_token", (1, 1, hidden), "token", _ZEROS, part="mask_token")
    if config.num_register_tokens:
        yield Parameter(f"{at}.register_tokens", (1, config.num_register_tokens, hidden), "token", init)
    positions = (1, config.use_class_token + rows * columns, hidden)
    yield Parameter(f"{at}.position_embeddings", positions, "positions", _SINCOS if is_mae else init, not is_mae)
    yield Parameter(f"{at}.patch_embeddings.projection.weight", (hidden, *patch_shape), "conv", patch_init)
    yield Parameter(f"{at}.patch_embeddings.projection.bias", (hidden,), "bias", _ZEROS)
    for i in range(config.num_hidden_layers):
        heads = config.num_attention_heads - len({*config.pruned_heads.get(i, ())})
        attention = heads * (hidden // config.num_attention_heads)
        yield from _layer(f"{prefix}encoder.layer.{i}", config, hidden, attention, config.intermediate_size, "encoder")
    is_of_mean = config.use_mean_pooling and not config.norm_before_pooling
    if not is_of_mean:
        yield from _norm(f"{prefix}layernorm", hidden)
    if pooler and is_of_mean:
        yield from _norm(f"{prefix}pooler.layernorm", hidden)
    if pooler and not config.use_mean_pooling:
        yield from _linear(f"{prefix}pooler.dense", config.pooler_output_size, hidden, init, part="pooler")
        yield from _activation(f"{prefix}pooler.activation", config.pooler_act, "pooler")


def _layer(
    prefix: str, config: PretrainedConfig, hidden: int, attention: int, mlp: int, part: str
) -> Iterator[Parameter]:
    """One transformer layer; `attention` is the width of the heads that are left after pruning."""
    init = weights_of(config)
    yield from _norm(f"{prefix}.layernorm_before", hidden, part)
    for projection in ("query", "key", "value"):
        at = f"{prefix}.attention.attention.{projection}"
        yield from _linear(at, attention, hidden, init, config.qkv_bias, part, ("heads_in", "heads_bias"))
    yield from _linear(
        f"{prefix}.attention.output.dense", hidden, attention, init, part=part, kinds=("heads_out", "bias")
    )
    yield from _scale(f"{prefix}.layer_scale1", config, hidden, part)
    yield from _norm(f"{prefix}.layernorm_after", hidden, part)
    yield from _linear(f"{prefix}.intermediate.dense", mlp, hidden, init, part=part)
    yield from _activation(f"{prefix}.intermediate.intermediate_act_fn", config.mlp_act, part)
    inner = mlp // 2 if config.mlp_act in GATED_ACTIVATIONS else mlp
    yield from _linear(f"{prefix}.output.dense", hidden, inner, init, part=part)
    yield from _scale(f"{prefix}.layer_scale2", config, hidden, part)


def _classifier(config: PretrainedConfig) -> list[Parameter]:
    if config.num_labels == 0:  # the head is an identity
        return []
    return _linear("classifier", config.num_labels, config.pooled_size, weights_of(config), part="classifier")


def _mim_decoder(config: PretrainedConfig) -> list[Parameter]:
    out = config.encoder_stride**2 * config.num_channels
    return [
        Parameter("decoder.0.weight", (out, config.hidden_size, 1, 1), "conv", weights_of(config), part="decoder"),
        Parameter("decoder.0.bias", (out,), "bias", _ZEROS, part="decoder"),
    ]


def _mae_decoder(config: PretrainedConfig) -> Iterator[Parameter]:
    hidden, init = config.decoder_hidden_size, weights_of(config)
    rows, columns = patch_grid(config)
    yield Parameter("decoder.mask_token", (1, 1, hidden), "token", init, part="decoder")
    positions = (1, 1 + rows * columns, hidden)
    yield Parameter("decoder.decoder_pos_embed", positions, "positions", _SINCOS, trainable=False, part="decoder")
    yield from _linear("decoder.decoder_embed", hidden, config.hidden_size, init, part="decoder")
    for i in range(config.decoder_num_hidden_layers):
        mlp = config.decoder_intermediate_size
        yield from _layer(f"decoder.decoder_layers.{i}", config, hidden, hidden, mlp, "decoder")
    yield from _norm("decoder.decoder_norm", hidden, "decoder")
    pixels = math.prod(pair(config.patch_size)) * config.num_channels
    yield from _linear("decoder.decoder_pred", pixels, hidden, init, part="decoder")


_HEADS: dict[str, Any] = {
    "ViTForImageClassification": _classifier,
    "ViTForMaskedImageModeling": _mim_decoder,
    "ViTMAEForPreTraining": _mae_decoder,
}
