"""8-bit integers as the weights of a model, by torchao."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Collection
from typing import Any


def quantise(model: Any, modules: Collection[str], int8: str) -> None:
    """Makes the matrices of some modules integers, one scale for each row, in plain tensors that torch alone runs.

    The model can be traced after that, and neither trained, saved nor loaded.

    Args:
        model: changed in place.
        modules: canonical names.
        int8: "weights".
    """
    del int8
    loggers = [logging.getLogger(name) for name in ("torchao", "torch.utils._pytree", "torchao.kernel.intmm")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)  # it reports every kernel that is for other processors
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            from torchao.quantization import Int8WeightOnlyConfig, quantize_
            from torchao.utils import unwrap_tensor_subclass
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
    quantize_(model.requires_grad_(False), Int8WeightOnlyConfig(), lambda _, name: name in modules)
    unwrap_tensor_subclass(model)
