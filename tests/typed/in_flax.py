"""What type checkers know of vit_flax. Never run: `make check` reads it."""

from collections.abc import Mapping
from typing import Any, assert_type

import jax
import numpy as np

from vit_core.outputs import (
    BaseModelOutputWithPooling,
    ImageClassifierOutput,
    MaskedImageModelingOutput,
    ViTMAEForPreTrainingOutput,
    ViTMAEModelOutput,
)
from vit_flax import (
    FlaxAutoModel,
    FlaxAutoModelForImageClassification,
    FlaxViTForImageClassification,
    FlaxViTForMaskedImageModeling,
    FlaxViTMAEForPreTraining,
    FlaxViTMAEModel,
    FlaxViTModel,
)

Info = dict[str, list[str]]
Params = Mapping[str, Any]


def loading() -> None:
    assert_type(FlaxViTModel.from_pretrained("folder"), FlaxViTModel)
    assert_type(FlaxViTModel.from_pretrained("folder", "bfloat16", params_dtype="auto"), FlaxViTModel)
    assert_type(FlaxViTModel.from_pretrained("folder", output_loading_info=True), tuple[FlaxViTModel, Info])
    assert_type(FlaxViTModel.from_pretrained("folder", _do_init=False), tuple[FlaxViTModel, Params])
    every = FlaxViTModel.from_pretrained("folder", _do_init=False, output_loading_info=True)
    assert_type(every, tuple[FlaxViTModel, Params, Info])
    assert_type(FlaxAutoModel.from_pretrained("folder"), FlaxViTModel | FlaxViTMAEModel)
    assert_type(FlaxAutoModelForImageClassification.from_pretrained("folder"), FlaxViTForImageClassification)
    FlaxViTModel.from_pretrained("folder", seed=3, input_shape=(1, 32, 32, 3), revision="main")


def calls(images: jax.Array, inputs: dict[str, Any]) -> None:
    model = FlaxViTModel.from_pretrained("folder")
    assert_type(model(images), BaseModelOutputWithPooling)
    assert_type(model(np.ones((1, 3, 32, 32))), BaseModelOutputWithPooling)
    assert_type(model(**inputs), BaseModelOutputWithPooling)
    assert_type(model(images, return_dict=False)[0], Any)
    jax.jit(model)
    assert_type(FlaxViTForImageClassification.from_pretrained("folder")(images), ImageClassifierOutput)
    assert_type(FlaxViTForMaskedImageModeling.from_pretrained("folder")(images), MaskedImageModelingOutput)
    assert_type(FlaxViTMAEModel.from_pretrained("folder")(images), ViTMAEModelOutput)
    assert_type(FlaxViTMAEForPreTraining.from_pretrained("folder")(images), ViTMAEForPreTrainingOutput)


def mistakes(images: jax.Array) -> None:
    FlaxViTModel.from_pretrained("folder", num_label=3)  # type: ignore[call-overload]
    FlaxViTModel.from_pretrained("folder", device_map="cpu")  # type: ignore[call-overload]  # of PyTorch
    model = FlaxViTModel.from_pretrained("folder")
    model(images, output_atentions=True)  # type: ignore[call-arg]
    model.save_pretrained("folder", max_shard="1GB")  # type: ignore[call-arg]
    model.save_pretrained("folder", push_to_hub=True)  # type: ignore[arg-type]
