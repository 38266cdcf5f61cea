"""Models optimised for inference: the same numbers by packed products, no training, and a way back."""

import copy
import pickle
import re

import numpy as np
import oracle
import pytest
import torch
from torch_models import BACKEND, make_inputs, make_model

import vit_torch
from vit_core.errors import InputError
from vit_torch import inference, optimize_for_inference, parity, undo_optimization

CLASSIFIER = "ViTForImageClassification"
KINDS = ["oneDNN", *(["MKL"] if torch.backends.mkl.is_available() else [])]
DTYPES = [torch.float32, *([torch.bfloat16] if torch.ops.mkldnn._is_mkldnn_bf16_supported() else [])]
pytestmark = pytest.mark.skipif(not torch.backends.mkldnn.is_available(), reason="torch has no oneDNN here")


@pytest.fixture(params=KINDS)
def products(request, monkeypatch):
    """Both kinds of packed products, whatever is the faster one here."""
    is_mkl = request.param == "MKL"
    for module in (inference, vit_torch.products):
        monkeypatch.setattr(module, "has_mkl_products", lambda dtype: is_mkl and dtype == torch.float32)


def outputs(model, name, **sizes):
    with torch.no_grad():
        return oracle.as_numpy(model(**make_inputs(name, **sizes)))


def check_equal(got, expected, share=1e-5):
    np.testing.assert_equal(list(got), list(expected))
    for name, want in expected.items():
        np.testing.assert_equal(got[name].dtype, want.dtype, name)
        np.testing.assert_allclose(got[name], want, rtol=0, atol=share * np.abs(want).max(), err_msg=name)


@pytest.mark.every_day("oneDNN", "square")
@pytest.mark.parametrize("case", oracle.CASES, ids=lambda case: case.name)
def test_the_oracle_agrees(case, products):
    model = optimize_for_inference(BACKEND.of_case(case, "float32"))
    for _ in range(2):  # the second call finds packed weights
        oracle.check_outputs(case, parity.outputs(model, case.inputs), "float32")
    inputs = {name: torch.as_tensor(value) for name, value in case.inputs.items() if isinstance(value, np.ndarray)}
    flags = {name: value for name, value in case.inputs.items() if not isinstance(value, np.ndarray)}
    with torch.no_grad():  # by the kernel for attention, which returns no probabilities
        found = oracle.as_numpy(model(**inputs, **flags))
    want = oracle.expected(case)
    for name, array in found.items():
        scale = np.abs(want[name]).max()
        np.testing.assert_allclose(array, want[name], rtol=0, atol=1e-5 * scale, err_msg=name)


@pytest.mark.every_day("square", "mask", "larger", "ViTMAEForPreTraining")
@pytest.mark.parametrize("dtype", DTYPES[1:])
@pytest.mark.parametrize("case", oracle.CASES, ids=lambda case: case.name)
def test_the_oracle_agrees_in_bfloat16(case, dtype):
    model = optimize_for_inference(BACKEND.of_case(case, "float32"), dtype)
    found = parity.outputs(model, case.inputs)
    oracle.check_outputs(case, found, "bfloat16")
    dtypes = {each.dtype for value in found.values() for each in (value if isinstance(value, tuple) else (value,))}
    assert dtypes <= {np.dtype("float32"), np.dtype("int64")}


def test_class_call_state_and_files_stay(name, products, tmp_path):
    model, plain = make_model(name), make_model(name)
    names = [name for name, _ in model.named_modules()]
    assert optimize_for_inference(model) is model
    assert type(model) is type(plain) and [name for name, _ in model.named_modules()] == names
    check_equal(outputs(model, name), outputs(plain, name))
    for key, tensor in plain.state_dict().items():
        np.testing.assert_array_equal(model.state_dict()[key], tensor)
    model.save_pretrained(tmp_path / "optimised")
    plain.save_pretrained(tmp_path / "plain")
    for file in ("config.json", "model.safetensors"):
        assert (tmp_path / "optimised" / file).read_bytes() == (tmp_path / "plain" / file).read_bytes()


def test_any_batch_and_size_after_the_first_call(name, products):
    model, plain = optimize_for_inference(make_model(name)), make_model(name)
    packed = []
    for batch, height, width in ((2, 12, 20), (5, 12, 20), (1, 12, 20), (3, 16, 24), (2, 12, 20)):
        inputs = make_inputs(name, batch=batch, height=height, width=width)
        with torch.no_grad():
            got, want = (oracle.as_numpy(each(**inputs, interpolate_pos_encoding=True)) for each in (model, plain))
        check_equal(got, want)
        packed.append([layer.packed for layer in model.modules() if isinstance(layer, inference.OptimizedLayer)])
    for later in packed[1:]:  # nothing was packed again
        np.testing.assert_array_equal(later, packed[0])


@pytest.mark.parametrize("dtype", DTYPES)
def test_undone_it_is_what_it_was(name, dtype):
    model, plain = make_model(name), make_model(name)
    frozen = next(iter(dict(model.named_parameters())))
    for each in (model, plain):
        each.get_parameter(frozen).requires_grad_(False)
    optimize_for_inference(model, dtype)
    outputs(model, name)
    assert undo_optimization(model) is model
    check_equal(outputs(model, name), outputs(plain, name), share=0)
    assert [*map(type, model.modules())] == [*map(type, plain.modules())]
    assert [p.requires_grad for p in model.parameters()] == [p.requires_grad for p in plain.parameters()]
    for each, same in zip(model.modules(), plain.modules(), strict=True):
        assert vars(each).keys() == vars(same).keys()
    for one, other in zip(*(BACKEND.gradients(each, 0, make_inputs(name)) for each in (model, plain)), strict=True):
        np.testing.assert_array_equal(one, other)


def test_training_is_refused_by_name(name):
    model = optimize_for_inference(make_model(name).train())
    assert not any(module.training for module in model.modules())
    undo = r".*\n.*vit_torch\.undo_optimization\(model\)"
    for each in (model, model.base_model, torch.nn.Sequential(model)):
        with pytest.raises(InputError, match=f"train: the model is optimised for inference{undo}"):
            each.train()
    assert not any(module.training for module in model.modules())
    assert model.eval() is model and model.train(False) is model
    with pytest.raises(InputError, match=f"no gradients: the model is optimised for inference{undo}"):
        inputs = make_inputs(name)
        model(**{**inputs, "pixel_values": inputs["pixel_values"].requires_grad_()})
    loss = model(**make_inputs(name))[BACKEND.main_output(model)].sum()
    with pytest.raises(RuntimeError, match="does not require grad"):
        loss.backward()
    model.requires_grad_(True)
    with pytest.raises(InputError, match=undo):
        model(**make_inputs(name))


def test_weights_that_change_are_seen(products):
    model, plain = make_model(CLASSIFIER), make_model(CLASSIFIER)
    optimize_for_inference(model)
    before, changes = outputs(model, CLASSIFIER), make_model(CLASSIFIER, layer_norm_eps=0.1).state_dict()
    changed = {name: tensor * 1.5 for name, tensor in changes.items()}
    for assign in (False, True):
        for each in (model, plain):
            each.load_state_dict(changed if not assign else changes, assign=assign)
        check_equal(outputs(model, CLASSIFIER), outputs(plain, CLASSIFIER))
    for each in (model, plain):
        BACKEND.add_one(each)
    check_equal(outputs(model, CLASSIFIER), outputs(plain, CLASSIFIER))
    assert np.abs(before["logits"] - outputs(plain, CLASSIFIER)["logits"]).max() > 0
    for each in (model, plain):
        each.to(torch.bfloat16)
    check_equal(outputs(model, CLASSIFIER), outputs(plain, CLASSIFIER), share=0.03)
    with pytest.raises(InputError, match=r"expected float32 or bfloat16, got torch\.float64"):
        outputs(model.to(torch.float64), CLASSIFIER)


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda model: pickle.loads(pickle.dumps(model))])
def test_copies_pack_their_own(copied, products):
    model = optimize_for_inference(make_model(CLASSIFIER))
    before = outputs(model, CLASSIFIER)
    other = copied(model)
    check_equal(outputs(other, CLASSIFIER), before, share=0)
    with pytest.raises(InputError, match="train"):
        other.train()
    BACKEND.add_one(other)
    assert np.abs(outputs(other, CLASSIFIER)["logits"] - before["logits"]).max() > 0
    check_equal(outputs(model, CLASSIFIER), before, share=0)
    assert all(parameter.requires_grad for parameter in undo_optimization(other).parameters())


def test_what_cannot_be_optimised_is_named(monkeypatch):
    with pytest.raises(InputError, match=r"ViTModel: expected float32 or bfloat16, got torch.float64"):
        optimize_for_inference(make_model("ViTModel", "float64"))
    with pytest.raises(InputError, match=r"ViTModel: expected float32 or bfloat16, got torch.float16"):
        optimize_for_inference(make_model("ViTModel"), torch.float16)
    with pytest.raises(InputError, match=r"ViTModel: expected a model on the CPU, it is on meta"):
        optimize_for_inference(make_model("ViTModel").to("meta"))
    monkeypatch.setattr(torch.ops.mkldnn, "_is_mkldnn_bf16_supported", lambda: False)
    with pytest.raises(InputError, match="oneDNN, which torch computes with, cannot do this"):
        optimize_for_inference(make_model("ViTModel"), torch.bfloat16)
    model = optimize_for_inference(make_model("ViTModel"))
    dense = model.encoder.layer[1].output["dense"]
    model.encoder.layer[1].output["dense"] = torch.nn.Sequential(dense)
    with pytest.raises(InputError, match=re.escape("expected nn.Linear, got Sequential")):
        outputs(model, "ViTModel")


def test_what_traces_it_sees_the_ordinary_layers():
    model, plain = optimize_for_inference(make_model(CLASSIFIER)), make_model(CLASSIFIER).requires_grad_(False)
    inputs = make_inputs(CLASSIFIER)
    program, expected = (torch.export.export(each, (), kwargs=inputs).module() for each in (model, plain))
    np.testing.assert_array_equal(program(**inputs).logits, expected(**inputs).logits)
    torch._dynamo.reset()
    compiled = torch.compile(model, fullgraph=True, backend="aot_eager")
    np.testing.assert_allclose(compiled(**inputs).logits, plain(**inputs).logits, rtol=1e-5)
    torch._dynamo.reset()


@pytest.mark.skipif(len(DTYPES) < 2, reason="no bfloat16 on this processor")
def test_optimised_again_it_computes_in_the_other_dtype():
    model, plain = make_model(CLASSIFIER), make_model(CLASSIFIER)
    exact = outputs(plain, CLASSIFIER)["logits"]
    errors = []
    for dtype in (None, torch.bfloat16, torch.float32):
        optimize_for_inference(model, dtype)
        errors.append(np.abs(outputs(model, CLASSIFIER)["logits"] - exact).max() / np.abs(exact).max())
    assert errors[0] < 1e-5 and 1e-4 < errors[1] < 0.1 and errors[2] < 1e-5
    assert all(parameter.requires_grad for parameter in undo_optimization(model).parameters())


def test_heads_pruned_afterwards_and_attention_that_is_set():
    model, plain = optimize_for_inference(make_model(CLASSIFIER)), make_model(CLASSIFIER)
    for each in (model, plain):
        each.prune_heads({0: [1], 1: [0, 2]})
    check_equal(outputs(model, CLASSIFIER), outputs(plain, CLASSIFIER))
    model.set_attn_implementation("eager")
    check_equal(outputs(model, CLASSIFIER), outputs(plain, CLASSIFIER))
    assert isinstance(model, vit_torch.ViTForImageClassification)
