"""What models are made of beside torch's own modules: patches by one product, position tables for any grid, losses."""

from __future__ import annotations

import warnings
from functools import cache
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vit_core.config import PretrainedConfig
from vit_core.errors import InputError
from vit_core.inputs import IGNORED_LABEL, Grid
from vit_core.masking import kept_fraction, num_kept
from vit_core.positions import cubic_weights, resize_matrix


@cache
def keep_freed_memory() -> None:
    """Once in a process: what results leave free, up to 64 MiB at a time, is kept for the next ones.

    glibc keeps twice the largest block that was freed so far, of 32 MiB at most, and gives the rest back to the system,
    which hands it out anew page by page. So one such block is asked for and, never touched, freed.

    Source: mallopt(3), on M_MMAP_THRESHOLD.
    """
    largest = 2**25 - 2**14  # bytes; the rest is for what is kept beside a block
    torch.empty(largest, dtype=torch.uint8, device="cpu")


def at_least_float32(dtype: torch.dtype) -> torch.dtype:
    """float32, or float64 for float64: the dtype of softmax, losses and position resizing."""
    return torch.promote_types(dtype, torch.float32)


def is_known(side: Any) -> bool:
    """Whether a side is a number, not something that only the traced or compiled program will know."""
    if torch.compiler.is_compiling():
        return bool(torch.fx.experimental.symbolic_shapes.has_static_value(side))
    return isinstance(side, int)


def is_exporting() -> bool:
    """Whether torch.export records; torch 2.10 says so wherever torch.compile does, but for the flag behind it."""
    return torch.compiler.is_exporting() and bool(getattr(torch.compiler, "_is_exporting_flag", True))


def is_tracing() -> bool:
    """Whether torch.jit.trace records: OpenVINO's converter and the older exporters do."""
    return bool(torch.jit.is_tracing())  # type: ignore[attr-defined]


def is_settled(side: Any) -> bool:
    """Whether Python may decide by a side: torch.compile makes another program where a decision comes out otherwise."""
    return is_known(side) or (torch.compiler.is_compiling() and not is_exporting())


def static(*sides: Any) -> tuple[int | None, ...]:
    """Sides for checks that only refuse: those of the example under torch.jit.trace, None for symbols of an export."""
    if is_tracing():
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", torch.jit.TracerWarning)  # type: ignore[attr-defined]  # nothing of it stays in the program
            return tuple(map(int, sides))
    return tuple(side if is_settled(side) else None for side in sides)


def grid_of(pixel_values: Tensor, patch: tuple[int, int]) -> Grid:
    """The patch grid of images, counted as the projection counts: symbols then come out the same."""
    height, width = pixel_values.shape[2:]
    return Grid((height - patch[0]) // patch[0] + 1, (width - patch[1]) // patch[1] + 1)


class PatchConv2d(nn.Conv2d):
    """The convolution whose kernels lie side by side, as one matrix product; its weights and results are Conv2d's.

    Differs: the product is faster than the convolution (1.3 times in float32 and 2 in bfloat16 on a CPU), and on a GPU
    it is rounded as the other products are: cuDNN's convolutions take TF32 unless they are told not to. Exported
    programs have the convolution, which is right at every size.
    """

    def __init__(self, in_channels: int, out_channels: int, side: int | tuple[int, int]) -> None:
        super().__init__(in_channels, out_channels, kernel_size=side, stride=side)

    def forward(self, input: Tensor) -> Tensor:
        """(batch, channels, height, width) -> (batch, hidden, rows, columns); a rest that fills no patch is unseen."""
        (height, width), (down, across) = input.shape[2:], self.kernel_size
        if is_exporting() or is_tracing() or not (is_known(height) and is_known(width)):
            return super().forward(input)
        rows, columns = height // down, width // across
        patches = (
            input[:, :, : rows * down, : columns * across].unflatten(3, (columns, across)).unflatten(2, (rows, down))
        )
        patches = patches.permute(0, 2, 4, 1, 3, 5).flatten(3)  # (batch, rows, columns, channels * down * across)
        return F.linear(patches, self.weight.flatten(1), self.bias).permute(0, 3, 1, 2)


class DropPath(nn.Module):
    """Stochastic depth: in training a branch of a layer is left out for some images, and the others make up for it.

    Args:
        rate: how likely the branch is left out.

    Source: Huang et al., Deep Networks with Stochastic Depth (2016), with the scale in training, as timm has it.
    """

    def __init__(self, rate: float) -> None:
        super().__init__()
        self.rate = rate

    def forward(self, branch: Tensor, left_out: Tensor | None = None) -> Tensor:
        """(batch, tokens, hidden) -> the same; left_out: (batch,), bool, drawn in training unless given."""
        if left_out is None:
            if not self.training or self.rate == 0:
                return branch
            left_out = torch.rand(branch.shape[0], device=branch.device) < self.rate
        kept = left_out.logical_not().to(branch.dtype) / (1 - self.rate)  # (batch,)
        return branch * kept[:, None, None]

    def extra_repr(self) -> str:
        """What print shows."""
        return f"rate={self.rate:.3g}"


class LayerScale(nn.Module):
    """Multiplies a branch of a layer by one number for each of its features, where the configuration asks for it.

    Source: Touvron et al., Going deeper with Image Transformers (2021), section 2; named as in transformers' Dinov2.
    """

    lambda1: Tensor | None

    def __init__(self, config: PretrainedConfig, hidden_size: int) -> None:
        super().__init__()
        has_scale = config.layerscale_value is not None
        self.register_parameter("lambda1", nn.Parameter(torch.empty(hidden_size)) if has_scale else None)

    def forward(self, branch: Tensor) -> Tensor:
        """(batch, tokens, hidden) -> the same."""
        return branch if self.lambda1 is None else branch * self.lambda1


def with_registers(embeddings: Tensor, registers: Tensor | None, cls_token: Tensor | None) -> Tensor:
    """(batch, tokens, hidden) with registers behind the class token, if there is one; they have no positions."""
    if registers is None:
        return embeddings
    registers, first = registers.expand(embeddings.shape[0], -1, -1), 0 if cls_token is None else 1
    return torch.cat((embeddings[:, :first], registers, embeddings[:, first:]), dim=1)


def final_norm(config: PretrainedConfig) -> nn.Module:
    """The norm of the last hidden state; nothing where it is that of the mean of the patches."""
    if config.use_mean_pooling and not config.norm_before_pooling:
        return nn.Identity()
    return nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)


class MeanPooler(nn.Module):
    """The mean of the patches, with the final norm where that is the mean's, or behind the class token."""

    def __init__(self, config: PretrainedConfig) -> None:
        super().__init__()
        self.pools_class_token = config.pool_class_token
        self.first, norm = config.num_prefix_tokens, not config.norm_before_pooling
        self.layernorm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps) if norm else nn.Identity()

    def forward(self, hidden_states: Tensor) -> Tensor:
        """(batch, tokens, hidden) -> (batch, pooled_size)."""
        pooled: Tensor = self.layernorm(hidden_states[:, self.first :].mean(dim=1))
        return torch.cat((hidden_states[:, 0], pooled), dim=1) if self.pools_class_token else pooled


def resized_positions(positions: Tensor, old: tuple[int, int], new: Grid) -> Tensor:
    """A position table (1, tokens, hidden) for another patch grid, of known or unknown sides; a class token stays.

    Differs: the kernel is written out (bicubic, a = -0.75, no antialias) as two matrices, in float32 or wider;
    F.interpolate would do the same here, the other frameworks' resizes would not.
    """
    sides = new.rows, new.columns
    if all(map(is_known, sides)) and old == sides:
        return positions
    first = positions.shape[1] - old[0] * old[1]
    rows, columns = (axis_matrix(o, n, positions) for o, n in zip(old, sides, strict=True))
    grid = positions[0, first:].to(rows.dtype).unflatten(0, old)  # (rows, columns, hidden)
    grid = (rows @ grid.flatten(1)).unflatten(1, grid.shape[1:])
    patches = (columns @ grid).flatten(0, 1).to(positions.dtype)
    return torch.cat((positions[:, :first], patches[None]), dim=1)  # (1, tokens, hidden)


def axis_matrix(old: int, new: Any, like: Tensor) -> Tensor:
    """`vit_core.positions.resize_matrix` in `at_least_float32(like.dtype)` on the device of `like`: (new, old)."""
    if is_known(new) and not (torch.compiler.is_compiling() or is_tracing()):
        matrix = torch.tensor(resize_matrix(old, new), dtype=at_least_float32(like.dtype))
        return matrix.to(like.device, non_blocking=True)  # a GPU need not have done what came before
    return traced_matrix(old, new, like)


def traced_matrix(old: int, new: Any, like: Tensor) -> Tensor:
    """`axis_matrix` as tensor operations, right for every size that the program meets: `new` may be a symbol.

    Places are whole numbers of 1 / (2 * new) points, so that float32 loses nothing on long axes; no size is compared
    with another one, which would tie the program to the answer.
    """
    points, samples = torch.arange(old, device=like.device), torch.arange(new, device=like.device)
    places = (2 * samples + 1) * old + new  # one point on, so that none is negative
    first = places // (2 * new)
    offset = (places - first * (2 * new)).to(at_least_float32(like.dtype)) / (2 * new)  # (new,)
    matrix = torch.zeros((), dtype=offset.dtype, device=like.device)
    for tap, weight in zip((-2, -1, 0, 1), cubic_weights(offset), strict=True):
        is_at = (first + tap).clamp(0, old - 1)[:, None] == points  # (new, old)
        matrix = matrix + torch.where(is_at, weight[:, None], 0.0)
    return matrix


def cropped(pixel_values: Tensor, height: Any, width: Any) -> Tensor:
    """The upper left part of images: (batch, channels, height, width)."""
    if is_known(height) and is_known(width):
        return pixel_values[:, :, :height, :width]
    rows, columns = (torch.arange(side, device=pixel_values.device) for side in (height, width))
    return pixel_values.index_select(2, rows).index_select(3, columns)  # a slice would compare its end with the side


def kept_of(patches: Any, mask_ratio: float) -> Any:
    """How many patches an encoder sees: a number, or a symbol where their number is one.

    Raises:
        InputError: the ratio is none, or keeps no patch, or torch cannot compute with it while tracing.
    """
    if is_settled(patches):
        return num_kept(patches, mask_ratio)
    if torch.compiler.is_dynamo_compiling():
        raise InputError(
            "mask_ratio: not to be had of a number of patches that is not known while tracing with strict=True.\n"
            "Export with strict=False."
        )
    times, plus, over = kept_fraction(mask_ratio)
    return (patches * times + plus) // over  # that it keeps a patch is checked as the program runs


def masking_noise(noise: Tensor, kept: Any) -> Tensor:
    """Noise in float32, all of it equal where every patch is kept: a stable sort then leaves them in image order."""
    places = torch.arange(noise.shape[1], device=noise.device)
    return noise.float() * (places >= kept).any()


def stable_order(noise: Tensor) -> tuple[Tensor, Tensor]:
    """The places of numbers (batch, patches) by rising value, equal ones as they stand, and the inverse of that.

    Differs: traced programs count what stands before each number: ONNX has no stable sort.
    """
    if not (is_exporting() or is_tracing()):
        order = noise.argsort(dim=1, stable=True)
        return order, order.argsort(dim=1, stable=True)
    places = torch.arange(noise.shape[1], device=noise.device)
    other, own = noise[:, None, :], noise[:, :, None]
    is_before = (other < own) | ((other == own) & (places < places[:, None]))  # (batch, patches, patches)
    ranks = is_before.sum(dim=2)
    return torch.zeros_like(ranks).scatter(1, ranks, places.expand_as(ranks)), ranks


def masked_error(pixel_values: Tensor, reconstruction: Tensor, bool_masked_pos: Tensor, step: int) -> Tensor:
    """Mean absolute error over the masked pixels, in float32 or wider: ().

    Args:
        pixel_values: (batch, channels, height, width), as large as the reconstruction or larger.
        reconstruction: (batch, channels, height, width).
        bool_masked_pos: (batch, patches), 1 = masked.
        step: side of a patch.
    """
    channels, height, width = reconstruction.shape[1:]
    mask = torch.as_tensor(bool_masked_pos, device=reconstruction.device).to(at_least_float32(reconstruction.dtype))
    mask = mask.unflatten(1, (height // step, width // step))  # (batch, rows, columns)
    mask = mask.repeat_interleave(step, 1).repeat_interleave(step, 2)[:, None]  # (batch, 1, height, width)
    error = (cropped(pixel_values, height, width).to(mask.dtype) - reconstruction.to(mask.dtype)).abs()
    return (error * mask).sum() / (mask.sum() + 1e-5) / channels


def cross_entropy(logits: Tensor, labels: Tensor) -> Tensor:
    """Mean negative log-likelihood over the labels that are not -100: ().

    Args:
        logits: (batch, classes).
        labels: (batch,), integers of any width.

    Differs: a label outside the classes makes the loss NaN on every device, compiled or not.
    """
    labels = labels.long()
    kept = labels != IGNORED_LABEL
    known = (labels >= 0) & (labels < logits.shape[1])
    picked = logits.log_softmax(-1).gather(1, torch.where(known, labels, 0)[:, None])[:, 0]  # (batch,)
    losses = torch.where(known, -picked, torch.where(kept, torch.nan, 0.0))
    return losses.sum() / kept.sum()


def squared_error(outputs: Tensor, targets: Tensor) -> Tensor:
    """Mean squared error: ()."""
    return F.mse_loss(outputs, targets, reduction="mean")


def binary_cross_entropy(logits: Tensor, targets: Tensor) -> Tensor:
    """Mean negative log-likelihood of targets from 0 to 1: ()."""
    return F.binary_cross_entropy_with_logits(logits, targets, reduction="mean")
