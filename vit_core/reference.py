"""The oracle: every model's forward pass and losses in float64 NumPy, to compare the backends with.

Written for reading, from the papers (ViT, arXiv:2010.11929; MAE, arXiv:2111.06377; SimMIM, arXiv:2111.09886) and from
the measured behaviour of transformers 4.57.6, whose golden files pin it. It shares no code with a backend, only the
core's facts: the parameter table, the argument checks, the resize matrices and the number of kept patches.

It also gives exact derivatives, by the complex step: `forward` with tensors + 1j * h * direction returns outputs whose
imaginary part is h times the derivative along that direction. No difference is taken, so nothing cancels, and h can be
as small as 1e-30. For this, maxima, magnitudes and comparisons look at real parts only, and nothing is conjugated.

Axis words: batch, channels, patches, tokens (class token, registers, patches), kept, hidden, heads,
head_dim, mlp, classes.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from vit_core.config import PretrainedConfig as Config
from vit_core.config import ViTMAEConfig, pair, patch_grid
from vit_core.errors import InputError
from vit_core.inputs import (
    IGNORED_LABEL,
    check_drop_path_mask,
    check_head_mask,
    check_labels,
    check_per_patch,
    check_pixel_values,
)
from vit_core.masking import masking_of, num_kept
from vit_core.parameters import BASE_CLASSES, BASE_PREFIX, check_tensors, class_name, parameter_table
from vit_core.positions import resize_matrix

Array = Any  # of NumPy, float64 or complex128: arithmetic on either is Any to a type checker
Tensors = Mapping[str, Array]
Outputs = dict[str, Any]

NORM_PIX_EPS = 1e-6  # of norm_pix_loss, inside the root
MIM_MASK_EPS = 1e-5  # of masked image modelling, beside the number of masked pixels
ERF_SPLIT, ERF_TERMS = 2.0, 40  # a series up to the split, a continued fraction beyond; 6.7e-16 from math.erf, relative


def forward(
    cls: str | type,
    config: Config,
    tensors: Tensors,
    pixel_values: Any,
    *,
    bool_masked_pos: Any = None,
    head_mask: Any = None,
    labels: Any = None,
    noise: Any = None,
    mask_ratio: float | None = None,
    interpolate_pos_encoding: bool = False,
    drop_path_mask: Any = None,
    add_pooling_layer: bool = True,
) -> Outputs:
    """Every output of one call of a model without dropout, hidden states and attentions included.

    Args:
        cls: a model class of any backend, or its name.
        config: its configuration; `hidden_act` and `pooler_act` by name.
        tensors: canonical name -> array: exactly the model's parameters, real or complex.
        pixel_values: (batch, channels, height, width) or (batch, height, width, channels).
        bool_masked_pos: (batch, patches), 1 = masked; fractions blend. Of ViTMAE in place of noise and mask_ratio.
        head_mask: (heads,), (layers, heads) or (layers, 1 | batch, 1 | heads, 1 | tokens, 1 | tokens), multiplied with
            the attention probabilities of the encoder. Heads are counted as in the configuration: entries of pruned
            heads are passed over.
        labels: see `vit_core.inputs.check_labels`.
        noise: (batch, patches); rounded to float32, then sorted stably.
        mask_ratio: instead of the config's; 0 keeps every patch, in image order, and needs no noise.
        interpolate_pos_encoding: resize the positions to the images.
        drop_path_mask: (layers, 2, batch), bool, True where training leaves out the attention (0) or the MLP (1) of a
            layer for an image; the others are divided by the share that is kept. None is evaluation: all are kept.
        add_pooling_layer: whether a ViTModel has its pooler.

    Returns:
        The documented outputs of the class by name, float64 (ids_restore: integers). hidden_states: 1 + layers arrays
        (batch, tokens, hidden), the last one before the final norm; attentions: one (batch, heads, tokens, tokens) per
        layer, after head_mask. Both are the encoder's in ViTMAEForPreTraining. A loss is (), and present where there
        is something to compare with.

    Raises:
        InputError: an argument that the class does not take, or that does not fit the model.
        ConfigError: no such class, or a configuration of the other model type.
        CheckpointError: the tensors are not the model's.
    """
    model = class_name(cls)
    is_mae, is_classifier = isinstance(config, ViTMAEConfig), model == "ViTForImageClassification"
    if is_mae:
        noise, mask_ratio = masking_of(model, bool_masked_pos, noise, mask_ratio)
        bool_masked_pos = None
    has_mask_token = any(name.endswith("embeddings.mask_token") for name in tensors)
    fits = (labels is None or is_classifier) and (noise is mask_ratio is None or is_mae)
    if not fits or not (bool_masked_pos is None or has_mask_token):
        raise InputError(f"{model}: labels, noise, mask_ratio or bool_masked_pos: this model takes no such argument.")
    table = parameter_table(config, model, add_pooling_layer=add_pooling_layer, use_mask_token=has_mask_token)
    check_tensors(model, table, {name: np.shape(tensor) for name, tensor in tensors.items()})
    tensors = {name: _wide(tensor) for name, tensor in tensors.items()}
    base = tensors if model in BASE_CLASSES else _under(BASE_PREFIX, tensors)

    pixels = _images(model, config, pixel_values, interpolate_pos_encoding)
    tokens, masking = _embeddings(config, base, pixels, bool_masked_pos, noise, mask_ratio)
    hidden_states, attentions = [tokens], []
    kept = _kept_branches(model, config, drop_path_mask, len(pixels))
    for i, mask in enumerate(_head_masks(model, config, head_mask)):
        layer = _under(f"encoder.layer.{i}.", base)
        tokens, probabilities = _layer(config, layer, tokens, config.num_attention_heads, mask, kept[i])
        hidden_states.append(tokens)
        attentions.append(probabilities)
    is_of_mean = config.use_mean_pooling and not config.norm_before_pooling  # whose the final norm is
    encoded = tokens if is_of_mean else _layer_norm(config, base, "layernorm", tokens)  # (batch, tokens, hidden)
    features = _features(config, base, encoded) if add_pooling_layer or is_classifier else None

    outputs: Outputs = {"last_hidden_state": encoded} if model in BASE_CLASSES else {}
    if model == "ViTModel" and add_pooling_layer and config.use_mean_pooling:
        outputs["pooler_output"] = features
    elif model == "ViTModel" and add_pooling_layer:
        pooled = _linear(base, "pooler.dense", encoded[:, 0])
        outputs["pooler_output"] = ACTIVATION_FUNCTIONS[config.pooler_act](pooled, **_under("pooler.activation.", base))
    if is_classifier:
        outputs = _classification(config, tensors, features, labels)
    if model == "ViTForMaskedImageModeling":
        outputs = _masked_image_modeling(config, tensors, encoded, pixels, bool_masked_pos)
    if model == "ViTMAEForPreTraining":
        outputs = _pretraining(config, tensors, encoded, pixels, **masking)
    return {**outputs, **masking, "hidden_states": tuple(hidden_states), "attentions": tuple(attentions)}


def _images(model: str, config: Config, pixel_values: Any, interpolate: bool) -> Array:
    """(batch, channels, height, width)."""
    pixels, is_float = np.asarray(pixel_values), np.asarray(pixel_values).dtype.kind in "fc"
    channels_last = check_pixel_values(model, config, pixels.shape, is_float=is_float, interpolate=interpolate)
    return _wide(pixels.transpose(0, 3, 1, 2) if channels_last else pixels)


def patchify(pixels: Array, patch: tuple[int, int]) -> Array:
    """(batch, channels, height, width) -> (batch, patches, patch height * patch width * channels), channel fastest.

    Pixels beyond the last whole patch are left out.
    """
    batch, channels, height, width = pixels.shape
    rows, columns = height // patch[0], width // patch[1]
    cut = pixels[:, :, : rows * patch[0], : columns * patch[1]]
    cut = cut.reshape(batch, channels, rows, patch[0], columns, patch[1]).transpose(0, 2, 4, 3, 5, 1)
    return cut.reshape(batch, rows * columns, -1)


def unpatchify(patches: Array, grid: tuple[int, int], patch: tuple[int, int]) -> Array:
    """The inverse of `patchify`, for a grid of (rows, columns)."""
    cut = patches.reshape(len(patches), *grid, *patch, -1).transpose(0, 5, 1, 3, 2, 4)
    return cut.reshape(len(patches), -1, grid[0] * patch[0], grid[1] * patch[1])


def _embeddings(
    config: Config, base: Tensors, pixels: Array, bool_masked_pos: Any, noise: Any, mask_ratio: float | None
) -> tuple[Array, Outputs]:
    """The encoder's input, (batch, tokens, hidden), and in ViTMAE also mask and ids_restore."""
    tensors, batch = _under("embeddings.", base), len(pixels)
    kernel = tensors["patch_embeddings.projection.weight"].transpose(2, 3, 1, 0).reshape(-1, config.hidden_size)
    patches = patchify(pixels, pair(config.patch_size)) @ kernel + tensors["patch_embeddings.projection.bias"]
    if bool_masked_pos is not None:
        check_per_patch("oracle", "bool_masked_pos", np.shape(bool_masked_pos), *patches.shape[:2])
        masked = np.asarray(bool_masked_pos, np.float64)[..., None]
        patches = patches * (1 - masked) + tensors["mask_token"] * masked

    positions = _resized(tensors["position_embeddings"], patch_grid(config), patch_grid(config, pixels.shape[2:]))
    patches = patches + positions[:, int(config.use_class_token) :]  # (batch, patches, hidden)
    masking: Outputs = {}
    if isinstance(config, ViTMAEConfig):
        ratio = config.mask_ratio if mask_ratio is None else mask_ratio
        ids_kept, masking = _masking(noise, ratio, *patches.shape[:2])
        patches = np.take_along_axis(patches, ids_kept[..., None], axis=1)  # (batch, kept, hidden)
    prefix = [tensors["cls_token"] + positions[:, :1]] if config.use_class_token else []
    prefix += [tensors["register_tokens"]] if config.num_register_tokens else []
    return np.concatenate([*(np.repeat(each, batch, axis=0) for each in prefix), patches], axis=1), masking


def _resized(positions: Array, old: tuple[int, int], new: tuple[int, int]) -> Array:
    """A table (1, 1 + old rows * columns, hidden) for another grid; the class token's row, if there is one, stays."""
    first = positions.shape[1] - old[0] * old[1]
    rows, columns = (resize_matrix(o, n) for o, n in zip(old, new, strict=True))
    table = positions[0, first:].reshape(*old, -1)  # (rows, columns, hidden)
    table = np.einsum("ri,cj,ijh->rch", rows, columns, table, optimize=True)
    return np.concatenate([positions[:, :first], table.reshape(1, new[0] * new[1], -1)], axis=1)


def _masking(noise: Any, ratio: float, batch: int, patches: int) -> tuple[Array, Outputs]:
    """The kept patches (batch, kept) in the order in which the encoder sees them, mask and ids_restore."""
    kept = num_kept(patches, ratio)
    if kept == patches:
        noise = np.zeros((batch, patches))  # equal noise leaves a stable sort in image order
    check_per_patch("oracle", "noise or bool_masked_pos", np.shape(noise), batch, patches)
    ids_shuffle = np.argsort(np.asarray(noise, np.float32), axis=1, kind="stable")
    ids_restore = np.argsort(ids_shuffle, axis=1)
    return ids_shuffle[:, :kept], {"mask": (ids_restore >= kept).astype(np.float64), "ids_restore": ids_restore}


def _head_masks(model: str, config: Config, head_mask: Any) -> list[Array]:
    """One factor per layer, (1 | batch, heads left, 1 | tokens, 1 | tokens)."""
    everything = np.ones((config.num_hidden_layers, 1, config.num_attention_heads, 1, 1))
    mask = everything if head_mask is None else np.asarray(head_mask, np.float64)
    check_head_mask(model, config, mask.shape)
    mask = everything * (mask if mask.ndim == 5 else mask[..., None, :, None, None])
    return [np.delete(factor, config.pruned_heads.get(i, []), axis=1) for i, factor in enumerate(mask)]


def _kept_branches(model: str, config: Config, drop_path_mask: Any, batch: int) -> list[Array]:
    """The factors of both branches of each layer, (2, 1 | batch, 1, 1)."""
    if drop_path_mask is None:
        return [np.ones((2, 1, 1, 1))] * config.num_hidden_layers
    mask = np.asarray(drop_path_mask)
    check_drop_path_mask(model, config, mask.shape, batch, is_bool=mask.dtype == bool, training=True)
    both = zip(mask[..., None, None], config.drop_path_rates, strict=True)
    return [~left_out / (1 - rate) for left_out, rate in both]


def _layer(
    config: Config, tensors: Tensors, x: Array, num_heads: int, mask: Array = 1.0, kept: Array = (1.0, 1.0)
) -> tuple[Array, Array]:
    """One pre-norm transformer layer: (batch, tokens, hidden), and its attention probabilities."""
    normed = _layer_norm(config, tensors, "layernorm_before", x)
    attended, probabilities = _attention(_under("attention.", tensors), normed, x.shape[2] // num_heads, mask)
    x = x + attended * tensors.get("layer_scale1.lambda1", 1.0) * kept[0]
    mlp = _linear(tensors, "intermediate.dense", _layer_norm(config, tensors, "layernorm_after", x))
    mlp = ACTIVATION_FUNCTIONS[config.mlp_act](mlp, **_under("intermediate.intermediate_act_fn.", tensors))
    mlp = _linear(tensors, "output.dense", mlp) * tensors.get("layer_scale2.lambda1", 1.0)
    return x + mlp * kept[1], probabilities


def _attention(tensors: Tensors, x: Array, head_dim: int, mask: Array) -> tuple[Array, Array]:
    batch, tokens, _ = x.shape
    query, key, value = (
        _linear(tensors, f"attention.{name}", x).reshape(batch, tokens, -1, head_dim).transpose(0, 2, 1, 3)
        for name in ("query", "key", "value")
    )  # (batch, heads, tokens, head_dim)
    probabilities = np.exp(_log_softmax(query @ key.swapaxes(2, 3) / math.sqrt(head_dim))) * mask
    context = (probabilities @ value).transpose(0, 2, 1, 3).reshape(batch, tokens, -1)
    return _linear(tensors, "output.dense", context), probabilities


def _layer_norm(config: Config, tensors: Tensors, name: str, x: Array) -> Array:
    centred = x - x.mean(axis=-1, keepdims=True)
    variance = np.square(centred).mean(axis=-1, keepdims=True)
    scale, shift = tensors[f"{name}.weight"], tensors[f"{name}.bias"]
    return centred / np.sqrt(variance + config.layer_norm_eps) * scale + shift


def _linear(tensors: Tensors, name: str, x: Array) -> Array:
    """x W' + b; only query, key and value may be without bias, `forward` has checked that the others are there."""
    return x @ tensors[f"{name}.weight"].T + tensors.get(f"{name}.bias", 0.0)


def _features(config: Config, base: Tensors, encoded: Array) -> Array:
    """What heads read of (batch, tokens, hidden): the class token, the mean of the patches, or both in a row."""
    if not config.use_mean_pooling:
        return encoded[:, 0]
    mean = encoded[:, config.num_prefix_tokens :].mean(axis=1)
    if config.pool_class_token:
        return np.concatenate([encoded[:, 0], mean], axis=1)  # (batch, 2 * hidden)
    return mean if config.norm_before_pooling else _layer_norm(config, base, "pooler.layernorm", mean)


def _classification(config: Config, tensors: Tensors, features: Array, labels: Any) -> Outputs:
    logits = _linear(tensors, "classifier", features) if config.num_labels else features
    return {"logits": logits} | ({} if labels is None else {"loss": _classification_loss(config, logits, labels)})


def _classification_loss(config: Config, logits: Array, labels: Any) -> Array:
    labels, model = np.asarray(labels), "ViTForImageClassification"
    problem = check_labels(model, config, labels.shape, len(logits), is_float=labels.dtype.kind == "f")
    if problem == "single_label_classification":
        return _cross_entropy(logits, labels.ravel())
    targets = labels.reshape(logits.shape)
    if problem == "regression":
        return np.square(logits - targets).mean()
    return (_softplus(logits) - logits * targets).mean()


def _cross_entropy(logits: Array, labels: Array) -> Array:
    """Mean over the labels that are not ignored; NaN where none is left, or where one is no class."""
    picked = labels[:, None] == np.arange(logits.shape[1])  # (batch, classes)
    losses = np.where(picked, -_log_softmax(logits), 0.0).sum(axis=1)
    losses = np.where(picked.any(axis=1), losses, np.nan)[labels != IGNORED_LABEL]
    return losses.mean() if losses.size else np.float64(np.nan)


def _masked_image_modeling(config: Config, tensors: Tensors, encoded: Array, pixels: Array, masked: Any) -> Outputs:
    stride, channels = config.encoder_stride, config.num_channels
    painted = (
        encoded[:, config.num_prefix_tokens :] @ tensors["decoder.0.weight"][:, :, 0, 0].T + tensors["decoder.0.bias"]
    )
    painted = painted.reshape(*painted.shape[:2], channels, stride**2).swapaxes(2, 3)  # the pixel shuffle
    painted = painted.reshape(*painted.shape[:2], -1)  # (batch, patches, pixels), channel fastest
    reconstruction = unpatchify(painted, patch_grid(config, pixels.shape[2:]), (stride, stride))
    if masked is None:
        return {"reconstruction": reconstruction}
    mask = np.asarray(masked, np.float64)
    losses = _magnitude(patchify(pixels, (stride, stride)) - painted).sum(axis=-1) * mask  # (batch, patches)
    loss = losses.sum() / (mask.sum() * stride**2 + MIM_MASK_EPS) / channels
    return {"loss": loss, "reconstruction": reconstruction}


def _pretraining(
    config: Config, tensors: Tensors, encoded: Array, pixels: Array, mask: Array, ids_restore: Array
) -> Outputs:
    if not mask.any():
        raise InputError("ViTMAEForPreTraining: mask_ratio: no patch is removed, so there is no loss.")
    logits = _decoder(config, _under("decoder.", tensors), encoded, ids_restore)
    target = patchify(pixels, pair(config.patch_size))
    if config.norm_pix_loss:
        centred = target - target.mean(axis=-1, keepdims=True)
        variance = np.square(centred).sum(axis=-1, keepdims=True) / (target.shape[-1] - 1)  # unbiased
        target = centred / np.sqrt(variance + NORM_PIX_EPS)
    losses = np.square(logits - target).mean(axis=-1) * mask  # (batch, patches)
    return {"loss": losses.sum() / mask.sum(), "logits": logits}


def _decoder(config: Config, tensors: Tensors, encoded: Array, ids_restore: Array) -> Array:
    """(batch, 1 + kept, hidden) -> (batch, patches, pixels)."""
    x = _linear(tensors, "decoder_embed", encoded)
    batch, patches = ids_restore.shape
    removed = np.broadcast_to(tensors["mask_token"], (batch, 1 + patches - x.shape[1], x.shape[2]))
    shuffled = np.concatenate([x[:, 1:], removed], axis=1)  # (batch, patches, decoder hidden)
    x = np.concatenate([x[:, :1], np.take_along_axis(shuffled, ids_restore[..., None], axis=1)], axis=1)
    positions = tensors["decoder_pos_embed"]
    x = x + _resized(positions, (1, positions.shape[1] - 1), (1, patches))  # one line, unlike the encoder's grid
    for i in range(config.decoder_num_hidden_layers):
        x, _ = _layer(config, _under(f"decoder_layers.{i}.", tensors), x, config.decoder_num_attention_heads)
    return _linear(tensors, "decoder_pred", _layer_norm(config, tensors, "decoder_norm", x))[:, 1:]


def erf(x: Array) -> Array:
    """The error function of real x, to 1e-15 relative; of complex x to first order in the imaginary part.

    Source: Abramowitz and Stegun, Handbook of Mathematical Functions, 7.1.6 (series) and 7.1.14 (continued fraction).
    """
    if np.iscomplexobj(x):
        return erf(x.real) + 2j / math.sqrt(math.pi) * np.exp(-x.real * x.real) * x.imag
    size = np.abs(x)
    near, far = np.minimum(size, ERF_SPLIT), np.clip(size, ERF_SPLIT, 7.0)  # erf(7) rounds to 1
    series, fraction = 1.0, far  # both from the inside out
    for n in range(ERF_TERMS, 0, -1):
        series = 1 + series * near * near / (n + 0.5)
        fraction = far + n / 2 / fraction
    series = 2 / math.sqrt(math.pi) * np.exp(-near * near) * near * series
    tail = np.exp(-far * far) / math.sqrt(math.pi) / fraction
    return np.copysign(np.where(size < ERF_SPLIT, series, 1 - tail), x)


def _gelu(x: Array) -> Array:
    return 0.5 * x * (1 + erf(x / math.sqrt(2)))


def _gelu_tanh(x: Array, scale: float = math.sqrt(2 / math.pi)) -> Array:
    return 0.5 * x * (1 + np.tanh(scale * (x + 0.044715 * x * x * x)))


def _sigmoid(x: Array) -> Array:
    return 0.5 * (1 + np.tanh(0.5 * x))  # overflows nowhere


def _silu(x: Array) -> Array:
    return x * _sigmoid(x)


def _relu(x: Array) -> Array:
    return _clip(x, 0.0, math.inf)


def _softplus(x: Array) -> Array:
    return _relu(x) + np.log1p(np.exp(-_magnitude(x)))


def _selu(x: Array) -> Array:
    return 1.0507009873554805 * (_relu(x) + 1.6732632423543772 * np.expm1(_clip(x, -math.inf, 0.0)))


def _xielu(x: Array, alpha_p: Array, alpha_n: Array, beta: Array, eps: Array) -> Array:
    right = _softplus(alpha_p) * x * x
    left = (beta + _softplus(alpha_n)) * (np.expm1(np.where(x.real < eps.real, x, eps)) - x)
    return np.where(x.real > 0, right, left) + beta * x


def _log_softmax(x: Array) -> Array:
    shifted = x - x.real.max(axis=-1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(axis=-1, keepdims=True))


def _clip(x: Array, low: float, high: float) -> Array:
    return np.where(x.real < low, low, np.where(x.real > high, high, x))


def _magnitude(x: Array) -> Array:
    return np.where(x.real < 0, -x, x)


def _wide(array: Any) -> Array:
    """float64, or complex128."""
    return np.asarray(array, np.result_type(array, np.float64))


def _under(prefix: str, tensors: Tensors) -> dict[str, Array]:
    """The tensors whose names begin with `prefix`, which is taken off."""
    return {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}


# By the names of `vit_core.config.ACTIVATIONS`: functions of x and, where they have any, of their parameters by name.
# The constants of the last few are those of their papers: SELU, arXiv:1706.02515; Laplace, arXiv:2209.10655.
ACTIVATION_FUNCTIONS: dict[str, Callable[..., Array]] = {
    **dict.fromkeys(("gelu", "gelu_python"), _gelu),
    **dict.fromkeys(("gelu_accurate", "gelu_new", "gelu_python_tanh", "gelu_pytorch_tanh"), _gelu_tanh),
    "gelu_10": lambda x: _clip(_gelu(x), -10.0, 10.0),
    "gelu_fast": lambda x: _gelu_tanh(x, scale=0.7978845608),
    "glu": lambda x: x[..., : x.shape[-1] // 2] * _sigmoid(x[..., x.shape[-1] // 2 :]),
    "laplace": lambda x: 0.5 * (1 + erf((x - 0.707107) / (0.282095 * math.sqrt(2)))),
    "leaky_relu": lambda x: np.where(x.real > 0, x, 0.01 * x),
    "linear": lambda x: x,
    "mish": lambda x: x * np.tanh(_softplus(x)),
    "prelu": lambda x, weight: np.where(x.real > 0, x, weight * x),
    "quick_gelu": lambda x: x * _sigmoid(1.702 * x),
    "relu": _relu,
    "relu2": lambda x: _relu(x) * _relu(x),
    "relu6": lambda x: _clip(x, 0.0, 6.0),
    "selu": _selu,
    "sigmoid": _sigmoid,
    **dict.fromkeys(("silu", "swish"), _silu),
    "swiglu": lambda x: _silu(x[..., : x.shape[-1] // 2]) * x[..., x.shape[-1] // 2 :],
    "tanh": np.tanh,
    "xielu": _xielu,
}
