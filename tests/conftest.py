"""Environments with some of the frameworks: tests that need one which is not installed are not collected."""

import gc
import os
from importlib.util import find_spec

import pytest
from chromium import CHROMIUM
from every_day import mark_what_is_long

_NEED_TORCH = [
    "vit_torch",
    "torch_models.py",
    "vit_core/test_config.py",
    "vit_core/test_positions.py",
    "vit_core/test_tensors.py",
    "vitriad/test_optimizing.py",
    "vitriad/test_parity_engines.py",
    "vitriad/test_train_digits.py",
    "peers",
    "real/test_precision.py",
    "real/test_programs.py",
    "reliability/test_exports.py",
    "gpu.py",
    "test_gpu.py",
    "test_wheel.py",
]
_NEED_ONE = [
    "behaviour",
    "clients",
    "cluster",
    "hub",
    "parity",
    "reliability",
    "test_bad_calls.py",
    "test_contributing.py",
    "test_foreign.py",
    "test_loading_keywords.py",
    "test_offered_names.py",
    "test_pages_run.py",
    "test_readme.py",
    "test_verb_pictures.py",
    "vit_core/test_targets.py",
    *(
        f"vitriad/test_{name}.py"
        for name in (
            *(
                "play",
                "play_work",
                "serve",
                "serve_work",
                "oip",
                "tfserving",
                "serve_hostile",
                "serve_right",
                "serve_loading",
                "serve_soak",
                "web_commands",
            ),
            *("auto", "classify", "cli", "conversion_commands", "parity", "demo_and_doctor", "shipped_models"),
            *("made_up_dialect", "named_files", "printing", "verify", "embed", "pictures", "search_and_probe"),
            *("compare", "identity", "decoding", "finetune", "training_devices"),
        )
    ),
]
_NEED_FLAX = ["vit_flax", "flax_models.py", "peers/test_jax2onnx.py"]
_NEED_TENSORFLOW = [
    "vit_tf",
    "tf_models.py",
    "real/test_precision.py",
    "real/test_programs.py",
]
_NEED_ALL = [
    "test_front_picture.py",
    "benchmarks/test_in_place.py",
    *(
        f"vitriad/test_{name}.py"
        for name in ("deploy", "engines", "export", "export_files", "play_programs", "precision", "serve_programs")
    ),
]
_NEED_CHROMIUM = ["vitriad/test_play_page.py"]  # .ci/run installs it
_FRAMEWORKS = [find_spec(name) is not None for name in ("torch", "tensorflow", "flax")]

collect_ignore = [
    *(_NEED_TORCH if find_spec("torch") is None else ()),
    *(_NEED_TENSORFLOW if find_spec("tensorflow") is None else ()),
    *(() if any(_FRAMEWORKS) else _NEED_ONE),
    *(() if any(_FRAMEWORKS) and CHROMIUM else _NEED_CHROMIUM),
    *(() if all(_FRAMEWORKS) else _NEED_ALL),
    *(_NEED_FLAX if find_spec("flax") is None else ()),
]


def pytest_configure(config):
    """One thread of OpenMP per process, before a framework is imported and in every child process; not for benchmarks.

    As many processes as cores run at once, and such threads wait busily for their turn: torch took three times as long.
    """
    if config.option.markexpr != "bench":
        os.environ.setdefault("OMP_NUM_THREADS", "1")


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(config, items):
    """Without a framework, tests that run for each backend have none to run for. Any other empty table is an error."""
    empty = [item for item in items if hasattr(item, "callspec") and "NOTSET" in item.callspec.id]
    if empty and any(_FRAMEWORKS):
        raise pytest.UsageError(f"{empty[0].nodeid}: there are no cases")
    items[:] = [item for item in items if item not in empty]
    unknown = mark_what_is_long(items)
    is_part = any("::" in argument for argument in config.args) or config.getoption("lf", False)
    if unknown and all(_FRAMEWORKS) and not is_part:
        raise pytest.UsageError(f"every_day: no such cases: {unknown}")


def pytest_collection_finish():
    """What was imported and collected stays to the end: garbage is looked for elsewhere, and less often."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000, 20, 100)  # tracing makes objects by the thousand, nearly all of which stay
