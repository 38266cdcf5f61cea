"""The layers that models are made of: Keras' own with no default left open, and what Keras does not have.

As in torch, a layer is told the sizes of its inputs when it is made; `build` then only makes the weights.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

import keras
import tensorflow as tf
from keras import ops
from tensorflow import Tensor

from vit_core.config import PretrainedConfig
from vit_core.errors import InputError
from vit_core.inputs import IGNORED_LABEL, Grid
from vit_core.masking import kept_fraction, num_kept
from vit_core.positions import cubic_weights, resize_matrix
from vit_tf import _keras
from vit_tf.modules import VALUE, setting
from vit_tf.modules import Module as Module  # these four are part of what models take from here, as from torch.nn
from vit_tf.modules import ModuleDict as ModuleDict
from vit_tf.modules import Sequential as Sequential
from vit_tf.modules import parameter as parameter

_seeds: ContextVar[Mapping[int, Iterator[Tensor]] | None] = ContextVar("seeds", default=None)  # by ids of dropouts


def at_least_float32(dtype: Any) -> str:
    """float32, or float64 for float64: the dtype of softmax, losses and position resizing."""
    return keras.backend.result_type(dtype, "float32")


def static(*sides: Any) -> tuple[int | None, ...]:
    """Sides for checks that only refuse: None for tensors."""
    return tuple(side if isinstance(side, int) else None for side in sides)


def grid_of(pixel_values: Tensor, patch: tuple[int, int]) -> Grid:
    """The patch grid of images."""
    height, width = ops.shape(pixel_values)[2:]
    return Grid(height // patch[0], width // patch[1])


class Dense(keras.layers.Dense):
    """Keras' own, over rows: TensorFlow adds a bias within the product only where the product is a matrix."""

    def call(self, inputs: Tensor, training: bool | None = None) -> Tensor:
        """(..., inputs) -> (..., units)."""
        if len(inputs.shape) == 2:
            return super().call(inputs, training=training)
        *leading, width = ops.shape(inputs)
        rows = super().call(ops.reshape(inputs, (-1, width)), training=training)
        return ops.reshape(rows, (*leading, self.units))

    def quantize(self, mode: Any, type_check: bool = True, config: Any = None) -> None:
        """As Keras' own, which refuses subclasses."""
        super().quantize(mode, type_check=False, config=config)


def linear(inputs: int, units: int, bias: bool = True, dtype: str | None = None) -> Dense:
    """A dense layer without activation."""
    initial = {"kernel_initializer": VALUE, "bias_initializer": VALUE}
    layer = Dense(units, activation=None, use_bias=bias, dtype=dtype, **initial)
    layer._built_for, layer.is_head = (None, None, inputs), dtype is not None
    return layer


def convolution(channels: int, filters: int, kernel: tuple[int, int], dtype: str | None = None) -> keras.layers.Conv2D:
    """A convolution of channels-last images whose windows do not overlap."""
    initial = {"kernel_initializer": VALUE, "bias_initializer": VALUE}
    layout = {"strides": kernel, "padding": "valid", "data_format": "channels_last"}
    layer = keras.layers.Conv2D(filters, kernel, use_bias=True, dtype=dtype, **layout, **initial)
    layer._built_for, layer.is_head = (None, None, None, channels), dtype is not None
    return layer


class LayerNormalization(keras.layers.LayerNormalization):
    """Keras' own over the last axis, in float32 or wider; centred first, which takes fewer passes through memory."""

    def call(self, inputs: Tensor) -> Tensor:
        """(..., hidden) -> the same."""
        x = ops.cast(inputs, at_least_float32(inputs.dtype))
        x = x - ops.mean(x, axis=-1, keepdims=True)
        x = x * ops.rsqrt(ops.mean(x * x, axis=-1, keepdims=True) + self.epsilon)
        return ops.cast(x * ops.cast(self.gamma, x.dtype) + ops.cast(self.beta, x.dtype), self.compute_dtype)


def layer_norm(hidden: int, eps: float) -> LayerNormalization:
    """A norm over the last axis."""
    initial = {"gamma_initializer": VALUE, "beta_initializer": VALUE}
    layer = LayerNormalization(axis=-1, epsilon=eps, **initial)
    layer._built_for = (None, None, hidden)
    return layer


def head_dtype() -> str:
    """The dtype of heads: that of the weights, so float32 under a mixed policy."""
    return keras.config.dtype_policy().variable_dtype


@contextmanager
def computing_in(model: keras.Model, dtype: str, is_recomputed: bool) -> Iterator[None]:
    """Inside, the layers of a model compute in a dtype, all but its heads; weights keep theirs.

    Args:
        model: with weights of at least that width.
        dtype: of the computation.
        is_recomputed: whether layers are computed anew in the backward pass, where they are not anyway.
    """
    weights = model.variable_dtype
    policy = keras.dtype_policies.get(weights if dtype == weights else f"mixed_{dtype}")
    parts = _keras.layers_of(model)
    before = [(part, part.dtype_policy, getattr(part, "checkpointing", None)) for part in parts]
    for part, _, is_checkpointing in before:
        part.dtype_policy = keras.dtype_policies.get(weights) if getattr(part, "is_head", False) else policy
        if is_checkpointing is not None:
            part.checkpointing = is_checkpointing or is_recomputed
    try:
        yield
    finally:
        for part, own, is_checkpointing in before:
            part.dtype_policy = own
            if is_checkpointing is not None:
                part.checkpointing = is_checkpointing


Identity = keras.layers.Identity
ModuleList = list  # Keras keeps track of the layers in a list


class LayerScale(Module):
    """Multiplies a branch of a layer by one number for each of its features, where the configuration asks for it.

    Source: Touvron et al., Going deeper with Image Transformers (2021), section 2; named as in transformers' Dinov2.
    """

    def __init__(self, config: PretrainedConfig, hidden_size: int) -> None:
        super().__init__()
        self.lambda1 = None if config.layerscale_value is None else parameter((hidden_size,))

    def call(self, branch: Tensor) -> Tensor:
        """(batch, tokens, hidden) -> the same."""
        return branch if self.lambda1 is None else branch * self.lambda1


def with_registers(embeddings: Tensor, registers: Any, cls_token: Any) -> Tensor:
    """(batch, tokens, hidden) with registers behind the class token, if there is one; they have no positions."""
    if registers is None:
        return embeddings
    registers, first = ops.repeat(registers, ops.shape(embeddings)[0], axis=0), 0 if cls_token is None else 1
    return ops.concatenate((embeddings[:, :first], registers, embeddings[:, first:]), axis=1)


def attended(query: Tensor, key: Tensor, value: Tensor, block: int = 1024) -> Tensor:
    """softmax(query key^T) value, of a scaled query; each (batch, heads, tokens, head_dim).

    Known tokens beyond a block of queries take one block after the other: memory of a call grows with the tokens, not
    with their square. A backward pass keeps the probabilities of all blocks.

    Differs: written out, because keras.ops.dot_product_attention takes 1.5 times as long, and holds every score.
    """
    tokens = query.shape[2] or 0
    contexts: list[Tensor] = []
    sizes = [min(block, tokens - first) for first in range(0, tokens, block)]
    for queries in tf.split(query, sizes, axis=2) if len(sizes) > 1 else [query]:
        with tf.control_dependencies(contexts[-1:]):
            scores = tf.matmul(queries, key, transpose_b=True)
        probabilities = tf.nn.softmax(ops.cast(scores, at_least_float32(scores.dtype)))
        contexts.append(ops.matmul(ops.cast(probabilities, value.dtype), value))
    return contexts[0] if len(contexts) == 1 else ops.concatenate(contexts, axis=2)


def final_norm(config: PretrainedConfig) -> keras.layers.Layer:
    """The norm of the last hidden state; nothing where it is that of the mean of the patches."""
    if config.use_mean_pooling and not config.norm_before_pooling:
        return Identity()
    return layer_norm(config.hidden_size, eps=config.layer_norm_eps)


class MeanPooler(Module):
    """The mean of the patches, with the final norm where that is the mean's, or behind the class token."""

    def __init__(self, config: PretrainedConfig) -> None:
        super().__init__()
        self.pools_class_token = config.pool_class_token
        self.first, norm = config.num_prefix_tokens, not config.norm_before_pooling
        self.layernorm = layer_norm(config.hidden_size, eps=config.layer_norm_eps) if norm else Identity()

    def call(self, hidden_states: Tensor) -> Tensor:
        """(batch, tokens, hidden) -> (batch, pooled_size)."""
        pooled = self.layernorm(ops.mean(hidden_states[:, self.first :], axis=1))
        return ops.concatenate((hidden_states[:, 0], pooled), axis=1) if self.pools_class_token else pooled


def resized_positions(positions: Tensor, old: tuple[int, int], new: Grid) -> Tensor:
    """A position table (1, tokens, hidden) for another patch grid, of known or unknown sides; a class token stays.

    Differs: the kernel is written out (bicubic, a = -0.75, no antialias) as two matrices, in float32 or wider;
    tf.image.resize has another one (a = -0.5).
    """
    sides = new.rows, new.columns
    positions = ops.convert_to_tensor(positions)
    if not any(map(tf.is_tensor, sides)) and old == sides:
        return positions
    first = positions.shape[1] - old[0] * old[1]
    rows, columns = (axis_matrix(o, n, at_least_float32(positions.dtype)) for o, n in zip(old, sides, strict=True))
    hidden = positions.shape[2]
    grid = ops.reshape(ops.cast(positions[0, first:], rows.dtype), (old[0], old[1] * hidden))
    grid = ops.reshape(ops.matmul(rows, grid), (new.rows, old[1], hidden))  # (rows, columns, hidden)
    patches = ops.reshape(ops.matmul(columns, grid), (1, new.patches, hidden))
    return ops.concatenate((positions[:, :first], ops.cast(patches, positions.dtype)), axis=1)  # (1, tokens, hidden)


def axis_matrix(old: int, new: Any, dtype: str) -> Tensor:
    """`vit_core.positions.resize_matrix`, for a `new` that may be a tensor: (new, old)."""
    return traced_matrix(old, new, dtype) if tf.is_tensor(new) else ops.cast(resize_matrix(old, new), dtype)


def traced_matrix(old: int, new: Tensor, dtype: str) -> Tensor:
    """`axis_matrix` as tensor operations, right for every size that the graph meets.

    Places are whole numbers of 1 / (2 * new) points, so that float32 loses nothing on long axes.
    """
    points, samples = tf.range(old), tf.range(new)
    places = (2 * samples + 1) * old + new  # one point on, so that none is negative
    first = places // (2 * new)
    offset = ops.cast(places - first * (2 * new), dtype) / ops.cast(2 * new, dtype)  # (new,)
    matrix = tf.zeros((), dtype)
    for tap, weight in zip((-2, -1, 0, 1), cubic_weights(offset), strict=True):
        is_at = tf.clip_by_value(first + tap, 0, old - 1)[:, None] == points  # (new, old)
        matrix = matrix + tf.where(is_at, weight[:, None], tf.zeros((), dtype))
    return matrix


def kept_of(patches: Any, mask_ratio: float) -> Any:
    """How many patches an encoder sees: a number, or a tensor where their number is one.

    Raises:
        InputError: the ratio is none, or keeps no patch.
    """
    if not tf.is_tensor(patches):
        return num_kept(patches, mask_ratio)
    num_kept(2**53, mask_ratio)  # the ratio is one; that it keeps a patch is checked when the graph runs
    try:
        times, plus, over = kept_fraction(mask_ratio)  # in whole numbers: LiteRT has no doubles
        kept = (patches * times + plus) // over
    except InputError:  # rounding decides
        kept = tf.cast(tf.cast(patches, tf.float64) * (1 - float(mask_ratio)), tf.int32)
    with tf.control_dependencies([tf.debugging.assert_positive(kept, f"mask_ratio: {mask_ratio} keeps no patch")]):
        return tf.identity(kept)


def masking_noise(noise: Tensor, kept: Any) -> Tensor:
    """Noise in float32, all of it equal where every patch is kept: a stable sort then leaves them in image order."""
    noise, patches = ops.cast(noise, "float32"), ops.shape(noise)[1]
    if tf.is_tensor(kept):
        return noise * ops.cast(kept < patches, "float32")
    return ops.zeros_like(noise) if kept == patches else noise


def stable_order(noise: Tensor) -> tuple[Tensor, Tensor]:
    """The places of numbers (batch, patches) by rising value, equal ones as they stand, and the inverse of that."""
    order = tf.argsort(noise, axis=1, direction="ASCENDING", stable=True)
    return order, tf.argsort(order, axis=1, direction="ASCENDING", stable=True)


class PixelShuffle(keras.layers.Layer):
    """Spreads channels over pixels: (batch, rows, columns, channels * step * step) -> (batch, channels, height, width).

    Differs: channels come first in the last axis, as in torch; tf.nn.depth_to_space has them last.
    """

    def __init__(self, step: int) -> None:
        super().__init__(autocast=False)  # nothing is computed here
        self.step = step

    def call(self, patches: Tensor) -> Tensor:
        """The pixels."""
        batch, rows, columns, depth = ops.shape(patches)
        step, channels = self.step, depth // self.step**2
        pixels = ops.reshape(patches, (batch, rows, columns, channels, step, step))
        pixels = ops.transpose(pixels, (0, 3, 1, 4, 2, 5))
        return ops.reshape(pixels, (batch, channels, rows * step, columns * step))


class Repeatable(keras.layers.Dropout):
    """What drops at random, and can drop the same again."""

    def next_seed(self) -> Tensor:
        """What is dropped next is drawn from it: (2,)."""
        seeds = _seeds.get()
        seed = self.seed_generator.next() if seeds is None else next(seeds[id(self)])
        return tf.cast(seed % (2**31 - 1), tf.int32)  # XLA draws from nothing wider


class Dropout(Repeatable):
    """Dropout of single numbers."""

    def call(self, inputs: Tensor, training: bool = False) -> Tensor:
        """The inputs; in training a share `rate` of them is zero, and the others are scaled up."""
        if not training or self.rate == 0:
            return inputs
        return tf.nn.experimental.stateless_dropout(inputs, self.rate, seed=self.next_seed(), rng_alg="auto_select")


class DropPath(Repeatable):
    """Stochastic depth: in training a branch of a layer is left out for some images, and the others make up for it.

    Args:
        rate: how likely the branch is left out.

    Source: Huang et al., Deep Networks with Stochastic Depth (2016), with the scale in training, as timm has it.
    """

    def call(self, branch: Tensor, left_out: Tensor | None = None, training: bool = False) -> Tensor:
        """(batch, tokens, hidden) -> the same; left_out: (batch,), bool, drawn in training unless given."""
        if left_out is None:
            if not training or self.rate == 0:
                return branch
            left_out = tf.random.stateless_uniform(ops.shape(branch)[:1], self.next_seed()) < self.rate
        kept = ops.cast(ops.logical_not(left_out), branch.dtype) / (1 - self.rate)  # (batch,)
        return branch * kept[:, None, None]


def recomputed(layer: keras.layers.Layer, hidden_states: Tensor, *masks: Tensor | None, **arguments: Any) -> Any:
    """The outputs of a ViTLayer, computed again in the backward pass, where its dropouts drop what they dropped."""
    dropouts = [part for part in _keras.layers_of(layer) if isinstance(part, Repeatable) and part.rate > 0]
    seeds = {
        id(dropout): [dropout.seed_generator.next() for _ in range(2)] for dropout in dropouts
    }  # two calls at most

    def run(x: Tensor) -> Any:
        with setting(_seeds, {key: iter(drawn) for key, drawn in seeds.items()}):
            hidden_states, probabilities = layer(x, *masks, training=True, **arguments)
        return (hidden_states,) if probabilities is None else (hidden_states, probabilities)

    hidden_states, *probabilities = keras.remat(run)(hidden_states)
    return hidden_states, probabilities[0] if probabilities else None


def masked_error(pixel_values: Tensor, reconstruction: Tensor, bool_masked_pos: Tensor, step: int) -> Tensor:
    """Mean absolute error over the masked pixels, in float32 or wider: ().

    Args:
        pixel_values: (batch, channels, height, width), as large as the reconstruction or larger.
        reconstruction: (batch, channels, height, width).
        bool_masked_pos: (batch, patches), 1 = masked.
        step: side of a patch.
    """
    batch, channels, height, width = ops.shape(reconstruction)
    mask = ops.cast(bool_masked_pos, at_least_float32(reconstruction.dtype))
    mask = ops.reshape(mask, (batch, height // step, width // step))  # (batch, rows, columns)
    mask = ops.repeat(ops.repeat(mask, step, axis=1), step, axis=2)[:, None]  # (batch, 1, height, width)
    pixels = ops.cast(pixel_values[:, :, :height, :width], mask.dtype)
    error = ops.absolute(pixels - ops.cast(reconstruction, mask.dtype))
    return ops.sum(error * mask) / (ops.sum(mask) + 1e-5) / channels


def cross_entropy(logits: Tensor, labels: Tensor, sample_weight: Tensor | None = None) -> Tensor:
    """Mean negative log-likelihood over the labels that are not -100: ().

    Args:
        logits: (batch, classes).
        labels: (batch,), integers of any width.
        sample_weight: (batch,), a factor of each label's loss; the divisor stays the number of labels.

    Differs: a label outside the classes makes the loss NaN on every device, compiled or not.
    """
    labels = ops.cast(labels, "int64")
    kept = labels != IGNORED_LABEL
    known = (labels >= 0) & (labels < logits.shape[1])
    picked = tf.gather(ops.log_softmax(logits, axis=-1), ops.where(known, labels, 0), batch_dims=1)  # (batch,)
    losses = ops.where(known, -picked, ops.where(kept, float("nan"), 0.0))
    losses = weighted(losses, sample_weight)
    return ops.sum(losses) / ops.cast(ops.count_nonzero(kept), losses.dtype)


def squared_error(outputs: Tensor, targets: Tensor, sample_weight: Tensor | None = None) -> Tensor:
    """Mean squared error, that of each image times its weight: ()."""
    return ops.mean(weighted(ops.square(outputs - targets), sample_weight))


def binary_cross_entropy(logits: Tensor, targets: Tensor, sample_weight: Tensor | None = None) -> Tensor:
    """Mean negative log-likelihood of targets from 0 to 1, that of each image times its weight: ()."""
    losses = tf.nn.sigmoid_cross_entropy_with_logits(labels=targets, logits=logits)
    return ops.mean(weighted(losses, sample_weight))


def weighted(losses: Tensor, sample_weight: Tensor | None) -> Tensor:
    """Losses (batch, ...), those of each image times its weight, where there are weights (batch,)."""
    if sample_weight is None:
        return losses
    shape = (-1, *(1 for _ in losses.shape[1:]))
    return losses * ops.reshape(ops.cast(sample_weight, losses.dtype), shape)
