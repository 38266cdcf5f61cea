"""The published settings of training, by what is trained and how large it is: the defaults of recipes."""

from __future__ import annotations

from typing import Any

from vit_core.config import PretrainedConfig

# hidden_size up to which a model counts as of this size; see `vit_core.config.presets`
_SIZES = {"tiny": 192, "small": 384, "base": 768, "large": 1024}
# RandAugment of 2 operations (theirs draws the magnitude around 9, ours takes it); mixup or CutMix for every batch.
_STRONG = {"operations": 2, "magnitude": 9.0, "erase": 0.25, "smoothing": 0.1, "mixup": 0.8, "cutmix": 1.0}

# Every rate is for a batch of 256, and every warm-up is its share of the epochs. All weight decay is 0.05.
#
# Fine-tuning. He et al., Masked Autoencoders Are Scalable Vision Learners (2021), table 9, as their main_finetune.py
# has it: 1e-3, layer decay 0.75, warm-up of 5 epochs.
_FINE_TUNING = {"epochs": 100, "rate": 1e-3, "warmup": 5 / 100, "layer_decay": 0.75, **_STRONG}
# Their FINETUNE.md, by size, for weights that were pre-trained with norm_pix_loss, as the released ones are: a little
# apart from the table. For smaller models there are none: those of the table, without stochastic depth, which is ours.
_BY_SIZE: dict[str, dict[str, Any]] = {
    "tiny": {"drop_path": 0.0},
    "small": {"drop_path": 0.0},
    "base": {"drop_path": 0.1, "rate": 5e-4, "layer_decay": 0.65},
    "large": {"drop_path": 0.2, "epochs": 50, "warmup": 5 / 50},
    "huge": {"drop_path": 0.3, "epochs": 50, "warmup": 5 / 50},
}
# From scratch, all sizes alike. Touvron et al., DeiT (2020), table 9, and main.py: 5e-4 for 512; 5 of 300 epochs. They
# repeat each image three times in an epoch, and average the weights (0.99996); here neither is done unless asked for.
_FROM_SCRATCH = {"epochs": 300, "rate": 2.5e-4, "warmup": 5 / 300, "drop_path": 0.1, **_STRONG}
# He et al. (2021), table 8, and PRETRAIN.md: 800 epochs, of which 40 are warm-up; crops of 20 % on, nothing else.
_MAE = {"epochs": 800, "rate": 1.5e-4, "warmup": 40 / 800, "betas": (0.9, 0.95), "area": (0.2, 1.0), "mask_ratio": 0.75}
# Xie et al., SimMIM (2021), simmim_pretrain__vit_base__img224__800ep.yaml, whose 1e-4 is for 512; 10 epochs of warm-up.
# They hide squares of 32 pixels and let the rate fall to a tenth after epoch 700; here it is patches, and a cosine.
_MIM = {"epochs": 800, "rate": 5e-5, "warmup": 10 / 800, "area": (0.67, 1.0), "mask_ratio": 0.6, "drop_path": 0.1}


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
        return dict(_FROM_SCRATCH)
    return {**_FINE_TUNING, **_BY_SIZE[size_of(config)]}
