"""The five classes in PyTorch: its kernels, its dtypes and its random numbers."""

import inspect

import numpy as np
import oracle
import pytest
import torch
import torch.nn.functional as F
from small_models import MAIN_OUTPUT
from torch_models import make_config, make_inputs, make_model

import vit_torch
from vit_core import ConfigError
from vit_core.tensors import to_numpy
from vit_torch.layers import PatchConv2d

SWITCHES = ("output_attentions", "output_hidden_states")
SIGNATURES = {
    "ViTModel": ("pixel_values", "bool_masked_pos", "head_mask", *SWITCHES, "interpolate_pos_encoding", "return_dict"),
    "ViTForMaskedImageModeling": (
        *("pixel_values", "bool_masked_pos", "head_mask", *SWITCHES, "interpolate_pos_encoding", "return_dict"),
    ),
    "ViTForImageClassification": (
        *("pixel_values", "head_mask", "labels", *SWITCHES, "interpolate_pos_encoding", "return_dict"),
    ),
    "ViTMAEModel": (
        *("pixel_values", "noise", "head_mask", *SWITCHES, "return_dict", "interpolate_pos_encoding", "mask_ratio"),
        "bool_masked_pos",
    ),
    "ViTMAEForPreTraining": (
        *("pixel_values", "noise", "head_mask", *SWITCHES, "return_dict", "interpolate_pos_encoding", "mask_ratio"),
        "bool_masked_pos",
    ),
}


def test_positional_order_is_the_documented_one(name):
    assert tuple(inspect.signature(getattr(vit_torch, name).forward).parameters)[1:] == (
        *SIGNATURES[name],
        "drop_path_mask",
    )


def test_channels_last_is_the_same(name):
    model, inputs = make_model(name), make_inputs(name)
    last = {**inputs, "pixel_values": inputs["pixel_values"].permute(0, 2, 3, 1)}
    torch.testing.assert_close(model(**last).to_tuple(), model(**inputs).to_tuple(), rtol=0, atol=0)


@pytest.mark.parametrize("memory", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("side", [(2, 3), 1])
def test_patches_are_projected_by_one_product_that_equals_the_convolution(side, memory):
    generator = torch.Generator().manual_seed(7)
    ours = PatchConv2d(5, 7, side).double()
    images = (
        torch.randn(3, 5, 9, 11, dtype=torch.float64, generator=generator).to(memory_format=memory).requires_grad_()
    )
    conv = torch.nn.Conv2d(5, 7, side, stride=side).double()
    conv.load_state_dict(ours.state_dict())
    with torch.profiler.profile(acc_events=True) as seen:
        projected = ours(images)
    assert not any("conv" in event.key for event in seen.key_averages())
    torch.testing.assert_close(projected, conv(images), rtol=1e-12, atol=1e-12)
    weights = torch.randn(projected.shape, dtype=torch.float64, generator=generator)
    for got, right in zip(*(gradients(module, images, weights) for module in (ours, conv)), strict=True):
        torch.testing.assert_close(got, right, rtol=1e-12, atol=1e-12)


def gradients(module, images, weights):
    return torch.autograd.grad((module(images) * weights).sum(), [images, *module.parameters()])


def test_numpy_inputs_are_taken(name):
    model, inputs = make_model(name), make_inputs(name)
    arrays = {key: value.numpy() for key, value in inputs.items()}
    torch.testing.assert_close(model(**arrays).to_tuple(), model(**inputs).to_tuple(), rtol=0, atol=0)


@pytest.mark.parametrize("asked", [{"output_attentions": True}, {"head_mask": torch.tensor([1.0, 0.0, 1.0])}])
def test_one_call_falls_back_to_eager_and_the_next_uses_the_kernel_again(name, asked, monkeypatch):
    calls = []
    kernel = F.scaled_dot_product_attention
    monkeypatch.setattr(F, "scaled_dot_product_attention", lambda *a, **k: calls.append(1) or kernel(*a, **k))
    model, inputs = make_model(name), make_inputs(name)
    encoder, decoder = 2, 1 if name == "ViTMAEForPreTraining" else 0
    for flags, expected in (({}, encoder + decoder), (asked, decoder), ({}, encoder + decoder)):
        calls.clear()
        model(**inputs, **flags)
        assert len(calls) == expected
    model.set_attn_implementation("eager")
    calls.clear()
    model(**inputs)
    assert calls == []


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_stays_near_and_losses_are_wide(name, dtype):
    model, inputs = make_model(name), make_inputs(name)
    wide = model(**inputs)[MAIN_OUTPUT[name]]
    labels = {"labels": torch.tensor([0, 4])} if name == "ViTForImageClassification" else {}
    half = model.to(dtype)(**inputs, **labels)
    assert half[MAIN_OUTPUT[name]].dtype == dtype
    scale = wide.abs().max().item()
    error = (half[MAIN_OUTPUT[name]].float() - wide).abs().max().item()
    assert error < {torch.bfloat16: 0.05, torch.float16: 0.006}[dtype] * scale
    assert half.get("loss", torch.zeros(())).dtype == torch.float32
    if labels:
        oracle.check_cross_entropy(half.loss.detach(), half.logits.float().detach(), **labels)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64])
def test_softmax_is_computed_in_float32_or_wider(name, dtype, monkeypatch):
    plain, seen = F.softmax, []
    monkeypatch.setattr(F, "softmax", lambda scores, **how: seen.append(how["dtype"]) or plain(scores, **how))
    make_model(name).to(dtype)(**make_inputs(name), output_attentions=True)
    assert set(seen) == {torch.float32 if dtype == torch.bfloat16 else torch.float64}


@pytest.mark.parametrize("name", ["ViTForImageClassification", "ViTForMaskedImageModeling", "ViTMAEForPreTraining"])
def test_hooks_on_the_encoder_see_its_images_and_outputs(name):
    model, inputs, before, after = make_model(name), make_inputs(name), [], []
    model.vit.register_forward_pre_hook(lambda module, args: before.append(args))
    model.vit.register_forward_hook(lambda module, args, output: after.append(output.last_hidden_state))
    model(**{**inputs, "pixel_values": inputs["pixel_values"].permute(0, 2, 3, 1)})
    ((images,),), (states,) = before, after
    torch.testing.assert_close(images, inputs["pixel_values"], rtol=0, atol=0)
    assert states.shape[2] == 24


def test_patches_and_losses_of_a_subclass_are_those_of_its_calls():
    class Own(vit_torch.ViTMAEForPreTraining):
        def forward_loss(self, pixel_values, pred, mask, interpolate_pos_encoding=False):
            return 2 * super().forward_loss(pixel_values, pred, mask, interpolate_pos_encoding)

    name = "ViTMAEForPreTraining"
    model, inputs = make_model(name), make_inputs(name)
    own = Own.from_tensors(model.config, model.canonical_tensors())
    np.testing.assert_allclose(own(**inputs).loss.item(), 2 * model(**inputs).loss.item(), rtol=1e-6)


def test_noise_comes_from_torch_when_none_is_given():
    model, inputs = make_model("ViTMAEModel"), make_inputs("ViTMAEModel")
    masks = []
    for seed in (3, 3, 4):
        torch.manual_seed(seed)
        masks.append(model(inputs["pixel_values"]).mask)
    assert torch.equal(masks[0], masks[1])
    assert not torch.equal(masks[0], masks[2])


def test_a_label_out_of_range_makes_compiled_losses_nan():
    logits = torch.randn(3, 5, requires_grad=True)
    loss = vit_torch.vit.cross_entropy(logits, torch.tensor([1, 7, -100]))
    assert loss.isnan()


def test_parameters_are_counted_as_published():
    with torch.device("meta"):
        model = vit_torch.ViTMAEForPreTraining(vit_torch.ViTMAEConfig.preset("vit-mae-base"))
    assert (model.num_parameters(), model.num_parameters(only_trainable=True)) == (111_907_840, 111_655_680)
    embeddings = 768 + 197 * 768 + 768 * 3 * 16 * 16 + 768
    assert model.num_parameters(exclude_embeddings=True) == 111_907_840 - embeddings


def test_activation_modules_may_not_have_parameters():
    assert vit_torch.ViTModel(make_config("ViTModel", hidden_act=torch.nn.ReLU6()))
    with pytest.raises(ConfigError, match="PReLU"):
        vit_torch.ViTModel(make_config("ViTModel", hidden_act=torch.nn.PReLU()))


def test_canonical_tensors_make_the_same_model_again(name):
    model = make_model(name)
    made = type(model).from_tensors(model.config, model.canonical_tensors(), **model.options)
    assert made.parameter_table() == model.parameter_table()
    for key, value in model.state_dict().items():
        np.testing.assert_array_equal(to_numpy(made.state_dict()[key]), to_numpy(value), err_msg=key)


def test_fresh_models_train_all_but_the_positions():
    model = vit_torch.ViTMAEForPreTraining(make_config("ViTMAEForPreTraining"))
    assert model.training
    assert [p.requires_grad for p in model.parameters()].count(False) == 2
