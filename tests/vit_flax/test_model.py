"""What the five classes take and give, beside the numbers."""

import logging
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen
from flax_models import FIELDS, PATCHES, make_config, make_inputs, make_model

import vit_flax
from vit_core import ConfigError, InputError
from vit_core.config import ACTIVATIONS
from vit_core.inputs import warn_unseen

CLASSIFIER = "FlaxViTForImageClassification"
MAIN_OUTPUT = {
    "FlaxViTModel": "last_hidden_state",
    "FlaxViTForImageClassification": "logits",
    "FlaxViTForMaskedImageModeling": "reconstruction",
    "FlaxViTMAEModel": "last_hidden_state",
    "FlaxViTMAEForPreTraining": "logits",
}


def check_same(got, expected, tolerance=0.0):
    for one, other in zip(jax.tree.leaves(got), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(one, other, rtol=0, atol=tolerance * np.abs(other).max())


def refused(name: str, *needles: str, options: dict | None = None, fields: dict | None = None, **changes) -> None:
    """Checks that a call is refused."""
    model = make_model(name, options=options, **(fields or {}))
    with pytest.raises(InputError) as caught:
        model(**{**make_inputs(name), **changes})
    assert [needle for needle in needles if needle not in str(caught.value)] == []
    assert len(str(caught.value).splitlines()) <= 3


def refused_in_graphs(name: str, *needles: str, fields: dict | None = None, **changes) -> None:
    """The same, and while the caller's own compiled code is traced: for what shapes and dtypes alone tell."""
    refused(name, *needles, fields=fields, **changes)
    inputs = {**make_inputs(name), **changes}
    arrays = {key: value for key, value in inputs.items() if isinstance(value, np.ndarray)}
    model = make_model(name, **(fields or {}))
    rest = {key: value for key, value in inputs.items() if key not in arrays}
    with pytest.raises(InputError) as caught:
        jax.jit(lambda arrays: model(**arrays, **rest))(arrays)
    assert [needle for needle in needles if needle not in str(caught.value)] == []


@pytest.mark.parametrize("through", ["call", "config"])
def test_tuples_hold_the_fields_that_are_present(name, through):
    model, inputs = make_model(name), make_inputs(name)
    named = model(**inputs, output_attentions=True)
    if through == "config":
        model.config.return_dict = False
    values = model(**inputs, output_attentions=True, **({"return_dict": False} if through == "call" else {}))
    assert type(values) is tuple
    assert len(values) == len(named)
    check_same(values, named.to_tuple())


def test_switches_come_from_the_config(name):
    model = make_model(name, output_attentions=True, output_hidden_states=True)
    output = model(**make_inputs(name))
    assert [len(output.attentions), len(output.hidden_states)] == [2, 3]
    assert "attentions" not in model(**make_inputs(name), output_attentions=False)


def test_the_configuration_is_a_copy_and_stays_as_it_was():
    config = make_config(CLASSIFIER)
    model = vit_flax.FlaxViTForImageClassification(config)
    before = config.to_json_string()
    model(**make_inputs(CLASSIFIER), labels=np.array([1, 2]))
    model.prune_heads({0: [1]})
    assert config.to_json_string() == before
    assert model.config.problem_type is None
    assert model.module.config is model.config


def test_arguments_stay_as_they_were():
    model = make_model("FlaxViTModel", options={"use_mask_token": True})
    inputs = {
        **make_inputs("FlaxViTModel"),
        "head_mask": np.ones((2, 3)),
        "bool_masked_pos": np.zeros((2, PATCHES), bool),
    }
    before = {key: value.copy() for key, value in inputs.items()}
    model(**inputs)
    assert list(inputs) == list(before)
    for key, value in before.items():
        np.testing.assert_array_equal(inputs[key], value)


@pytest.mark.parametrize("implementation", ["eager", "sdpa"])
def test_head_mask_silences_heads_under_both_kernels(name, implementation):
    model, inputs = make_model(name, attn_implementation=implementation), make_inputs(name)
    mask = np.array([[1.0, 0.0, 1.0], [1.0, 1.0, 0.5]])
    masked = model(**inputs, head_mask=mask, output_attentions=True)
    plain = model(**inputs, output_attentions=True)
    assert np.abs(masked.attentions[0][:, 1]).max() == 0
    check_same(masked.attentions[0][:, 0], plain.attentions[0][:, 0])
    assert np.abs(masked[MAIN_OUTPUT[name]] - plain[MAIN_OUTPUT[name]]).max() > 1e-3


def test_pruning_is_masking_for_good(name):
    model, inputs = make_model(name), make_inputs(name)
    mask = np.array([[1.0, 0.0, 1.0], [1.0, 1.0, 1.0]])
    expected = model(**inputs, head_mask=mask)[MAIN_OUTPUT[name]]
    model.prune_heads({0: [1]})
    assert model.config.pruned_heads == {0: [1]}
    check_same(model(**inputs)[MAIN_OUTPUT[name]], expected, 1e-6)
    model.prune_heads({0: [1], 1: [2]})
    assert model.config.pruned_heads == {0: [1], 1: [2]}
    model.params = model.params  # of the shapes that are wanted now
    shapes = {key: array.shape for key, array in model.canonical_tensors().items()}
    assert shapes == {key: row.shape for key, row in model.parameter_table().items()}
    with pytest.raises(ConfigError):
        model.prune_heads({0: [0, 2]})


def gradients(model, inputs):
    """Those of one training step, with the same random numbers every time."""

    def number(params):
        output = model(**inputs, params=params, dropout_rng=jax.random.key(7), train=True)
        return jnp.square(output[0]).sum()

    return jax.grad(number)(model.params)


@pytest.mark.parametrize("rate", [0.0, 0.3])
def test_gradient_checkpointing_changes_memory_not_gradients(name, rate):
    with jax.enable_x64(True):
        model = make_model(name, "float64", hidden_dropout_prob=rate, attention_probs_dropout_prob=rate)
        inputs = make_inputs(name)
        expected = gradients(model, inputs)
        model.gradient_checkpointing_enable()
        assert model.is_gradient_checkpointing
        text = str(jax.make_jaxpr(lambda params: model(**inputs, params=params)[0])(model.params))
        assert text.count("remat") >= 2
        for one, other in zip(*map(jax.tree.leaves, (gradients(model, inputs), expected)), strict=True):
            np.testing.assert_allclose(one, other, rtol=1e-9, atol=1e-12)
    model.gradient_checkpointing_disable()
    assert not model.is_gradient_checkpointing


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
@pytest.mark.parametrize("stored", ["the same", "float32"])
def test_half_precision_stays_near_and_losses_are_wide(name, dtype, stored):
    model, inputs = make_model(name), make_inputs(name)
    wide = model(**inputs)[MAIN_OUTPUT[name]]
    with jax.numpy_dtype_promotion("standard"):
        half = getattr(vit_flax, name)(model.config, dtype=dtype, _do_init=False)
        cast = {"bfloat16": half.to_bf16, "float16": half.to_fp16}[dtype]
        labels = {"labels": np.array([0, 4])} if name == CLASSIFIER else {}
        output = half(**inputs, **labels, params=model.params if stored == "float32" else cast(model.params))
    assert output[MAIN_OUTPUT[name]].dtype.name == dtype
    error = np.abs(np.asarray(output[MAIN_OUTPUT[name]], np.float32) - wide).max()
    assert error < (0.05 if dtype == "bfloat16" else 0.006) * np.abs(wide).max()
    assert output.get("loss", jnp.zeros(())).dtype == np.float32


def test_softmax_is_computed_in_float32(name):
    model, inputs = getattr(vit_flax, name)(make_config(name), dtype=jnp.bfloat16, seed=0), make_inputs(name)
    with jax.numpy_dtype_promotion("standard"):
        text = jax.jit(lambda params: model(**inputs, params=params)).lower(model.params).as_text()
    exponentials = re.findall(r"stablehlo.exponential %\w+ : tensor<\w*x(\w+)>", text)
    assert set(exponentials) == {"f32"}


def test_attention_dropout_is_drawn_for_every_number(name):
    model = make_model(name, hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.5)
    output = model(**make_inputs(name), output_attentions=True, train=True, dropout_rng=jax.random.key(0))
    attentions = np.asarray(output.attentions[0])
    dropped = (attentions == 0).reshape(-1, *attentions.shape[2:])  # (batch * heads, tokens, tokens)
    assert len(np.unique(dropped, axis=0)) == len(dropped)


def test_dropout_is_on_in_training_only(name):
    model = make_model(name, hidden_dropout_prob=0.5, attention_probs_dropout_prob=0.5)
    inputs = make_inputs(name)
    first, second = (model(**inputs)[MAIN_OUTPUT[name]] for _ in range(2))
    check_same(first, second)
    same, first, second = (
        model(**inputs, train=True, dropout_rng=key)[MAIN_OUTPUT[name]]
        for key in (jax.random.key(1), jax.random.PRNGKey(1), jax.random.key(2))
    )
    np.testing.assert_array_equal(same, first)
    assert np.abs(first - second).max() > 1e-3
    with pytest.raises(InputError, match="dropout_rng"):
        model(**inputs, train=True)


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
    refused_in_graphs(name, "pixel_values", *needles, pixel_values=np.zeros(shape, np.float32))


def test_images_of_another_kind_are_refused(name):
    refused_in_graphs(name, "pixel_values", "image processor", pixel_values=np.zeros((2, 3, 12, 20), np.uint8))
    refused_in_graphs(name, "pixel_values", "None", pixel_values=None)
    broken = np.zeros((2, 3, 12, 20), np.float32)
    broken[1, 2, 3, 4] = np.nan
    refused(name, "pixel_values", "1 of 1440", pixel_values=broken)


def test_an_image_smaller_than_a_patch_is_refused(name):
    pixel_values = np.zeros((2, 3, 3, 20), np.float32)
    refused_in_graphs(name, "one patch of 4x4", "3x20", pixel_values=pixel_values, interpolate_pos_encoding=True)


@pytest.mark.parametrize("shape", [(4,), (2, 4), (3, 3), (2, 3, 1)])
def test_head_mask_of_another_shape_is_refused(name, shape):
    refused_in_graphs(name, "head_mask", "(2, 3)", head_mask=np.ones(shape, np.float32))


@pytest.mark.parametrize("shape", [(1, PATCHES), (2, PATCHES + 1), (2, PATCHES, 1)])
def test_values_per_patch_of_another_shape_are_refused(shape):
    for name, argument in (
        ("FlaxViTForMaskedImageModeling", "bool_masked_pos"),
        ("FlaxViTMAEModel", "noise"),
        ("FlaxViTMAEForPreTraining", "noise"),
    ):
        refused_in_graphs(name, argument, f"(2, {PATCHES})", **{argument: np.zeros(shape, np.float32)})


def test_masked_positions_are_checked():
    masked = np.zeros((2, PATCHES), np.float32)
    refused("FlaxViTModel", "bool_masked_pos", "use_mask_token=True", bool_masked_pos=masked)
    refused("FlaxViTModel", "0 to 1", "2", options={"use_mask_token": True}, bool_masked_pos=masked.astype(int) + 2)
    name, fields = "FlaxViTForMaskedImageModeling", {"encoder_stride": 2}
    refused_in_graphs(name, "encoder_stride", "2", "4", fields=fields, bool_masked_pos=masked)


@pytest.mark.parametrize("name", ["FlaxViTMAEModel", "FlaxViTMAEForPreTraining"])
def test_mask_ratios_are_checked(name):
    for ratio in (1.0, -0.5, 0.99, float("nan")):
        refused_in_graphs(name, "mask_ratio", mask_ratio=ratio)
    refused(name, "noise", "NaN", noise=np.full((2, PATCHES), np.nan))


def test_a_loss_needs_something_masked():
    refused_in_graphs("FlaxViTMAEForPreTraining", "mask_ratio", "no loss", mask_ratio=0)
    model, inputs = make_model("FlaxViTMAEForPreTraining"), make_inputs("FlaxViTMAEForPreTraining")
    with pytest.raises(InputError, match="mask removes no patch"):
        model.forward_loss(inputs["pixel_values"], np.zeros((2, PATCHES, 48)), np.zeros((2, PATCHES)))


def test_mask_ratio_zero_encodes_everything_in_image_order():
    model, inputs = make_model("FlaxViTMAEModel"), make_inputs("FlaxViTMAEModel")
    whole = model(**inputs, mask_ratio=0)
    assert whole.last_hidden_state.shape == (2, 1 + PATCHES, 24)
    assert np.sum(whole.mask) == 0
    np.testing.assert_array_equal(whole.ids_restore, np.tile(np.arange(PATCHES), (2, 1)))


@pytest.mark.parametrize("name", ["FlaxViTMAEModel", "FlaxViTMAEForPreTraining"])
def test_noise_is_drawn_anew_for_each_call_when_none_is_given(name):
    images = make_inputs(name)["pixel_values"]
    one, same = ([make_model(name)(images).mask for model in [make_model(name)]] for _ in range(2))
    check_same(one, same)
    model = make_model(name)
    masks = [np.asarray(model(images).mask).tobytes() for _ in range(4)]
    assert len(set(masks)) == 4
    by_key = [model(images, mask_rng=key).mask for key in (jax.random.key(3), jax.random.PRNGKey(3))]
    check_same(*by_key)
    for compiled in (lambda: model(images), lambda: jax.grad(lambda p: model(images, params=p)[0].sum())(model.params)):
        with pytest.raises(InputError, match="mask_rng"):  # also where the images are constants
            jax.jit(compiled)()
    jax.jit(lambda images, key: model(images, mask_rng=key))(images, jax.random.key(3))


def test_only_kept_patches_and_one_token_per_patch_are_gathered(monkeypatch):
    vit_mae, lengths = vit_flax.vit_mae, []
    take = vit_mae.take
    monkeypatch.setattr(vit_mae, "take", lambda tokens, ids: lengths.append(tokens.shape[1]) or take(tokens, ids))
    make_model("FlaxViTMAEForPreTraining")(**make_inputs("FlaxViTMAEForPreTraining"))
    assert lengths == [PATCHES, PATCHES]  # those of the encoder, and those of the decoder


SINGLE = {"problem_type": "single_label_classification"}
LABELS = [
    ({}, np.array([1, -100]), "single_label_classification"),
    ({"num_labels": 1, **SINGLE}, np.array([0, -100]), "single_label_classification"),
    ({}, np.array([1, 4], np.int32), "single_label_classification"),
    ({}, np.array([[0, 1, 0, 1, 1]] * 2), "multi_label_classification"),
    ({}, np.array([[0.0, 1, 0, 1, 1]] * 2), "multi_label_classification"),
    ({"num_labels": 1}, np.array([0.5, 2]), "regression"),
    ({"num_labels": 1}, np.array([[0.5], [2]]), "regression"),
    ({"problem_type": "regression"}, np.array([[0.5, 2, 0, 1, 3]] * 2), "regression"),
]


@pytest.mark.parametrize(("fields", "labels", "problem"), LABELS)
def test_losses(fields, labels, problem):
    model = make_model(CLASSIFIER, **fields)
    output = model(**make_inputs(CLASSIFIER), labels=labels)
    logits = np.asarray(output.logits, np.float64)
    expected = {
        "single_label_classification": lambda: (
            np.log(np.exp(logits).sum(1)) - logits[np.arange(2), np.maximum(labels, 0)]
        )[labels >= 0].mean(),
        "multi_label_classification": lambda: (np.log1p(np.exp(logits)) - logits * labels).mean(),
        "regression": lambda: np.square(logits - labels.reshape(logits.shape)).mean(),
    }[problem]()
    assert output.loss.shape == ()
    np.testing.assert_allclose(output.loss, expected, rtol=1e-6, atol=1e-12)


@pytest.mark.parametrize(
    ("fields", "labels", "needles"),
    [
        ({}, [1, 5], ("0 to 4", "5")),
        ({}, [1, -1], ("0 to 4", "-1")),
        ({}, [-100, -100], ("-100",)),
        ({}, [1], ("(1,)",)),
        ({}, [0.5, 1.0], ("(2, 5)", "(2,)")),
        ({"problem_type": "single_label_classification"}, [0.5, 1.0], ("integers",)),
        ({"num_labels": 0}, [0, 1], ("num_labels is 0",)),
    ],
)
def test_labels_that_do_not_fit_are_refused(fields, labels, needles):
    refused(CLASSIFIER, "labels", *needles, fields=fields, labels=np.array(labels))


def test_a_label_out_of_range_makes_compiled_losses_nan():
    model, inputs = make_model(CLASSIFIER), make_inputs(CLASSIFIER)
    output = jax.jit(lambda labels: model(**inputs, labels=labels))(jnp.array([1, 7]))
    assert np.isnan(output.loss)


def test_without_labels_in_the_config_the_logits_are_features():
    model = make_model(CLASSIFIER, num_labels=0)
    output = model(**make_inputs(CLASSIFIER), output_hidden_states=True)
    assert output.logits.shape == (2, 24)
    assert not [key for key in model.canonical_tensors() if key.startswith("classifier")]


@pytest.mark.parametrize("size", [(12, 20), (16, 8), (14, 23)])
def test_patchify_and_back(size):
    model = make_model("FlaxViTMAEForPreTraining")
    pixel_values = np.random.default_rng(1).standard_normal((2, 3, *size), np.float32)
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
    model = make_model("FlaxViTModel", image_size=(13, 22))
    with caplog.at_level(logging.WARNING, logger="vitriad"):
        for _ in range(2):
            model(np.zeros((1, 3, 15, 21), np.float32), interpolate_pos_encoding=True)
    assert [record.getMessage() for record in caplog.records] == [
        "images of 13x22 pixels in patches of 4x4: the bottom 1 rows and the right 2 columns are never seen",
        "images of 15x21 pixels in patches of 4x4: the bottom 3 rows and the right 1 columns are never seen",
    ]


def test_every_activation_runs_with_the_parameters_of_the_table():
    for activation in ACTIVATIONS:
        model = make_model("FlaxViTModel", hidden_act=activation, pooler_act=activation)
        assert np.isfinite(model(**make_inputs("FlaxViTModel")).pooler_output).all(), activation
    doubled = make_model("FlaxViTModel", hidden_act=lambda x: 2 * x)
    assert np.isfinite(doubled(**make_inputs("FlaxViTModel")).last_hidden_state).all()


def test_fresh_models_follow_the_table():
    fields = {"hidden_size": 128, "num_attention_heads": 4, "initializer_range": 0.05}
    model = vit_flax.FlaxViTMAEForPreTraining(make_config("FlaxViTMAEForPreTraining", **fields))
    tensors = model.canonical_tensors()
    for key, row in model.parameter_table().items():
        values = tensors[key]
        if row.init.kind == "normal" and values.size > 1000:
            np.testing.assert_allclose(values.std(), 0.05, rtol=0.1, err_msg=key)
        elif row.init.kind == "uniform":
            np.testing.assert_allclose(np.abs(values).max(), row.init.value, rtol=0.01, err_msg=key)
        elif row.init.kind == "sincos":
            assert values[0, 0].max() == 0 and values[0, 1:].std() > 0.4, key
        elif row.init.kind == "constant":
            np.testing.assert_array_equal(values, np.float32(row.init.value), err_msg=key)


@pytest.mark.parametrize("deviation", [0.02, 1.5])
def test_fresh_weights_are_cut_at_two(deviation):
    model = vit_flax.FlaxViTModel(make_config("FlaxViTModel", hidden_size=192, initializer_range=deviation))
    values = model.canonical_tensors()["pooler.dense.weight"]
    assert np.abs(values).max() < 2
    np.testing.assert_allclose(values.std(), {0.02: 0.02, 1.5: 1.0229}[deviation], rtol=0.02)
    assert (np.abs(values) > 1.9).mean() > 0.01 or deviation == 0.02


def test_every_class_is_exported():
    assert set(FIELDS) <= set(vit_flax.__all__)


def test_parameters_are_counted():
    model = make_model("FlaxViTMAEForPreTraining")
    table = model.parameter_table()
    counts = {name: int(np.prod(row.shape)) for name, row in table.items()}
    assert model.num_parameters() == sum(counts.values())
    assert model.num_parameters(only_trainable=True) == sum(counts[n] for n, row in table.items() if row.trainable)
    embeddings = sum(count for name, count in counts.items() if name.startswith("vit.embeddings."))
    assert model.num_parameters(exclude_embeddings=True) == sum(counts.values()) - embeddings


def test_activation_modules_may_not_have_parameters():
    for name in ("hidden_act", "pooler_act"):
        with pytest.raises(ConfigError, match="PReLU"):
            vit_flax.FlaxViTModel(make_config("FlaxViTModel", **{name: linen.PReLU()}), _do_init=False)


def test_the_wrong_configuration_is_refused():
    with pytest.raises(InputError, match=r"FlaxViTModel: expected a ViTConfig, got ViTMAEConfig"):
        vit_flax.FlaxViTModel(make_config("FlaxViTMAEModel"))
    with pytest.raises(InputError, match="from_pretrained"):
        vit_flax.FlaxViTModel("google/vit-base-patch16-224")


def test_trees_are_cast_where_a_mask_says():
    model = make_model("FlaxViTModel")
    chosen = jax.tree.map(lambda leaf: leaf.ndim > 1, model.params)
    for cast, dtype in ((model.to_bf16, "bfloat16"), (model.to_fp16, "float16")):
        for leaf, is_chosen in zip(*map(jax.tree.leaves, (cast(model.params, chosen), chosen)), strict=True):
            assert leaf.dtype.name == (dtype if is_chosen else "float32")
        assert {leaf.dtype.name for leaf in jax.tree.leaves(model.to_fp32(cast(model.params)))} == {"float32"}


def test_options_that_a_class_does_not_have_are_refused():
    with pytest.raises(InputError, match=r"no option 'pooling'\. Options are add_pooling_layer, use_mask_token"):
        vit_flax.FlaxViTModel(make_config("FlaxViTModel"), pooling=True)
    with pytest.raises(InputError, match=r"no option 'add_pooling_layer'"):
        vit_flax.FlaxViTMAEModel(make_config("FlaxViTMAEModel"), add_pooling_layer=False)
