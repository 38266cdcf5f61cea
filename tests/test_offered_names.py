"""What a model offers beside what its framework's own class does: names for users, no part of the machinery."""

import pytest
from backends import INSTALLED
from bad_calls import CLASSIFIER, small_config

from vit_core.parameters import draw
from vitriad.auto import model_class

CONFIGURED = {"base_model_prefix", "config", "config_class", "framework", "main_input_name", "options"}
FILES = {"canonical_tensors", "from_pretrained", "from_tensors", "push_to_hub", "save_pretrained"}
ASKED = {"can_generate", "get_input_embeddings", "num_parameters", "parameter_table"}
CHANGED = {"gradient_checkpointing_disable", "gradient_checkpointing_enable", "prune_heads", "set_attn_implementation"}
INSIDE = {"forward_intermediates", "get_intermediate_layers"}
EVERYWHERE = CONFIGURED | FILES | ASKED | CHANGED | INSIDE | {"is_gradient_checkpointing"}
OWN = {
    "torch": "activation_checkpointing_disable activation_checkpointing_enable is_activation_checkpointing "
    "supports_gradient_checkpointing base_model vit classifier loss dtype device num_labels name_or_path tie_weights "
    "get_memory_footprint get_output_embeddings set_input_embeddings enable_input_require_grads "
    "disable_input_require_grads",
    "tf": "vit classifier loss_of named_weights compiles_calls dummy_inputs input_signature serving "
    "serving_function serving_output prepare_tf_dataset",
    "flax": "base_model module module_class params params_dtype params_shape_tree "
    "required_params init_weights input_shape key dtype checkpointing enable_gradient_checkpointing "
    "to_bf16 to_fp16 to_fp32",
}


def offered_by_the_framework(backend):
    """The names that every model of the framework has."""
    if backend == "torch":
        import torch

        return dir(torch.nn.Module())
    if backend == "tf":
        import keras

        return dir(keras.Model())
    return dir(object())


@pytest.mark.parametrize("backend", INSTALLED)
def test_a_model_offers_names_for_users_only(backend):
    config = small_config(CLASSIFIER)
    model = model_class(CLASSIFIER, backend).from_tensors(config, draw(config, CLASSIFIER, seed=1))
    offered = {name for name in dir(model) if not name.startswith("_")} - {*offered_by_the_framework(backend)}
    assert sorted(offered) == sorted({*EVERYWHERE, *OWN[backend].split()})
