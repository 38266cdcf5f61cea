"""A model optimised in place against what else runs it on this CPU, one after the other in turn.

`make bench-once PYTEST_ARGS='-k in_place -s'` prints the table of docs/reference/benchmarks.md: what the first call
takes, the median of the others with the least and the most, and the median ratio to the best engine of the same round.
"""

import shutil
from statistics import median
from time import perf_counter

import numpy as np
import pytest
import torch

import vit_torch
from vit_core.config import ViTConfig
from vit_core.parameters import draw
from vit_core.programs import settle
from vit_torch.exporting import export_program
from vitriad.engines import ENGINES, open_program
from vitriad.programs.precision import quantise_file, reduced_model, tool_of

pytestmark = pytest.mark.bench

CLASS, ROUNDS = "ViTForImageClassification", 9
ENGINES_OF = {"float32": ("onnx", "openvino"), "bfloat16": ("openvino",), "int8": ("onnx", "openvino")}


@pytest.fixture(scope="module")
def made():
    """Makes the same ViT-B/16 every time, in a dtype."""
    config = ViTConfig.preset("vit-base-patch16-224")
    tensors = draw(config, CLASS, seed=0)
    return lambda dtype: (
        vit_torch.ViTForImageClassification.from_tensors(config, tensors).requires_grad_(False).to(dtype)
    )


def in_place(made, precision):
    """The model as it is, optimised, and by what torch and torchao have for it: name -> function of images."""
    dtype = getattr(torch, "float32" if precision == "int8" else precision)
    fast = vit_torch.optimize_for_inference(made(torch.float32), torch.bfloat16 if precision == "int8" else dtype)
    runs = {"torch": made(dtype), "optimised, in bfloat16" if precision == "int8" else "optimised": fast}
    if precision == "int8":
        from torchao.quantization import Int8DynamicActivationInt8WeightConfig, quantize_

        runs["torchao, int8 dynamic"] = made(dtype)
        quantize_(runs["torchao, int8 dynamic"], Int8DynamicActivationInt8WeightConfig())
    elif shutil.which("g++"):
        runs["torch.compile, frozen"] = torch.compile(made(dtype))
    return runs


def in_engine(made, to, precision, folder):
    """An engine's program as a function of images; int8 is dynamic."""
    reduced = {"int8": "dynamic"} if precision == "int8" else {"dtype": precision}
    model = made(torch.float32)
    program = settle(CLASS, model.config, purpose="logits", size=(224, 224), **reduced)
    full, inside, tool = folder / "full", folder / "inside", tool_of(to, "torch", program)
    for each in (full, inside):
        each.mkdir()
    if precision == "int8":
        export_program(model, full / ENGINES[to].file, to, program._replace(int8=None))
        quantise_file(full, inside, model, to, program, tool, ())
    else:
        export_program(reduced_model(model, "torch", to, program, tool), inside / ENGINES[to].file, to, program)
    opened = open_program(inside, to, ["pixel_values"], ["logits"], None)
    return lambda images: opened({"pixel_values": images.numpy()})


def in_turn(runs, images):
    """First calls, and the times of the others, by name: seconds an image."""
    first, times = {}, {name: [] for name in runs}
    with torch.inference_mode():
        for turn in range(ROUNDS + 2):
            for name in [*runs][turn % len(runs) :] + [*runs][: turn % len(runs)]:
                start = perf_counter()
                runs[name](images)
                spent = (perf_counter() - start) / len(images)
                if turn == 0:
                    first[name] = spent * len(images)
                elif turn > 1:
                    times[name].append(spent)
    return first, times


def table(precision, images, first, times, best):
    """The figures of one round of all, as rows for people."""
    yield f"ViT-B/16, {precision}, batch {len(images)}, {torch.get_num_threads()} threads"
    yield f"| what | first call, s | ms an image (least, most) | to {best} |"
    for name, each in times.items():
        low, middle, high = (1e3 * value for value in (min(each), median(each), max(each)))
        ratio = median(np.divide(each, times[best]))
        yield f"| {name} | {first[name]:.2f} | {middle:.1f} ({low:.1f}, {high:.1f}) | {ratio:.2f} |"


@pytest.mark.timeout(3600)
@pytest.mark.parametrize("batch", [1, 8])
@pytest.mark.parametrize("precision", ENGINES_OF)
def test_in_place(made, precision, batch, tmp_path, capsys):
    torch._dynamo.reset()
    engines, images = ENGINES_OF[precision], torch.randn(batch, 3, 224, 224)
    runs = in_place(made, precision)
    for to in engines:
        (tmp_path / to).mkdir()
        runs[to] = in_engine(made, to, precision, tmp_path / to)
    with torch._inductor.config.patch(freezing=True):
        first, times = in_turn(runs, images)
    best = min(engines, key=lambda name: median(times[name]))
    with capsys.disabled():
        print("", *table(precision, images, first, times, best), sep="\n")
    np.testing.assert_array_equal([len(each) for each in times.values()], ROUNDS)
