"""OpenVINO programs of 8-bit integers, by nncf."""

from __future__ import annotations

import logging
import re
import sys
import warnings
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager, redirect_stdout
from importlib import import_module
from io import StringIO
from pathlib import Path

from vit_core.tensors import Array

_GROUP = {"weights": "0", "dynamic": "32"}  # how many columns of an input share a scale; with 0 it is not quantised
_SMOOTHING = 0.5  # how far large inputs are divided and weights multiplied; nncf's 0.95 kept 0.938 at worst, this 0.996


def quantise(
    source: Path, target: Path, int8: str, modules: Collection[str], calibration: Sequence[Mapping[str, Array]]
) -> None:
    """Writes a program of integers.

    Args:
        source: program in float32.
        target: file to write.
        int8: one of `vit_core.programs.INT8`.
        modules: canonical names of what is quantised; OpenVINO calls what it computes after them.
        calibration: inputs of the program, for "static".
    """
    import openvino

    with _quiet():
        nncf = import_module("nncf")
        nncf.set_log_level(logging.ERROR)
        program = openvino.Core().read_model(source)
        ignored = nncf.IgnoredScope(patterns=[_other_than(modules)], validate=False)
        if int8 == "static":
            smoothing = nncf.AdvancedSmoothQuantParameters(matmul=_SMOOTHING)
            made = nncf.quantize(
                program,
                nncf.Dataset([*calibration]),
                model_type=nncf.ModelType.TRANSFORMER,
                ignored_scope=ignored,
                advanced_parameters=nncf.AdvancedQuantizationParameters(smooth_quant_alphas=smoothing),
                subset_size=len(calibration),
            )
        else:
            made = nncf.compress_weights(program, mode=nncf.CompressWeightsMode.INT8_ASYM, ignored_scope=ignored)
            made.set_rt_info(_GROUP[int8], ["runtime_options", "DYNAMIC_QUANTIZATION_GROUP_SIZE"])
        openvino.save_model(made, target, compress_to_fp16=False)


def _other_than(modules: Collection[str]) -> str:
    """A pattern of the names of whatever is in none of the layers of these modules."""
    layers = {found[0] for name in modules if (found := re.search(r"(layer|decoder_layers)\.\d+", name))}
    return rf"^(?!.*\.({'|'.join(map(re.escape, sorted(layers)))})[./]).*$"


@contextmanager
def _quiet() -> Iterator[None]:
    """Without progress bars, and without nncf's reports to its makers, for which openvino-telemetry must be there."""
    was = sys.modules.get("openvino_telemetry")
    sys.modules["openvino_telemetry"] = None  # type: ignore[assignment]
    try:
        with warnings.catch_warnings(), redirect_stdout(StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        del sys.modules["openvino_telemetry"]
        if was is not None:
            sys.modules["openvino_telemetry"] = was
