"""transformers' common tests of TensorFlow models (4.52.4) over the models of vit_tf."""

import unittest

import keras
import small
import tensorflow as tf
from transformers import TF_MODEL_FOR_IMAGE_CLASSIFICATION_MAPPING, TF_MODEL_FOR_MASKED_IMAGE_MODELING_MAPPING

import vit_tf
from tests import test_modeling_tf_common

# Tests look there for what takes labels or masks.
TF_MODEL_FOR_IMAGE_CLASSIFICATION_MAPPING.register(vit_tf.ViTConfig, vit_tf.TFViTForImageClassification, exist_ok=True)
TF_MODEL_FOR_MASKED_IMAGE_MODELING_MAPPING.register(vit_tf.ViTConfig, vit_tf.TFViTForMaskedImageModeling, exist_ok=True)
test_modeling_tf_common.keras = keras  # inputs, layers and optimisers of Keras 3, not of tf-keras


class Common(test_modeling_tf_common.TFModelTesterMixin):
    test_resize_embeddings = False
    test_onnx = True
    onnx_min_opset = 18

    def setUp(self):
        self.model_tester = small.Tester(self.config_class, tf.constant, **self.fields)


class ViT(Common, unittest.TestCase):
    config_class, fields = vit_tf.ViTConfig, {}
    all_model_classes = (
        vit_tf.TFViTModel,
        vit_tf.TFViTForImageClassification,
        vit_tf.TFViTForMaskedImageModeling,
    )


class ViTMAE(Common, unittest.TestCase):
    config_class, fields = vit_tf.ViTMAEConfig, small.DECODER
    all_model_classes = (vit_tf.TFViTMAEModel, vit_tf.TFViTMAEForPreTraining)
