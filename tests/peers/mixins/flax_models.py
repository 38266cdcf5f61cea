"""transformers' common tests of Flax models (4.52.4) over the models of vit_flax."""

import unittest

import small
from tests.test_modeling_flax_common import FlaxModelTesterMixin
from transformers import FLAX_MODEL_MAPPING

import vit_flax

# Tests look there for the encoder of a configuration.
FLAX_MODEL_MAPPING.register(vit_flax.ViTConfig, vit_flax.FlaxViTModel, exist_ok=True)
FLAX_MODEL_MAPPING.register(vit_flax.ViTMAEConfig, vit_flax.FlaxViTMAEModel, exist_ok=True)


class Common(FlaxModelTesterMixin):
    test_head_masking = True

    def setUp(self):
        self.model_tester = small.Tester(self.config_class, lambda array: array, **self.fields)


class ViT(Common, unittest.TestCase):
    config_class, fields = vit_flax.ViTConfig, {}
    all_model_classes = (
        vit_flax.FlaxViTModel,
        vit_flax.FlaxViTForImageClassification,
        vit_flax.FlaxViTForMaskedImageModeling,
    )


class ViTMAE(Common, unittest.TestCase):
    config_class, fields = vit_flax.ViTMAEConfig, small.DECODER
    all_model_classes = (vit_flax.FlaxViTMAEModel, vit_flax.FlaxViTMAEForPreTraining)
