"""What the five classes take and give, beside the numbers."""

import inspect
import logging

import numpy as np
import oracle
import pytest
import torch
import torch.nn.functional as F
from torch_models import FIELDS, PATCHES, make_config, make_inputs, make_model

import vit_torch
from vit_core import ConfigError, InputError
from vit_core.config import ACTIVATIONS
from vit_core.inputs import warn_unseen
from vit_core.tensors import to_numpy

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
    ),
    "ViTMAEForPreTraining": (
        *("pixel_values", "noise", "head_mask", *SWITCHES, "return_dict", "interpolate_pos_encoding", "mask_ratio"),
    ),
}
MAIN_OUTPUT = {
    "ViTModel": "last_hidden_state",
    "ViTForImageClassification": "logits",
    "ViTForMaskedImageModeling": "reconstruction",
    "ViTMAEModel": "last_hidden_state",
    "ViTMAEForPreTraining": "logits",
}


def refused(name: str, *needles: str, options: dict | None = None, fields: dict | None = None, **changes) -> None:
    model = make_model(name, options=options, **(fields or {}))
    with pytest.raises(InputError) as caught:
        model(**{**make_inputs(name), **changes})
    assert [needle for needle in needles if needle not in str(caught.value)] == []
    assert len(str(caught.value).splitlines()) <= 3


def test_positional_order_is_the_documented_one(name):
    assert tuple(inspect.signature(getattr(vit_torch, name).forward).parameters)[1:] == SIGNATURES[name]


def test_unknown_keyword_is_an_error(name):
    with pytest.raises(TypeError, match="attention_mask"):
        make_model(name)(**make_inputs(name), attention_mask=None)


@pytest.mark.parametrize("through", ["call", "config"])
def test_tuples_hold_the_fields_that_are_present(name, through):
    model, inputs = make_model(name), make_inputs(name)
    named = model(**inputs, output_attentions=True)
    if through == "config":
        model.config.return_dict = False
    values = model(**inputs, output_attentions=True, **({"return_dict": False} if through == "call" else {}))
    assert type(values) is tuple
    assert len(values) == len(named)
    torch.testing.assert_close(values, named.to_tuple(), rtol=0, atol=0)


def test_switches_come_from_the_config(name):
    model = make_model(name, output_attentions=True, output_hidden_states=True)
    output = model(**make_inputs(name))
    assert [len(output.attentions), len(output.hidden_states)] == [2, 3]
    assert "attentions" not in model(**make_inputs(name), output_attentions=False)


def test_channels_last_is_the_same(name):
    model, inputs = make_model(name), make_inputs(name)
    last = {**inputs, "pixel_values": inputs["pixel_values"].permute(0, 2, 3, 1)}
    torch.testing.assert_close(model(**last).to_tuple(), model(**inputs).to_tuple(), rtol=0, atol=0)


def test_numpy_inputs_are_taken(name):
    model, inputs = make_model(name), make_inputs(name)
    arrays = {key: value.numpy() for key, value in inputs.items()}
    torch.testing.assert_close(model(**arrays).to_tuple(), model(**inputs).to_tuple(), rtol=0, atol=0)


def test_the_configuration_is_a_copy_and_stays_as_it_was():
    config = make_config("ViTForImageClassification")
    model = vit_torch.ViTForImageClassification(config)
    before = config.to_json_string()
    model(**make_inputs("ViTForImageClassification"), labels=torch.tensor([1, 2]))
    model.prune_heads({0: [1]})
    assert config.to_json_string() == before
    assert model.config.problem_type is None
    assert model.vit.config is model.config


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


def test_head_mask_silences_heads_under_both_kernels(name):
    model, inputs = make_model(name, dtype="float64"), make_inputs(name)
    mask = torch.tensor([[1.0, 0.0, 1.0], [1.0, 1.0, 0.5]])
    masked = model(**inputs, head_mask=mask, output_attentions=True)
    plain = model(**inputs, output_attentions=True)
    assert masked.attentions[0][:, 1].abs().max() == 0
    torch.testing.assert_close(masked.attentions[0][:, 0], plain.attentions[0][:, 0], rtol=0, atol=0)
    assert not torch.equal(masked[MAIN_OUTPUT[name]], plain[MAIN_OUTPUT[name]])


def test_pruning_is_masking_for_good(name):
    model, inputs = make_model(name, dtype="float64"), make_inputs(name)
    mask = torch.tensor([[1.0, 0.0, 1.0], [1.0, 1.0, 1.0]])
    expected = model(**inputs, head_mask=mask)[MAIN_OUTPUT[name]]
    model.prune_heads({0: [1]})
    assert model.config.pruned_heads == {0: [1]}
    np.testing.assert_allclose(model(**inputs)[MAIN_OUTPUT[name]].detach(), expected.detach(), rtol=0, atol=1e-12)
    model.prune_heads({0: [1], 1: [2]})
    assert model.config.pruned_heads == {0: [1], 1: [2]}
    shapes = {key: tuple(value.shape) for key, value in model.state_dict().items()}
    assert shapes == {key: row.shape for key, row in model.parameter_table().items()}


def test_gradient_checkpointing_changes_memory_not_gradients(name):
    model, inputs = make_model(name, dtype="float64").train(), make_inputs(name)
    gradients = []
    for switch in (model.gradient_checkpointing_disable, model.gradient_checkpointing_enable):
        switch()
        model.zero_grad()
        model(**inputs)[MAIN_OUTPUT[name]].square().sum().backward()
        gradients.append([p.grad.clone() for p in model.parameters() if p.grad is not None])
    assert model.is_gradient_checkpointing
    torch.testing.assert_close(*gradients, rtol=0, atol=1e-12)


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


def test_attention_dropout_is_drawn_for_every_number(name):
    model = make_model(name, hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.5).train()
    attentions = model(**make_inputs(name), output_attentions=True).attentions[0].detach().numpy()
    dropped = (attentions == 0).reshape(-1, *attentions.shape[2:])  # (batch * heads, tokens, tokens)
    assert len(np.unique(dropped, axis=0)) == len(dropped)


def test_dropout_is_on_in_training_only(name):
    model = make_model(name, hidden_dropout_prob=0.5, attention_probs_dropout_prob=0.5, attn_implementation="eager")
    first, second = (model(**make_inputs(name))[MAIN_OUTPUT[name]] for _ in range(2))
    torch.testing.assert_close(first, second, rtol=0, atol=0)
    model.train()
    first, second = (model(**make_inputs(name))[MAIN_OUTPUT[name]] for _ in range(2))
    assert not torch.equal(first, second)


@pytest.mark.parametrize(
    ("shape", "needles"),
    [
        ((2, 4, 12, 20), ("(batch, 3, height, width)", "(2, 4, 12, 20)")),
        ((3, 12, 20), ("(3, 12, 20)",)),
        ((2, 3, 12, 24), ("12x20", "12x24", "interpolate_pos_encoding")),
        ((2, 12, 24, 3), ("12x24",)),
    ],
)
def test_images_of_another_shape_are_refused(name, shape, needles):
    refused(name, "pixel_values", *needles, pixel_values=torch.zeros(shape))


def test_images_of_another_kind_are_refused(name):
    refused(name, "pixel_values", "image processor", pixel_values=torch.zeros(2, 3, 12, 20, dtype=torch.uint8))
    refused(name, "pixel_values", "None", pixel_values=None)
    broken = torch.zeros(2, 3, 12, 20)
    broken[1, 2, 3, 4] = torch.nan
    refused(name, "pixel_values", "1 of 1440", pixel_values=broken)


def test_an_image_smaller_than_a_patch_is_refused(name):
    pixel_values = torch.zeros(2, 3, 3, 20)
    refused(name, "one patch of 4x4", "3x20", pixel_values=pixel_values, interpolate_pos_encoding=True)


@pytest.mark.parametrize("shape", [(4,), (2, 4), (3, 3), (2, 3, 1)])
def test_head_mask_of_another_shape_is_refused(name, shape):
    refused(name, "head_mask", "(2, 3)", head_mask=torch.ones(shape))


@pytest.mark.parametrize("shape", [(1, PATCHES), (2, PATCHES + 1), (2, PATCHES, 1)])
def test_values_per_patch_of_another_shape_are_refused(shape):
    for name, argument in (
        ("ViTForMaskedImageModeling", "bool_masked_pos"),
        ("ViTMAEModel", "noise"),
        ("ViTMAEForPreTraining", "noise"),
    ):
        refused(name, argument, f"(2, {PATCHES})", **{argument: torch.zeros(shape)})


def test_masked_positions_are_checked():
    masked = torch.zeros(2, PATCHES)
    refused("ViTModel", "bool_masked_pos", "use_mask_token=True", bool_masked_pos=masked)
    refused("ViTModel", "0 to 1", "2", options={"use_mask_token": True}, bool_masked_pos=masked.int() + 2)
    refused(
        "ViTForMaskedImageModeling", "encoder_stride", "2", "4", fields={"encoder_stride": 2}, bool_masked_pos=masked
    )


@pytest.mark.parametrize("name", ["ViTMAEModel", "ViTMAEForPreTraining"])
def test_mask_ratios_are_checked(name):
    for ratio in (1.0, -0.5, 0.99, float("nan")):
        refused(name, "mask_ratio", mask_ratio=ratio)
    refused(name, "noise", "NaN", noise=torch.full((2, PATCHES), torch.nan))


def test_a_loss_needs_something_masked():
    refused("ViTMAEForPreTraining", "mask_ratio", "no loss", mask_ratio=0)
    model, inputs = make_model("ViTMAEForPreTraining"), make_inputs("ViTMAEForPreTraining")
    with pytest.raises(InputError, match="mask removes no patch"):
        model.forward_loss(inputs["pixel_values"], torch.zeros(2, PATCHES, 48), torch.zeros(2, PATCHES))


def test_mask_ratio_zero_encodes_everything_in_image_order():
    model, inputs = make_model("ViTMAEModel"), make_inputs("ViTMAEModel")
    whole = model(**inputs, mask_ratio=0)
    assert whole.last_hidden_state.shape == (2, 1 + PATCHES, 24)
    assert whole.mask.sum() == 0
    np.testing.assert_array_equal(whole.ids_restore, np.tile(np.arange(PATCHES), (2, 1)))


def test_noise_comes_from_torch_when_none_is_given():
    model, inputs = make_model("ViTMAEModel"), make_inputs("ViTMAEModel")
    masks = []
    for seed in (3, 3, 4):
        torch.manual_seed(seed)
        masks.append(model(inputs["pixel_values"]).mask)
    assert torch.equal(masks[0], masks[1])
    assert not torch.equal(masks[0], masks[2])


def test_only_kept_patches_and_one_token_per_patch_are_gathered(monkeypatch):
    vit_mae, lengths = vit_torch.vit_mae, []
    take = vit_mae.take
    monkeypatch.setattr(vit_mae, "take", lambda tokens, ids: lengths.append(tokens.shape[1]) or take(tokens, ids))
    make_model("ViTMAEForPreTraining")(**make_inputs("ViTMAEForPreTraining"))
    assert lengths == [PATCHES, PATCHES]  # those of the encoder, and those of the decoder


SINGLE = {"problem_type": "single_label_classification"}
LABELS = [
    ({}, torch.tensor([1, -100]), "single_label_classification"),
    ({"num_labels": 1, **SINGLE}, torch.tensor([0, -100]), "single_label_classification"),
    ({}, torch.tensor([1, 4], dtype=torch.int32), "single_label_classification"),
    ({}, torch.tensor([[0, 1, 0, 1, 1]] * 2), "multi_label_classification"),
    ({}, torch.tensor([[0.0, 1, 0, 1, 1]] * 2), "multi_label_classification"),
    ({"num_labels": 1}, torch.tensor([0.5, 2]), "regression"),
    ({"num_labels": 1}, torch.tensor([[0.5], [2]]), "regression"),
    ({"problem_type": "regression"}, torch.tensor([[0.5, 2, 0, 1, 3]] * 2), "regression"),
]


@pytest.mark.parametrize(("fields", "labels", "problem"), LABELS)
def test_losses(fields, labels, problem):
    model, inputs = make_model("ViTForImageClassification", **fields), make_inputs("ViTForImageClassification")
    output = model(**inputs, labels=labels)
    logits = output.logits
    expected = {
        "single_label_classification": lambda: F.cross_entropy(logits, labels.long()),
        "multi_label_classification": lambda: F.binary_cross_entropy_with_logits(logits, labels.float()),
        "regression": lambda: F.mse_loss(logits, labels.float().view_as(logits)),
    }[problem]()
    assert output.loss.shape == ()
    np.testing.assert_allclose(output.loss.item(), expected.item(), rtol=1e-6)


@pytest.mark.parametrize(
    ("fields", "labels", "needles"),
    [
        ({}, torch.tensor([1, 5]), ("0 to 4", "5")),
        ({}, torch.tensor([1, -1]), ("0 to 4", "-1")),
        ({}, torch.tensor([-100, -100]), ("-100",)),
        ({}, torch.tensor([1]), ("(1,)",)),
        ({}, torch.tensor([0.5, 1.0]), ("(2, 5)", "(2,)")),
        ({"problem_type": "single_label_classification"}, torch.tensor([0.5, 1.0]), ("integers",)),
        ({"num_labels": 0}, torch.tensor([0, 1]), ("num_labels is 0",)),
    ],
)
def test_labels_that_do_not_fit_are_refused(fields, labels, needles):
    refused("ViTForImageClassification", "labels", *needles, fields=fields, labels=labels)


def test_a_label_out_of_range_makes_compiled_losses_nan():
    logits = torch.randn(3, 5, requires_grad=True)
    loss = vit_torch.vit.cross_entropy(logits, torch.tensor([1, 7, -100]))
    assert loss.isnan()


def test_without_labels_in_the_config_the_logits_are_features():
    model = make_model("ViTForImageClassification", num_labels=0)
    output = model(**make_inputs("ViTForImageClassification"), output_hidden_states=True)
    assert output.logits.shape == (2, 24)
    assert not [key for key in model.state_dict() if key.startswith("classifier")]


@pytest.mark.parametrize("size", [(12, 20), (16, 8), (14, 23)])
def test_patchify_and_back(size):
    model = make_model("ViTMAEForPreTraining")
    pixel_values = torch.randn(2, 3, *size)
    patches = model.patchify(pixel_values, interpolate_pos_encoding=True)
    rows, columns = size[0] // 4, size[1] // 4
    assert patches.shape == (2, rows * columns, 48)
    np.testing.assert_array_equal(patches[1, columns, :4], pixel_values[1, :, 4, :2].T.flatten()[:4])
    whole = pixel_values[:, :, : rows * 4, : columns * 4]
    np.testing.assert_array_equal(model.unpatchify(patches, size), whole)
    with pytest.raises(InputError, match="unpatchify"):
        model.unpatchify(patches[:, 1:], size)


def test_unseen_pixels_are_named_once(caplog):
    warn_unseen.cache_clear()
    model = make_model("ViTModel", image_size=(13, 22))
    with caplog.at_level(logging.WARNING, logger="vitriad"):
        for _ in range(2):
            model(torch.randn(1, 3, 15, 21), interpolate_pos_encoding=True)
    assert [record.getMessage() for record in caplog.records] == [
        "images of 13x22 pixels in patches of 4x4: the bottom 1 rows and the right 2 columns are never seen",
        "images of 15x21 pixels in patches of 4x4: the bottom 3 rows and the right 1 columns are never seen",
    ]


def test_every_activation_runs_with_the_parameters_of_the_table():
    for activation in ACTIVATIONS:
        model = make_model("ViTModel", hidden_act=activation, pooler_act=activation)
        assert model(**make_inputs("ViTModel")).pooler_output.isfinite().all(), activation
    doubled = make_model("ViTModel", hidden_act=lambda x: 2 * x)
    assert doubled(**make_inputs("ViTModel")).last_hidden_state.isfinite().all()


def test_fresh_models_follow_the_table():
    torch.manual_seed(0)
    fields = {"hidden_size": 128, "num_attention_heads": 4, "initializer_range": 0.05}
    model = vit_torch.ViTMAEForPreTraining(make_config("ViTMAEForPreTraining", **fields))
    assert model.training
    for key, row in model.parameter_table().items():
        values = model.state_dict()[key].numpy()
        if row.init.kind == "normal" and values.size > 1000:
            np.testing.assert_allclose(values.std(), 0.05, rtol=0.1, err_msg=key)
        elif row.init.kind == "uniform":
            np.testing.assert_allclose(np.abs(values).max(), row.init.value, rtol=0.01, err_msg=key)
        elif row.init.kind == "sincos":
            assert values[0, 0].max() == 0 and values[0, 1:].std() > 0.4, key
        elif row.init.kind == "constant":
            np.testing.assert_array_equal(values, np.float32(row.init.value), err_msg=key)
    assert [p.requires_grad for p in model.parameters()].count(False) == 2


@pytest.mark.parametrize("deviation", [0.02, 1.5])
def test_fresh_weights_are_cut_at_two(deviation):
    torch.manual_seed(0)
    model = vit_torch.ViTModel(make_config("ViTModel", hidden_size=192, initializer_range=deviation))
    values = model.state_dict()["pooler.dense.weight"].numpy()
    assert np.abs(values).max() < 2
    np.testing.assert_allclose(values.std(), {0.02: 0.02, 1.5: 1.0229}[deviation], rtol=0.02)
    assert (np.abs(values) > 1.9).mean() > 0.01 or deviation == 0.02


def test_every_class_is_exported():
    assert set(FIELDS) <= set(vit_torch.__all__)


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
