"""What a run takes of memory and of work, by arithmetic, and what memory there is."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from vit_core.config import pair, patch_grid
from vitriad.training.setup import Setup

_GROUPS = Path("/sys/fs/cgroup")  # where Linux says what a container may take


class Sizes(NamedTuple):
    """What a run takes, on each of its devices.

    Attributes:
        parameters, trained: numbers in the model, and those of them that are trained.
        fixed: bytes of weights, gradients, moments and the average.
        of_image: bytes of what is kept of an image for the backward pass.
        images: that a device computes at a time.
        checkpoint: bytes of last/ on the disk.
        work: floating-point operations of a step, for each image.
    """

    parameters: int
    trained: int
    fixed: int
    of_image: int
    images: int
    checkpoint: int
    work: int

    def bytes(self, images: int | None = None) -> int:
        """Of memory for so many images at a time."""
        return self.fixed + (self.images if images is None else images) * self.of_image


class _Stack(NamedTuple):
    """Layers of one size, and how many tokens of an image go through them."""

    tokens: int
    layers: int
    hidden: int
    mlp: int
    heads: int


def sizes_of(setup: Setup, trained: set[str], devices: int = 1, *, is_sharded: bool = False) -> Sizes:
    """What a run takes, by arithmetic; frameworks take some hundred megabytes more, and images in work a few.

    Of a token a layer keeps 10 numbers for each of hidden and 2 for each of mlp: the inputs of its products, norms and
    activation; of the former 4 stay float32 in mixed precision. Eager attention keeps its map, in mixed precision
    twice. Recomputed layers keep their input, and one layer at a time the rest. Copies of a model (DDP) have a second
    set of gradients, to exchange them; shares (FSDP) are gathered by layers, weights and gradients. A masked
    autoencoder keeps 5 numbers for a pixel. tests/vit_torch/test_training_memory.py holds this to measured peaks.

    Source: the count of Korthikanti et al., Reducing Activation Recomputation (2022), section 4.
    """
    recipe = setup.recipe
    count = sum(array.size for array in setup.tensors.values())
    moving = sum(setup.tensors[name].size for name in trained)
    copies = 3 + (recipe.average is not None) + recipe.recompute
    fixed = 4 * (count + moving * copies)
    if is_sharded:
        fixed = fixed // devices + 8 * _largest_unit(setup)
    elif devices > 1:
        fixed += 4 * moving
    images = math.ceil(math.ceil(recipe.batch_size / recipe.accumulate) / devices)
    checkpoint = 4 * (count + moving * 2 + (count if recipe.average else 0))
    return Sizes(count, moving, fixed, _kept(setup), images, checkpoint, _work(setup))


def _stacks(setup: Setup) -> list[_Stack]:
    recipe, config = setup.recipe, setup.config
    patches = math.prod(patch_grid(config))
    seen = math.ceil(patches * (1 - recipe.mask_ratio)) if recipe.objective == "mae" else patches
    names = ("num_hidden_layers", "hidden_size", "intermediate_size", "num_attention_heads")
    stacks = [_Stack(seen + 1, *(getattr(config, name) for name in names))]
    if recipe.objective == "mae":
        stacks.append(_Stack(patches + 1, *(getattr(config, f"decoder_{name}") for name in names)))
    return stacks


def _kept(setup: Setup) -> int:
    """Bytes of what is kept of an image for the backward pass."""
    recipe, is_mixed = setup.recipe, setup.recipe.precision != "float32"
    layers, inputs = [], 0
    stacks = _stacks(setup)
    for tokens, _, hidden, mlp, heads in stacks:
        numbers = tokens * ((28 if is_mixed else 40) * hidden + (4 if is_mixed else 8) * mlp)
        has_map = setup.config.attn_implementation == "eager"
        layers.append(numbers + (heads * tokens**2 * (6 if is_mixed else 4) if has_map else 0))
    pixels = 4 * math.prod(pair(setup.config.image_size)) * setup.config.num_channels
    painted = 0 if recipe.objective == "classification" else pixels * (3 if recipe.recompute else 5)
    if recipe.recompute:
        inputs = sum(4 * stack.layers * stack.tokens * stack.hidden for stack in stacks)
        return max(layers) + inputs + painted
    return sum(stack.layers * layer for stack, layer in zip(stacks, layers, strict=True)) + painted


def _work(setup: Setup) -> int:
    """Floating-point operations of forward and backward pass: two for each product of the one, four of the other."""
    config, recipe = setup.config, setup.recipe
    products: int = 0
    for tokens, layers, hidden, mlp, _ in _stacks(setup):
        products += layers * tokens * (4 * hidden**2 + 2 * hidden * mlp + 2 * tokens * hidden)
    of_patch = math.prod(pair(config.patch_size)) * config.num_channels
    patches = math.prod(patch_grid(config))
    ends: int = patches * of_patch * config.hidden_size
    if recipe.objective == "mae":
        seen, wide = math.ceil(patches * (1 - recipe.mask_ratio)) + 1, config.decoder_hidden_size
        ends += patches * of_patch * wide + seen * config.hidden_size * wide
    return (8 if recipe.recompute else 6) * products + 6 * ends


def _largest_unit(setup: Setup) -> int:
    """Numbers in the largest part of a model that is gathered as a whole: a layer, or all that is in none."""
    units: dict[str, int] = {}
    for name, array in setup.tensors.items():
        before, is_layer, after = name.partition("layer.")
        if not is_layer:
            before, is_layer, after = name.partition("decoder_layers.")
        unit = f"{before}{after.split('.')[0]}" if is_layer else ""
        units[unit] = units.get(unit, 0) + array.size
    return max(units.values())


# --- what there is ---------------------------------------------------------------------------------------------------


def free_bytes() -> int | None:
    """Memory that this process can still get of its machine or its container; None where the system does not say."""
    return min(_said(), default=None)


def _said() -> Iterator[int]:
    """What the machine has left, and each control group that this process is in."""
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
        yield next(int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable"))
    except (OSError, StopIteration):
        pass
    for folder in _groups():
        try:
            limit = int((folder / "memory.max").read_text())  # ValueError: "max"
            statistics = dict(line.split() for line in (folder / "memory.stat").read_text().splitlines())
            taken = int((folder / "memory.current").read_text())
            yield max(0, limit - taken + int(statistics.get("inactive_file", 0)))  # which is given back when asked for
        except (OSError, ValueError):
            continue


def _groups() -> Iterator[Path]:
    """The control group (version 2) of this process, and those around it."""
    try:
        lines = Path("/proc/self/cgroup").read_text().splitlines()
    except OSError:
        return
    own = next((line[4:] for line in lines if line.startswith("0::/")), "")
    folder = _GROUPS / own
    while True:
        yield folder
        if folder == _GROUPS or folder == folder.parent:
            return
        folder = folder.parent
