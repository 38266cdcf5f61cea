"""Speed of exported programs in their engines, beside the model that they are of; read the ratios within a group.

`make bench` runs these. Programs are written without a certificate: what they compute is tested elsewhere.
"""

from importlib import import_module

import numpy as np
import pytest

from vit_core.config import ViTConfig
from vit_core.parameters import draw
from vit_core.programs import settle
from vitriad.auto import model_class
from vitriad.backends import BACKENDS
from vitriad.engines import ENGINES, open_program
from vitriad.parity_matrix.engine import writer

pytestmark = pytest.mark.bench

CLASS = "ViTForImageClassification"
FORMATS = [to for to in ENGINES if to != "aoti"]  # which compiles for minutes


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """Makes a model of ViT-B/16 in a backend, and a function like it that an engine runs."""
    config = ViTConfig.preset("vit-base-patch16-224")
    program = settle(CLASS, config, purpose="logits", size=(224, 224))
    tensors = draw(config, CLASS, seed=0)

    def model(backend):
        return model_class(CLASS, backend).from_tensors(config, tensors)

    def opened(to):
        folder = tmp_path_factory.mktemp(to)
        exporting = import_module(f"{BACKENDS[writer(to)].package}.exporting")
        exporting.export_program(model(writer(to)), folder / ENGINES[to].file, to, program)
        return open_program(folder, to, ["pixel_values"], ["logits"], None)

    return {"model": model, "opened": opened}


@pytest.mark.benchmark(group="ViT-B/16 in engines, float32")
@pytest.mark.parametrize("batch", [1, 8])
@pytest.mark.parametrize("what", ["torch", *FORMATS])
def test_forward(benchmark, made, what, batch):
    images = np.random.default_rng(0).standard_normal((batch, 3, 224, 224), np.float32)
    if what == "torch":
        torch, model = import_module("torch"), made["model"]("torch")

        def run():
            with torch.inference_mode():
                model(images)
    else:
        program = made["opened"](what)

        def run():
            program({"pixel_values": images})

    benchmark.pedantic(run, rounds=5, warmup_rounds=1)
