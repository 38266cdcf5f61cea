"""torch.compile without graph breaks, torch.export with a dynamic batch."""

import numpy as np
import pytest
import torch
from torch_models import make_inputs, make_model

from vit_core.masking import drop_path_mask


@pytest.fixture(autouse=True)
def fresh_dynamo():
    torch._dynamo.reset()
    yield
    torch._dynamo.reset()


def check_same(got, expected):
    assert list(got) == list(expected)
    for key, value in expected.items():
        for one, other in zip(*((v if isinstance(v, tuple) else (v,)) for v in (got[key], value)), strict=True):
            scale = other.detach().double().abs().max().item()
            np.testing.assert_allclose(one.detach(), other.detach(), rtol=0, atol=2e-6 * scale + 1e-12, err_msg=key)


@pytest.mark.every_day("sdpa", "ViTForImageClassification-eager")
@pytest.mark.parametrize("implementation", ["sdpa", "eager"])
def test_whole_graph(name, implementation):
    model, inputs = make_model(name, num_hidden_layers=1, attn_implementation=implementation), make_inputs(name)
    model.requires_grad_(False)  # half the work; graphs with gradients are below
    compiled = torch.compile(model, fullgraph=True, backend="aot_eager")
    check_same(compiled(**inputs), model(**inputs))
    flags = {"output_attentions": True, "output_hidden_states": True}
    check_same(compiled(**inputs, **flags), model(**inputs, **flags))
    assert isinstance(compiled(**inputs, return_dict=False), tuple)


@pytest.mark.every_day("ViTMAEModel")
def test_whole_graph_at_other_sizes(name):
    model = make_model(name, num_hidden_layers=1).requires_grad_(False)
    compiled = torch.compile(model, fullgraph=True, backend="aot_eager")
    for height, width in ((16, 24), (20, 12), (16, 28)):  # both sides change at once: one more program, for all sizes
        inputs = make_inputs(name, height=height, width=width)
        check_same(compiled(**inputs, interpolate_pos_encoding=True), model(**inputs, interpolate_pos_encoding=True))


@pytest.mark.parametrize("labels", [torch.tensor([1, -100]), torch.rand(2, 5)])
def test_whole_graph_with_labels_and_gradients(labels):
    model, inputs = make_model("ViTForImageClassification").double(), make_inputs("ViTForImageClassification")
    compiled = torch.compile(model, fullgraph=True, backend="aot_eager")
    gradients = []
    for run in (compiled, model):
        model.zero_grad()
        run(**inputs, labels=labels).loss.backward()
        gradients.append([p.grad.clone() for p in model.parameters()])
    torch.testing.assert_close(*gradients, rtol=1e-5, atol=1e-6)


@pytest.mark.every_day("ViTModel")
@pytest.mark.parametrize("name", ["ViTModel", "ViTMAEForPreTraining"])
def test_whole_graph_that_leaves_branches_out(name):
    model, inputs = make_model(name, drop_path_rate=0.5).train(), make_inputs(name, batch=16)
    compiled = torch.compile(model, fullgraph=True, backend="aot_eager")
    mask = torch.as_tensor(drop_path_mask(0, 16, model.config.drop_path_rates))
    given = compiled(**inputs, drop_path_mask=mask)
    check_same(given, model(**inputs, drop_path_mask=mask))
    one, other = (compiled(**inputs)[0].detach() for _ in range(2))
    assert (one - other).abs().max() > 1e-3
    check_same(compiled(**inputs, drop_path_mask=mask), given)


def test_a_label_out_of_range_makes_the_compiled_loss_nan():
    model, inputs = make_model("ViTForImageClassification"), make_inputs("ViTForImageClassification")
    compiled = torch.compile(model, fullgraph=True, backend="aot_eager")
    assert compiled(**inputs, labels=torch.tensor([1, 7])).loss.isnan()


@pytest.mark.long
def test_inductor():
    model, inputs = make_model("ViTForImageClassification"), make_inputs("ViTForImageClassification")
    with torch.no_grad():
        check_same(torch.compile(model, fullgraph=True)(**inputs), model(**inputs))


@pytest.mark.every_day("ViTForImageClassification", "ViTMAEForPreTraining")
@pytest.mark.filterwarnings("ignore:The given buffer is not writable:UserWarning")  # of torch 2.10, in load
def test_export_with_dynamic_batch(name, tmp_path):
    model, inputs = make_model(name, num_hidden_layers=1), make_inputs(name)
    batch = torch.export.Dim("batch")
    program = torch.export.export(model, (), kwargs=inputs, dynamic_shapes={key: {0: batch} for key in inputs})
    torch.export.save(program, tmp_path / "model.pt2")
    reloaded = torch.export.load(tmp_path / "model.pt2").module()
    for size in (2, 5):
        inputs = make_inputs(name, batch=size)
        check_same(reloaded(**inputs), model(**inputs))
