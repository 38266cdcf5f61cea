"""Configurations: what a model is built from, checked once, and written as transformers 4.57 writes it."""

from vit_core.config.base import CONFIGS, TRANSFORMERS_VERSION, PretrainedConfig
from vit_core.config.models import AutoConfig, ViTConfig, ViTMAEConfig
from vit_core.config.relatives import OWN_TYPE
from vit_core.config.rules import (
    ACTIVATIONS,
    ATTENTION_IMPLEMENTATIONS,
    GATED_ACTIVATIONS,
    PROBLEM_TYPES,
    SAME_ACTIVATIONS,
)
from vit_core.config.sizes import Size, pair, patch_grid
from vit_core.config.stored import CONFIG_NAME, read_config

__all__ = [
    "ACTIVATIONS",
    "ATTENTION_IMPLEMENTATIONS",
    "CONFIGS",
    "CONFIG_NAME",
    "GATED_ACTIVATIONS",
    "OWN_TYPE",
    "PROBLEM_TYPES",
    "SAME_ACTIVATIONS",
    "TRANSFORMERS_VERSION",
    "AutoConfig",
    "PretrainedConfig",
    "Size",
    "ViTConfig",
    "ViTMAEConfig",
    "pair",
    "patch_grid",
    "read_config",
]
