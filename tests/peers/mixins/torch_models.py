"""transformers' common tests of PyTorch models (4.57.6) over the models of vit_torch."""

import unittest

import small
import torch
from tests.test_modeling_common import ModelTesterMixin

import vit_torch


class Common(ModelTesterMixin):
    test_resize_embeddings = False
    test_torch_exportable = True
    fx_compatible = True
    test_pruning = True

    def setUp(self):
        self.model_tester = small.Tester(self.config_class, torch.from_numpy, **self.fields)


class ViT(Common, unittest.TestCase):
    config_class, fields = vit_torch.ViTConfig, {}
    all_model_classes = (
        vit_torch.ViTModel,
        vit_torch.ViTForImageClassification,
        vit_torch.ViTForMaskedImageModeling,
    )


class ViTMAE(Common, unittest.TestCase):
    config_class, fields = vit_torch.ViTMAEConfig, small.DECODER
    all_model_classes = (vit_torch.ViTMAEModel, vit_torch.ViTMAEForPreTraining)
