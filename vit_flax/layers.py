"""The modules that models are made of: Linen's own with no default left open, and what Linen does not have.

Every parameter is created in float32 or wider; modules compute in `dtype`, to which they cast parameters and inputs.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from jax import Array

from vit_core.config import PretrainedConfig, patch_grid
from vit_core.inputs import IGNORED_LABEL, Grid
from vit_core.masking import kept_fraction, num_kept
from vit_core.parameters import Initialiser, weights_of
from vit_core.positions import cubic_weights, resize_matrix, sincos_table

ZEROS, ONES = nn.initializers.zeros_init(), nn.initializers.ones_init()


def at_least_float32(dtype: Any) -> np.dtype[Any]:
    """float32, or float64 for float64: the dtype of parameters, softmax, losses and position resizing."""
    return np.dtype(np.float64 if dtype == jnp.float64 else np.float32)


def is_known(side: Any) -> bool:
    """Whether a side is a number, not a symbol of jax.export."""
    return isinstance(side, int)


def static(*sides: Any) -> tuple[int | None, ...]:
    """Sides for checks that only refuse: None for symbols."""
    return tuple(side if is_known(side) else None for side in sides)


def grid_of(pixel_values: Array, patch: tuple[int, int]) -> Grid:
    """The patch grid of images, counted as the projection counts: symbols then come out the same."""
    height, width = pixel_values.shape[2:]
    return Grid((height - patch[0]) // patch[0] + 1, (width - patch[1]) // patch[1] + 1)


def initialiser(init: Initialiser, config: Any = None) -> Callable[..., Array]:
    """A function of (key, shape, dtype) that fills a fresh parameter; "sincos" needs the configuration's patch grid.

    Differs: the truncated normal is cut at -2 and 2; jax.nn.initializers cut at two deviations and scale by the fan.
    """
    kind, value = init

    def fill(key: Array, shape: tuple[int, ...], dtype: Any) -> Array:
        if kind == "trunc_normal":
            return value * jax.random.truncated_normal(key, -2 / value, 2 / value, shape, dtype)
        if kind == "normal":
            return value * jax.random.normal(key, shape, dtype)
        if kind == "uniform":
            return jax.random.uniform(key, shape, dtype, minval=-value, maxval=value)
        if kind == "sincos":
            return jnp.asarray(sincos_table(shape[-1], *patch_grid(config)), dtype)
        return jnp.full(shape, value, dtype)

    return fill


def as_rows(x: Array) -> Array:
    """(..., features) -> (rows, features).

    Norms and dense layers compute in two axes: with three, XLA on CPUs transposes gradients before it multiplies them,
    and computes those of all later layers again in each layer: a training step grows with the square of the depth.
    """
    return x.reshape(math.prod(x.shape[:-1]), x.shape[-1])


class Linear(nn.Dense):
    """Linen's dense layer, over rows."""

    def __call__(self, inputs: Array) -> Array:
        """(..., features) -> (..., units)."""
        outputs: Array = super().__call__(as_rows(inputs))
        return outputs.reshape(*inputs.shape[:-1], self.features)


class LayerNorm(nn.LayerNorm):
    """Linen's norm, over rows."""

    def __call__(self, x: Array, *, mask: Array | None = None) -> Array:
        """(..., features) -> the same. Models give no mask."""
        outputs: Array = super().__call__(as_rows(x), mask=mask)
        return outputs.reshape(x.shape)


def attended(query: Array, key: Array, value: Array, block: int = 1024) -> Array:
    """softmax(query key^T) value, of a scaled query; each (batch, heads, tokens, head_dim).

    Known tokens beyond a block of queries take one block after the other, and their probabilities are computed again in
    the backward pass: memory grows with the tokens, not with their square.

    Differs: written out, because jax.nn.dot_product_attention holds every score where there is no cuDNN, and takes the
    softmax of float64 in float32.
    """

    def of(queries: Array) -> Array:
        scores = queries @ key.swapaxes(2, 3)
        return jax.nn.softmax(scores.astype(at_least_float32(scores.dtype)), axis=-1).astype(value.dtype) @ value

    batch, heads, tokens, head_dim = query.shape
    if not isinstance(tokens, int) or tokens <= block:
        return of(query)
    blocks = -(-tokens // block)
    size = -(-tokens // blocks)
    filled = jnp.pad(query, ((0, 0), (0, 0), (0, blocks * size - tokens), (0, 0)))
    queries = filled.reshape(batch, heads, blocks, size, head_dim).transpose(2, 0, 1, 3, 4)
    contexts = jax.lax.map(jax.checkpoint(of), queries).transpose(1, 2, 0, 3, 4)
    return contexts.reshape(batch, heads, blocks * size, head_dim)[:, :, :tokens]


def linear(config: PretrainedConfig, units: int, dtype: Any, use_bias: bool = True) -> Linear:
    """A dense layer. Matrix products follow `jax.default_matmul_precision`: only CPUs have full float32 by default."""
    return Linear(
        units,
        use_bias=use_bias,
        dtype=dtype,
        param_dtype=at_least_float32(dtype),
        precision=None,
        kernel_init=initialiser(weights_of(config)),
        bias_init=ZEROS,
    )


def convolution(
    config: PretrainedConfig, features: int, window: tuple[int, int], dtype: Any, init: Initialiser | None = None
) -> nn.Conv:
    """A convolution of channels-last images whose windows do not overlap."""
    return nn.Conv(
        features,
        kernel_size=window,
        strides=window,
        padding="VALID",
        use_bias=True,
        dtype=dtype,
        param_dtype=at_least_float32(dtype),
        precision=None,
        kernel_init=initialiser(init or weights_of(config)),
        bias_init=ZEROS,
    )


def layer_norm(config: PretrainedConfig, dtype: Any) -> LayerNorm:
    """A norm over the last axis, in float32 or wider.

    Differs: the variance takes two passes; Flax's faster E[x^2] - E[x]^2 loses all digits where the mean is large.
    """
    return LayerNorm(
        epsilon=config.layer_norm_eps,
        dtype=dtype,
        param_dtype=at_least_float32(dtype),
        use_bias=True,
        use_scale=True,
        bias_init=ZEROS,
        scale_init=ONES,
        reduction_axes=-1,
        feature_axes=-1,
        use_fast_variance=False,
        force_float32_reductions=dtype != jnp.float64,
    )


class Module(nn.Module):
    """A module with parameters of its own. Subclasses have a field `dtype`."""

    def parameter(self, name: str, shape: tuple[int, ...], init: Any, trainable: bool = True) -> Array:
        """One parameter of this module, in the dtype of the computation; what is not trainable gets no gradient."""
        fill = init if callable(init) else initialiser(init)
        value = self.param(name, fill, shape, at_least_float32(self.dtype)).astype(self.dtype)
        return value if trainable else jax.lax.stop_gradient(value)


class ModuleDict(nn.Module):
    """Modules by name, each given as the function that makes it: one more step in the paths of their parameters."""

    makers: Mapping[str, Callable[[], Any]]

    def setup(self) -> None:
        """Makes the modules."""
        for name, make in self.makers.items():
            setattr(self, name, make())

    @nn.nowrap
    def __getitem__(self, name: str) -> Any:
        return getattr(self, name)


class ModuleList(nn.Module):
    """Modules named "0", "1", … as those of a list of torch, each given as the function that makes it."""

    makers: Sequence[Callable[[], Any]]

    def setup(self) -> None:
        """Makes the modules."""
        for i, make in enumerate(self.makers):
            setattr(self, str(i), make())

    @nn.nowrap
    def __iter__(self) -> Iterator[Any]:
        return (getattr(self, str(i)) for i in range(len(self.makers)))


class Sequential(ModuleList):
    """Modules one after the other."""

    def __call__(self, x: Array) -> Array:
        """The outputs of the last module."""
        for part in self:
            x = part(x)
        return x


class Identity(nn.Module):
    """What stands in place of a module that a model does without."""

    def __call__(self, x: Array) -> Array:
        """The input."""
        return x


def dropout(rate: float) -> nn.Dropout:
    """Dropout of single numbers, by the keys named "dropout"."""
    return nn.Dropout(rate=rate, broadcast_dims=(), rng_collection="dropout")


class DropPath(nn.Module):
    """Stochastic depth: in training a branch of a layer is left out for some images, and the others make up for it.

    Attributes:
        rate: how likely the branch is left out, by the keys named "dropout".

    Source: Huang et al., Deep Networks with Stochastic Depth (2016), with the scale in training, as timm has it.
    """

    rate: float

    def __call__(self, branch: Array, left_out: Array | None = None, deterministic: bool = True) -> Array:
        """(batch, tokens, hidden) -> the same; left_out: (batch,), bool, drawn in training unless given."""
        if left_out is None:
            if deterministic or self.rate == 0:
                return branch
            left_out = jax.random.bernoulli(self.make_rng("dropout"), self.rate, branch.shape[:1])
        kept = jnp.logical_not(left_out).astype(branch.dtype) / (1 - self.rate)  # (batch,)
        return branch * kept[:, None, None]


class LayerScale(Module):
    """Multiplies a branch of a layer by one number for each of its features, where the configuration asks for it.

    Source: Touvron et al., Going deeper with Image Transformers (2021), section 2; named as in transformers' Dinov2.
    """

    config: PretrainedConfig
    hidden_size: int
    dtype: Any

    def setup(self) -> None:
        """Makes the parameter."""
        value, shape = self.config.layerscale_value, (self.hidden_size,)
        init = Initialiser("constant", value or 0.0)
        self.lambda1: Any = None if value is None else self.parameter("lambda1", shape, init)

    def __call__(self, branch: Array) -> Array:
        """(batch, tokens, hidden) -> the same."""
        return branch if self.lambda1 is None else branch * self.lambda1[None, None]


def with_registers(embeddings: Array, registers: Array | None, cls_token: Array | None) -> Array:
    """(batch, tokens, hidden) with registers behind the class token, if there is one; they have no positions."""
    if registers is None:
        return embeddings
    registers = jnp.broadcast_to(registers, (embeddings.shape[0], *registers.shape[1:]))
    first = 0 if cls_token is None else 1
    return jnp.concatenate((embeddings[:, :first], registers, embeddings[:, first:]), axis=1)


def final_norm(config: PretrainedConfig, dtype: Any) -> nn.Module:
    """The norm of the last hidden state; nothing where it is that of the mean of the patches."""
    return Identity() if config.use_mean_pooling and not config.norm_before_pooling else layer_norm(config, dtype)


class MeanPooler(nn.Module):
    """The mean of the patches, with the final norm where that is the mean's, or behind the class token."""

    config: PretrainedConfig
    dtype: Any

    def setup(self) -> None:
        """Makes the parts."""
        self.layernorm = Identity() if self.config.norm_before_pooling else layer_norm(self.config, self.dtype)

    def __call__(self, hidden_states: Array) -> Array:
        """(batch, tokens, hidden) -> (batch, pooled_size)."""
        pooled: Array = self.layernorm(hidden_states[:, self.config.num_prefix_tokens :].mean(axis=1))
        return jnp.concatenate((hidden_states[:, 0], pooled), axis=1) if self.config.pool_class_token else pooled


def recomputed(layer: type[nn.Module]) -> Any:
    """A ViTLayer whose activations are computed again in the backward pass."""
    return nn.remat(layer, static_argnums=(3, 4))  # of __call__: output_attentions and deterministic


def resized_positions(positions: Array, old: tuple[int, int], new: Grid) -> Array:
    """A position table (1, tokens, hidden) for another patch grid, of known or unknown sides; a class token stays.

    Differs: the kernel is written out (bicubic, a = -0.75, no antialias) as two matrices, in float32 or wider;
    jax.image.resize has another one (a = -0.5, antialiased).
    """
    sides = new.rows, new.columns
    if all(map(is_known, sides)) and old == sides:
        return positions
    first = positions.shape[1] - old[0] * old[1]
    rows, columns = (axis_matrix(o, n, at_least_float32(positions.dtype)) for o, n in zip(old, sides, strict=True))
    hidden = positions.shape[2]
    grid = positions[0, first:].astype(rows.dtype).reshape(old[0], old[1] * hidden)
    grid = (rows @ grid).reshape(new.rows, old[1], hidden)  # (rows, columns, hidden)
    patches = (columns @ grid).reshape(1, new.patches, hidden)
    return jnp.concatenate((positions[:, :first], patches.astype(positions.dtype)), axis=1)  # (1, tokens, hidden)


def axis_matrix(old: int, new: Any, dtype: Any) -> Array:
    """`vit_core.positions.resize_matrix`, for a `new` that may be a symbol: (new, old)."""
    return jnp.asarray(resize_matrix(old, new), dtype) if is_known(new) else traced_matrix(old, new, dtype)


def traced_matrix(old: int, new: Any, dtype: Any) -> Array:
    """`axis_matrix` as array operations, right for every size that the program meets: `new` may be a symbol.

    Places are whole numbers of 1 / (2 * new) points, so that float32 loses nothing on long axes; no size is compared
    with another one. Columns are multiplied out, not broadcast: translators to ONNX know no symbols there.
    """

    def across(column: Array) -> Array:  # (new,) -> (new, old)
        return jnp.matmul(column.reshape(new, 1), jnp.ones((1, old), dtype), precision=jax.lax.Precision.HIGHEST)

    points, size = jnp.arange(old, dtype=dtype).reshape(1, old), jnp.asarray(2 * new, jnp.int32)
    samples = jax.lax.iota(jnp.int32, new)
    places = (2 * samples + 1) * old + new  # one point on, so that none is negative
    first = jax.lax.div(places, jnp.zeros_like(places) + size)  # `//` looks at signs, which few translators know
    offset = (places - first * size).astype(dtype) / size.astype(dtype)  # (new,)
    matrix = jnp.zeros((), dtype)
    for tap, weight in zip((-2, -1, 0, 1), cubic_weights(offset), strict=True):
        place = jnp.clip(first + tap, 0, old - 1).astype(dtype)
        matrix = matrix + jnp.where(across(place) == points, across(weight), 0)  # (new, old)
    return matrix


def kept_of(patches: Any, mask_ratio: float) -> Any:
    """How many patches an encoder sees: a number, or a symbol where their number is one.

    Raises:
        InputError: the ratio is none, or keeps no patch.
    """
    if is_known(patches):
        return num_kept(patches, mask_ratio)
    times, plus, over = kept_fraction(mask_ratio)
    return (patches * times + plus) // over


def masking_noise(noise: Array, kept: Any) -> Array:
    """Noise in float32, all of it equal where every patch is kept: a stable sort then leaves them in image order."""
    noise = noise.astype(jnp.float32)
    return jnp.zeros_like(noise) if kept == noise.shape[1] else noise


def stable_order(noise: Array) -> tuple[Array, Array]:
    """The places of numbers (batch, patches) by rising value, equal ones as they stand, and the inverse of that."""
    order = jnp.argsort(noise, axis=1, stable=True, descending=False)
    return order, jnp.argsort(order, axis=1, stable=True, descending=False)


class PixelShuffle(nn.Module):
    """Spreads channels over pixels: (batch, rows, columns, channels * step * step) -> (batch, channels, height, width).

    Differs: channels come first in the last axis, as in torch.
    """

    step: int

    def __call__(self, patches: Array) -> Array:
        """The pixels."""
        batch, rows, columns, depth = patches.shape
        step, channels = self.step, depth // self.step**2
        pixels = patches.reshape(batch, rows, columns, channels, step, step)
        return pixels.transpose(0, 3, 1, 4, 2, 5).reshape(batch, channels, rows * step, columns * step)


def masked_error(pixel_values: Array, reconstruction: Array, bool_masked_pos: Array, step: int) -> Array:
    """Mean absolute error over the masked pixels, in float32 or wider: ().

    Args:
        pixel_values: (batch, channels, height, width), as large as the reconstruction or larger.
        reconstruction: (batch, channels, height, width).
        bool_masked_pos: (batch, patches), 1 = masked.
        step: side of a patch.
    """
    batch, channels, height, width = reconstruction.shape
    mask = bool_masked_pos.astype(at_least_float32(reconstruction.dtype)).reshape(batch, height // step, width // step)
    mask = mask.repeat(step, axis=1).repeat(step, axis=2)[:, None]  # (batch, 1, height, width)
    error = jnp.abs(pixel_values[:, :, :height, :width].astype(mask.dtype) - reconstruction.astype(mask.dtype))
    return (error * mask).sum() / (mask.sum() + 1e-5) / channels


def cross_entropy(logits: Array, labels: Array) -> Array:
    """Mean negative log-likelihood over the labels that are not -100: ().

    Args:
        logits: (batch, classes).
        labels: (batch,), integers of any width.

    Differs: a label outside the classes makes the loss NaN, where JAX's indexing would clamp or wrap it.
    """
    kept = labels != IGNORED_LABEL
    known = (labels >= 0) & (labels < logits.shape[1])
    picked = jnp.take_along_axis(jax.nn.log_softmax(logits, axis=-1), jnp.where(known, labels, 0)[:, None], axis=1)[
        :, 0
    ]
    losses = jnp.where(known, -picked, jnp.where(kept, jnp.nan, 0.0).astype(logits.dtype))
    return losses.sum() / kept.sum().astype(logits.dtype)


def squared_error(outputs: Array, targets: Array) -> Array:
    """Mean squared error: ()."""
    return jnp.square(outputs - targets).mean()


def binary_cross_entropy(logits: Array, targets: Array) -> Array:
    """Mean negative log-likelihood of targets from 0 to 1: ()."""
    return -(targets * jax.nn.log_sigmoid(logits) + (1 - targets) * jax.nn.log_sigmoid(-logits)).mean()
