"""The backends, as data."""

from typing import NamedTuple


class Backend(NamedTuple):
    """Where the classes of a backend are."""

    package: str  # ours
    framework: str  # the module that must be installed for it
    prefix: str  # in front of the class names


# In the order in which "auto" tries them. The names are those of the extras to install.
BACKENDS = {
    "torch": Backend("vit_torch", "torch", ""),
    "tf": Backend("vit_tf", "tensorflow", "TF"),
    "flax": Backend("vit_flax", "flax", "Flax"),
}
# What people also call them.
ALIASES = {"pytorch": "torch", "tensorflow": "tf", "jax": "flax"}


def backend_name(name: str) -> str:
    """The name that `BACKENDS` has for a backend: "jax" is "flax"."""
    return ALIASES.get(name, name)
