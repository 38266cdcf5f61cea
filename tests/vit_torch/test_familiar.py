"""What scripts for transformers ask of a model: there, or refused with what to write instead."""

import pickle
from copy import deepcopy
from pathlib import Path

import numpy as np
import pytest
import torch
from torch_models import SIZES, make_config, make_inputs, make_model

import vit_torch
from vit_core import ConfigError, InputError
from vit_torch.familiar import LEFT_OUT

CLASSIFIER = "ViTForImageClassification"


def test_the_attention_that_runs_is_in_the_configuration(name):
    config = make_config(name)
    model = getattr(vit_torch, name)(config)
    assert model.config._attn_implementation == "sdpa" == model.config.attn_implementation
    assert config.attn_implementation is None and model.config == config
    model.set_attn_implementation("eager")
    assert model.config._attn_implementation == "eager"
    eager = getattr(vit_torch, name)(make_config(name, attn_implementation="eager"))
    assert eager.config._attn_implementation == "eager"


def test_attributes_that_scripts_read(name, tmp_path):
    model = make_model(name, **({"num_labels": 5} if name == CLASSIFIER else {}))
    assert model.supports_gradient_checkpointing and not model.can_generate()
    assert model.get_output_embeddings() is None and model.tie_weights() is None
    assert model.num_labels == model.config.num_labels
    assert model.name_or_path == "" and model.config._commit_hash is None
    model.save_pretrained(tmp_path)
    assert getattr(vit_torch, name).from_pretrained(tmp_path).name_or_path == str(tmp_path)
    assert model.get_memory_footprint() == 4 * model.num_parameters()
    assert model.double().get_memory_footprint(return_buffers=False) == 8 * model.num_parameters()
    patches = model.base_model.embeddings.patch_embeddings
    assert (patches.image_size, patches.patch_size, patches.num_channels, patches.num_patches) == (
        (12, 20),
        (4, 4),
        3,
        15,
    )
    assert {*model._no_split_modules} & {type(module).__name__ for module in model.modules()} > {"ViTLayer"}
    base = vit_torch.ViTMAEPreTrainedModel if "MAE" in name else vit_torch.ViTPreTrainedModel
    other = vit_torch.ViTPreTrainedModel if "MAE" in name else vit_torch.ViTMAEPreTrainedModel
    assert isinstance(model, base) and not isinstance(model, other)


def test_buffers_count_in_the_footprint():
    model = make_model("ViTModel", hidden_act="xielu")
    buffers = sum(buffer.nbytes for buffer in model.buffers())
    assert buffers > 0
    assert model.get_memory_footprint() - model.get_memory_footprint(return_buffers=False) == buffers


def test_other_patch_embeddings_can_be_put_in(name):
    model, inputs = make_model(name), make_inputs(name)
    expected = model(**inputs)[0]

    class Doubled(torch.nn.Module):
        def __init__(self, inner):
            super().__init__()
            self.inner = inner

        def forward(self, pixel_values):
            return 2 * self.inner(pixel_values / 2) - self.inner(torch.zeros_like(pixel_values))

    model.set_input_embeddings(Doubled(model.get_input_embeddings()))
    assert type(model.get_input_embeddings()) is Doubled and model.dtype == torch.float32
    np.testing.assert_allclose(model(**inputs)[0].detach(), expected.detach(), rtol=0, atol=1e-5)


def test_gradients_reach_the_input_of_frozen_layers(name):
    model, inputs = make_model(name).requires_grad_(False), make_inputs(name)
    assert not model(**inputs)[0].requires_grad
    model.enable_input_require_grads()
    model.enable_input_require_grads()
    assert model(**inputs)[0].requires_grad
    model.disable_input_require_grads()
    model.disable_input_require_grads()
    assert not model(**inputs)[0].requires_grad


def test_what_is_left_out_says_what_to_write():
    model = make_model(CLASSIFIER)
    for missing, instead in LEFT_OUT.items():
        assert not hasattr(model, missing)
        with pytest.raises(AttributeError) as caught:
            getattr(model, missing)
        assert str(caught.value) == f"{CLASSIFIER} has no {missing}: {instead}."
        assert len(str(caught.value)) <= 160
    with pytest.raises(AttributeError, match="no attribute 'nonsense'"):
        model.nonsense  # noqa: B018
    for copied in (deepcopy(model), pickle.loads(pickle.dumps(model))):
        torch.testing.assert_close(copied.state_dict(), model.state_dict(), rtol=0, atol=0)


def test_the_page_of_migration_lists_what_is_left_out():
    page = (Path(__file__).parent.parent.parent / "docs" / "guides" / "migration.md").read_text(encoding="utf-8")
    rows = [line.strip("| ").split(" | ") for line in page.splitlines() if line.startswith("| `")]
    listed = {name.strip("`"): row[-1] for row in rows for name in row[0].split(", ")}
    assert {name: listed.get(name) for name in LEFT_OUT} == LEFT_OUT


@pytest.mark.parametrize("base", ["ViTPreTrainedModel", "ViTMAEPreTrainedModel"])
def test_a_new_kind_of_model_is_refused_with_what_to_write(base):
    class Mine(getattr(vit_torch, base)):
        pass

    with pytest.raises(
        InputError, match=r"^Mine: expected one of ViTModel.*\n.*inside an nn\.Module of your own"
    ) as caught:
        Mine(Mine.config_class(**SIZES))
    assert len(str(caught.value).splitlines()) <= 3


def test_another_size_is_a_runtime_error(tmp_path):
    model = make_model(CLASSIFIER)
    model.save_pretrained(tmp_path)
    with pytest.raises(RuntimeError, match=r"classifier\.weight"):
        vit_torch.ViTForImageClassification.from_pretrained(tmp_path, num_labels=9)
    with pytest.raises(RuntimeError, match=r"layernorm\.bias \(3,\)"):
        vit_torch.ViTModel.from_tensors(
            make_config("ViTModel"), {**make_model("ViTModel").state_dict(), "layernorm.bias": torch.zeros(3)}
        )


def test_layers_are_pruned_from_the_end(name):
    model, twin = make_model(name), make_model(name)
    model.prune_heads({-1: [0, 2], 0: [1]})
    twin.prune_heads({1: [0, 2], 0: [1]})
    assert model.config.pruned_heads == twin.config.pruned_heads == {1: [0, 2], 0: [1]}
    np.testing.assert_array_equal(model(**make_inputs(name))[0].detach(), twin(**make_inputs(name))[0].detach())
    for layers in ({-3: [0]}, {2: [0]}, {-1: [1]}):
        with pytest.raises(ConfigError, match="pruned_heads"):
            model.prune_heads(layers)
    assert model.config.pruned_heads == twin.config.pruned_heads


def test_a_model_of_a_configuration_takes_another_attention_and_dtype(name):
    cls, config = getattr(vit_torch, name), make_config(name)
    assert cls._supports_sdpa and cls._can_set_attn_implementation() and not cls.can_generate()
    model = cls._from_config(config, attn_implementation="eager", dtype=torch.float64)
    assert (model.config._attn_implementation, model.dtype) == ("eager", torch.float64)
    assert cls._from_config(config, torch_dtype=torch.bfloat16).dtype == torch.bfloat16
    plain = cls._from_config(config)
    assert (plain.config._attn_implementation, plain.dtype) == ("sdpa", torch.float32)
    assert config.attn_implementation is None
