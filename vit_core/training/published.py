"""The published settings of training, by what is trained and how large it is: the defaults of recipes."""

from __future__ import annotations

from typing import Any

from vit_core.config import PretrainedConfig

# hidden_size up to which a model counts as of this size; see `vit_core.config.presets`
_SIZES = {"tiny": 192, "small": 384, "base": 768, "large": 1024}
_STRONG = {"operations": 2, "magnitude": 9.0, "erase": 0.25, "smoothing": 0.1, "mixup": 0.8, "cutmix": 1.0}

# He et al., Masked Autoencoders Are Scalable Vision Learners (2021), appendix A.2, table 9. Warm-up: 5 of 100 epochs.
_FINE_TUNING = {"epochs": 100, "rate": 1e-3, "warmup": 0.05, "layer_decay": 0.75, **_STRONG}
# Touvron et al., DeiT (2020), table 9: 5e-4 for a batch of 512; warm-up: 5 of 300 epochs.
_FROM_SCRATCH = {"epochs": 300, "rate": 2.5e-4, "warmup": 5 / 300, **_STRONG}
# He et al. (2021), appendix A.1, table 8: 800 epochs, of which 40 are warm-up; crops of 20 % on, no other augmentation.
_MAE = {"epochs": 800, "rate": 1.5e-4, "warmup": 0.05, "betas": (0.9, 0.95), "area": (0.2, 1.0), "mask_ratio": 0.75}
# Xie et al., SimMIM (2021), section 4.1: 8e-4 for a batch of 2048, 60 % masked; crops of 67 % on.
_MIM = {"epochs": 800, "rate": 1e-4, "warmup": 0.025, "area": (0.67, 1.0), "mask_ratio": 0.6}

# What goes by size. Fine-tuning: MAE's table 9; below "base", Steiner et al., How to train your ViT? (2021), section
# 4.3: small models lose by regularisation. From scratch: DeiT's table 9, all sizes alike.
_BY_SIZE: dict[str, dict[str, dict[str, Any]]] = {
    "tiny": {"fine-tuning": {"drop_path": 0.0}},
    "small": {"fine-tuning": {"drop_path": 0.0}},
    "base": {"fine-tuning": {"drop_path": 0.1}},
    "large": {"fine-tuning": {"drop_path": 0.1, "epochs": 50}},
    "huge": {"fine-tuning": {"drop_path": 0.2, "epochs": 50}},
}


def size_of(config: PretrainedConfig) -> str:
    """The published size that a model is nearest to from above: "tiny", "small", "base", "large" or "huge"."""
    return next((name for name, hidden in _SIZES.items() if config.hidden_size <= hidden), "huge")


def published(objective: str, config: PretrainedConfig, *, is_fresh: bool) -> dict[str, Any]:
    """The fields of a `Recipe` that the papers settle.

    Args:
        objective: of the recipe.
        config: of the model.
        is_fresh: whether it starts from fresh weights.
    """
    if objective != "classification":
        return dict(_MAE if objective == "mae" else _MIM)
    if is_fresh:
        return {**_FROM_SCRATCH, "drop_path": 0.1}
    return {**_FINE_TUNING, **_BY_SIZE[size_of(config)]["fine-tuning"]}
