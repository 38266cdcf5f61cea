"""What people who come from transformers' Flax classes write."""

import logging

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax_models import make_inputs, make_model

import vit_flax
from vit_core import CheckpointError
from vit_flax import FlaxViTForImageClassification, FlaxViTModel, FlaxViTPreTrainedModel

WIDENED = 'parameters stored in bfloat16 become float32; params_dtype="auto" keeps them.'


def dtypes(model) -> set[str]:
    return {leaf.dtype.name for leaf in jax.tree.leaves(model.params)}


@pytest.fixture
def half(tmp_path):
    """A classifier whose parameters were saved in bfloat16."""
    model = make_model("FlaxViTForImageClassification")
    model.save_pretrained(tmp_path, params=model.to_bf16(model.params))
    return tmp_path


def test_half_precision_parameters_are_widened_with_one_warning(half, caplog):
    with caplog.at_level(logging.WARNING):
        model = FlaxViTForImageClassification.from_pretrained(half)
    assert dtypes(model) == {"float32"}
    assert [record.getMessage().partition(": ")[2] for record in caplog.records] == [WIDENED]


@pytest.mark.parametrize(("asked", "found"), [("auto", "bfloat16"), (jnp.float16, "float16"), ("float32", "float32")])
def test_params_dtype_is_the_dtype_of_the_parameters_alone(half, caplog, asked, found):
    widened = FlaxViTForImageClassification.from_pretrained(half)
    caplog.clear()
    model = FlaxViTForImageClassification.from_pretrained(half, params_dtype=asked)
    assert dtypes(model) == {found}
    assert not caplog.records
    inputs = make_inputs("FlaxViTModel")
    with jax.numpy_dtype_promotion("standard"):  # Flax' own LayerNorm leaves it to JAX to widen its scale
        logits = model(**inputs).logits
    assert logits.dtype == jnp.float32
    np.testing.assert_allclose(logits, widened(**inputs).logits, rtol=0, atol=1e-5)


def test_fresh_parameters_have_the_dtype_that_was_asked_for(half):
    model = FlaxViTForImageClassification.from_pretrained(
        half, params_dtype="auto", num_labels=7, ignore_mismatched_sizes=True
    )
    assert model.params["classifier"]["kernel"].dtype == jnp.bfloat16
    assert dtypes(FlaxViTModel(model.config, params_dtype=jnp.float16)) == {"float16"}


def test_stored_half_precision_survives_loading_and_saving(half, tmp_path):
    model = FlaxViTForImageClassification.from_pretrained(half, params_dtype="auto")
    model.save_pretrained(tmp_path / "again")
    assert (tmp_path / "again" / "model.safetensors").read_bytes() == (half / "model.safetensors").read_bytes()


def test_a_params_tree_without_the_pooler_is_saved_where_the_class_can_do_without(tmp_path):
    model = make_model("FlaxViTModel")
    without = {name: tree for name, tree in model.params.items() if name != "pooler"}
    model.save_pretrained(tmp_path, params=without)
    loaded, info = FlaxViTModel.from_pretrained(tmp_path, add_pooling_layer=False, output_loading_info=True)
    assert not any(info.values())
    images = make_inputs("FlaxViTModel")["pixel_values"]
    np.testing.assert_array_equal(loaded(images).last_hidden_state, model(images).last_hidden_state)


@pytest.mark.parametrize("lost", ["layernorm", "pooler/dense/bias"])
def test_other_parameters_cannot_be_left_out(tmp_path, lost):
    model = make_model("FlaxViTModel")
    params = jax.tree.map(lambda leaf: leaf, model.params)
    *path, last = lost.split("/")
    branch = params
    for word in path:
        branch = branch[word]
    del branch[last]
    with pytest.raises(CheckpointError, match="lack " + lost.replace("/", ".")):
        model.save_pretrained(tmp_path, params=params)


def test_repr_says_class_sizes_and_dtypes():
    model = make_model("FlaxViTModel")
    config = model.config
    text = repr(model)
    assert text.startswith(f"FlaxViTModel({config.num_hidden_layers} layers of {config.hidden_size}, ")
    assert text.endswith(f"{model.num_parameters():,} parameters in float32, computed in float32)")
    assert not type(model).can_generate()
    assert "parameters in bfloat16" in repr(FlaxViTModel(config, params_dtype="bfloat16", _do_init=False))


def test_every_model_is_a_pretrained_model():
    for name in ("FlaxViTModel", "FlaxViTForImageClassification", "FlaxViTMAEForPreTraining"):
        assert issubclass(getattr(vit_flax, name), FlaxViTPreTrainedModel)
