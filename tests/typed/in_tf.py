"""What type checkers know of vit_tf. Never run: `make check` reads it."""

from typing import Any, assert_type

import numpy as np

from vit_core.outputs import (
    BaseModelOutputWithPooling,
    ImageClassifierOutput,
    MaskedImageModelingOutput,
    ViTMAEForPreTrainingOutput,
    ViTMAEModelOutput,
)
from vit_tf import (
    TFAutoModel,
    TFAutoModelForImageClassification,
    TFViTForImageClassification,
    TFViTForMaskedImageModeling,
    TFViTMAEForPreTraining,
    TFViTMAEModel,
    TFViTModel,
)

Info = dict[str, list[str]]


def loading(asked: bool) -> None:
    assert_type(TFViTModel.from_pretrained("folder"), TFViTModel)
    assert_type(TFViTModel.from_pretrained("folder", output_loading_info=True), tuple[TFViTModel, Info])
    assert_type(TFViTModel.from_pretrained("folder", output_loading_info=asked), TFViTModel | tuple[TFViTModel, Info])
    assert_type(TFAutoModel.from_pretrained("folder"), TFViTModel | TFViTMAEModel)
    assert_type(TFAutoModelForImageClassification.from_pretrained("folder"), TFViTForImageClassification)
    TFViTModel.from_pretrained("folder", dtype="mixed_bfloat16", from_pt=True, image_size=(32, 48))


def calls(inputs: dict[str, Any]) -> None:
    model = TFViTModel.from_pretrained("folder")
    assert_type(model(np.ones((1, 3, 32, 32))), BaseModelOutputWithPooling)
    assert_type(model(**inputs), BaseModelOutputWithPooling)
    assert_type(model(inputs, training=True), BaseModelOutputWithPooling)
    assert_type(model(inputs, return_dict=False)[0], Any)
    assert_type(TFViTForImageClassification.from_pretrained("folder")(inputs), ImageClassifierOutput)
    assert_type(TFViTForMaskedImageModeling.from_pretrained("folder")(inputs), MaskedImageModelingOutput)
    assert_type(TFViTMAEModel.from_pretrained("folder")(inputs), ViTMAEModelOutput)
    assert_type(TFViTMAEForPreTraining.from_pretrained("folder")(inputs), ViTMAEForPreTrainingOutput)


def mistakes() -> None:
    TFViTModel.from_pretrained("folder", num_label=3)  # type: ignore[call-overload]
    TFViTModel.from_pretrained("folder", device_map="cpu")  # type: ignore[call-overload]  # of PyTorch
    model = TFViTModel.from_pretrained("folder")
    model.save_pretrained("folder", max_shard="1GB")  # type: ignore[call-arg]
    model.save_pretrained("folder", push_to_hub=True)  # type: ignore[arg-type]
