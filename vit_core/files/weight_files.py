"""What weight files are called, and which of a folder a load takes: one rule for those who read and those who write.

A load takes the first that is there: the files that transformers names, family by family, one file before an index;
then keras-hub's; then a weight file of any other name, if it is the only one. Whoever writes a checkpoint replaces all
that could be taken for it. Nothing here touches a disk.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from fnmatch import fnmatchcase

from vit_core.errors import InputError

SUFFIX = ".safetensors"
SUFFIXES = (SUFFIX, ".bin", ".pth", ".pt", ".tar", ".ckpt", ".npz", ".h5", ".keras", ".msgpack")

# Stem and suffix of the weights that transformers writes, in the order in which a load looks for them.
FAMILIES = (("model", SUFFIX), ("pytorch_model", ".bin"), ("tf_model", ".h5"), ("flax_model", ".msgpack"))
KERAS_HUB = ("model.weights.h5", "task.weights.h5")  # the encoder, and with it the head

ADAPTER_NAME = "adapter_config.json"  # of PEFT
TRAINER_NAME = "training_args.bin"  # of the Trainer of transformers

# What trainers, and tools that add to a model, put beside weights, in the same containers.
_STATES = (
    *(f"{name}{rest}" for name in ("optimizer", "scheduler", "scaler", "rng_state") for rest in (".*", "_*")),
    *("training_args*.bin", "sampler*.bin", "adapter_model*"),
)
_VARIANTS = (  # taken when asked for
    *("model.*.safetensors", "model-*", "pytorch_model.*.bin", "*_model-*"),
    *("tf_model.*.h5", "flax_model.*.msgpack"),
)
_NUMBER = 5 * "[0-9]"


def weight_names(variant: str | None = None, stem: str = "model", suffix: str = SUFFIX) -> tuple[str, str, str]:
    """The name of a single weight file, the name of an index, and the pattern of shard names, as transformers has them.

    Args:
        variant: infix of the names, as in model.fp16.safetensors.
        stem, suffix: of a family.

    Raises:
        InputError: the variant cannot be part of a file name.
    """
    if variant is not None and not variant.replace("-", "").replace("_", "").isalnum():
        raise InputError(f"variant: expected letters, digits, '-' and '_', got {variant!r}.")
    infix = f".{variant}" if variant else ""
    shards = f"{stem}{infix}-{_NUMBER}-of-{_NUMBER}{suffix}"
    return f"{stem}{infix}{suffix}", f"{stem}{suffix}.index{infix}.json", shards


def taken(names: Collection[str], variant: str | None = None) -> tuple[list[str], str | None]:
    """What a load takes of the files of a folder.

    Returns:
        names of what it opens together, and the suffix that a family's files have. There is no suffix where another
        program's name was found; then several names are several checkpoints, unless they are `KERAS_HUB`.
    """
    for stem, suffix in FAMILIES:
        for name in weight_names(variant, stem, suffix)[:2]:
            if name in names:
                return [name], suffix
    if variant is not None:
        return [], None
    return [name for name in KERAS_HUB if name in names] if KERAS_HUB[0] in names else lone(names), None


def is_weights(name: str) -> bool:
    """Whether a file may, by its name, hold weights or be an index of such files."""
    return name.endswith(SUFFIXES) or family_of_index(name) is not None


def family_of_index(name: str) -> tuple[str, str] | None:
    """Stem and suffix of the files that an index of this name is of; None if it is none."""
    found = (family for family in FAMILIES if name.startswith("".join(family) + ".index."))
    return next(found, None) if name.endswith(".json") else None


def lone(names: Iterable[str]) -> list[str]:
    """Those names that may be the weights of another program, whatever they are called."""
    return sorted(name for name in names if name.endswith(SUFFIXES) and not _matches(name, (*_STATES, *_VARIANTS)))


def names_taken(variant: str | None = None) -> list[str]:
    """Patterns of the names that a load takes whatever else is there, with those of the parts that an index names."""
    found = [pattern for stem, suffix in FAMILIES for pattern in weight_names(variant, stem, suffix)]
    return found if variant else [*found, *KERAS_HUB]


def _matches(name: str, patterns: Iterable[str]) -> bool:
    return any(fnmatchcase(name, pattern) for pattern in patterns)
