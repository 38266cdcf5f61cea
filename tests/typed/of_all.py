"""What type checkers know of the front door, of configurations and of processors. Never run: `make check` reads it."""

from typing import Any, assert_type

import vitriad
from vit_core import AutoConfig, AutoImageProcessor, BatchFeature, ViTConfig, ViTImageProcessor, ViTMAEConfig
from vit_flax import FlaxViTForImageClassification
from vit_flax.pretrained import FlaxViTPreTrainedModel
from vit_tf import TFViTForImageClassification
from vit_tf.pretrained import TFViTPreTrainedModel
from vit_torch import ViTForImageClassification, ViTMAEModel, ViTModel
from vit_torch.pretrained import PreTrainedModel

Info = dict[str, list[str]]


def the_front_door() -> None:
    assert_type(vitriad.load("folder"), Any)
    assert_type(vitriad.load("folder", "torch"), PreTrainedModel)
    assert_type(vitriad.load("folder", backend="tf"), TFViTPreTrainedModel)
    assert_type(vitriad.load("folder", backend="jax"), FlaxViTPreTrainedModel)
    classifiers = vitriad.AutoModelForImageClassification
    assert_type(classifiers.from_pretrained("folder"), Any)
    assert_type(classifiers.from_pretrained("folder", backend="torch"), ViTForImageClassification)
    assert_type(classifiers.from_pretrained("folder", "tensorflow"), TFViTForImageClassification)
    assert_type(classifiers.from_pretrained("folder", backend="flax"), FlaxViTForImageClassification)
    assert_type(vitriad.AutoModel.from_pretrained("folder", "torch"), ViTModel | ViTMAEModel)
    both = classifiers.from_pretrained("folder", "torch", output_loading_info=True)
    assert_type(both, tuple[ViTForImageClassification, Info])


def configurations() -> None:
    assert_type(ViTConfig.from_pretrained("folder"), ViTConfig)
    assert_type(ViTMAEConfig.from_pretrained("folder", mask_ratio=0.5), ViTMAEConfig)
    assert_type(ViTConfig.from_pretrained("folder", return_unused_kwargs=True, a=1), tuple[ViTConfig, dict[str, Any]])
    assert_type(ViTConfig.from_dict({}), ViTConfig)
    assert_type(ViTConfig.from_dict({}, return_unused_kwargs=True), tuple[ViTConfig, dict[str, Any]])
    assert_type(AutoConfig.from_pretrained("folder"), ViTConfig | ViTMAEConfig)


def processors(image: object) -> None:
    processor = ViTImageProcessor.from_pretrained("folder", size=32)
    assert_type(processor, ViTImageProcessor)
    rest = ViTImageProcessor.from_pretrained("folder", return_unused_kwargs=True, a=1)
    assert_type(rest, tuple[ViTImageProcessor, dict[str, Any]])
    assert_type(AutoImageProcessor.from_pretrained("folder", use_fast=False), ViTImageProcessor)
    assert_type(processor(image, return_tensors="np"), BatchFeature)


def mistakes(image: object) -> None:
    vitriad.load("folder", num_label=3)  # type: ignore[call-overload]
    vitriad.AutoModel.from_pretrained("folder", num_label=3)  # type: ignore[call-overload]
    ViTConfig.from_pretrained("folder", num_label=3)  # type: ignore[call-overload]
    AutoConfig.from_pretrained("folder", num_label=3)  # type: ignore[call-overload]
    ViTImageProcessor.from_pretrained("folder", sise=3)  # type: ignore[call-overload]
    AutoImageProcessor.from_pretrained("folder", use_fast=True)  # type: ignore[call-overload]
    ViTImageProcessor()(image, return_tensor="np")  # type: ignore[call-arg]
