"""Features from inside an encoder in PyTorch's own ways: gradients, torch.compile, optimised models."""

import pytest
import torch
from sameness import check_same
from torch_models import Torch

import vit_torch

PIXELS = torch.randn((2, 3, 8, 28), generator=torch.Generator().manual_seed(5))


def make_model():
    return Torch().make_model("ViTModel", num_hidden_layers=3)


def features(model, pixels=PIXELS):
    return tuple(model.forward_intermediates(pixels, [0, 1], stop_early=True, norm=True, intermediates_only=True))


@pytest.mark.parametrize("checkpointing", [False, True])
def test_gradients_reach_the_layers_that_ran_and_no_other(checkpointing):
    model = make_model().train()
    if checkpointing:
        model.gradient_checkpointing_enable()
    sum(maps.sum() for maps in features(model)).backward()
    reached = [layer.output["dense"].weight.grad is not None for layer in model.encoder.layer]
    assert reached == [True, True, False]
    assert len(model.encoder.layer) == 3


def test_it_compiles_and_as_one_graph_behind_torch_2_10():
    model, is_one = make_model().eval(), not torch.__version__.startswith("2.10.")
    compiled = torch.compile(lambda pixels: features(model, pixels), backend="eager", fullgraph=is_one)
    with torch.inference_mode():
        check_same(compiled(PIXELS), features(model), 1e-5)


def test_an_optimised_model_gives_the_same():
    expected = features(make_model().eval())
    model = vit_torch.optimize_for_inference(make_model())
    with torch.inference_mode():
        check_same(features(model), tuple(maps.detach() for maps in expected), 1e-5)
