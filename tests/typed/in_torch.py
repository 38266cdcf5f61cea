"""What type checkers know of vit_torch. Never run: `make check` reads it."""

from typing import Any, assert_type

import torch

from vit_core.outputs import (
    BaseModelOutputWithPooling,
    ImageClassifierOutput,
    MaskedImageModelingOutput,
    ViTMAEForPreTrainingOutput,
    ViTMAEModelOutput,
)
from vit_torch import (
    AutoModel,
    AutoModelForImageClassification,
    ViTForImageClassification,
    ViTForMaskedImageModeling,
    ViTMAEForPreTraining,
    ViTMAEModel,
    ViTModel,
)

Info = dict[str, list[str]]


def loading(asked: bool, pixel_values: torch.Tensor) -> None:
    assert_type(ViTModel.from_pretrained("folder"), ViTModel)
    assert_type(ViTModel.from_pretrained("folder", output_loading_info=False), ViTModel)
    assert_type(ViTModel.from_pretrained("folder", output_loading_info=True), tuple[ViTModel, Info])
    assert_type(ViTModel.from_pretrained("folder", output_loading_info=asked), ViTModel | tuple[ViTModel, Info])
    assert_type(AutoModel.from_pretrained("folder"), ViTModel | ViTMAEModel)
    assert_type(AutoModelForImageClassification.from_pretrained("folder"), ViTForImageClassification)
    both = AutoModelForImageClassification.from_pretrained("folder", output_loading_info=True)
    assert_type(both, tuple[ViTForImageClassification, Info])
    ViTModel.from_pretrained("folder", dtype=torch.float16, device_map="cpu", num_labels=3, low_cpu_mem_usage=True)
    ViTModel.from_pretrained(None, config=ViTModel.from_pretrained("folder").config, state_dict={"name": pixel_values})


def calls(pixel_values: torch.Tensor, inputs: dict[str, Any]) -> None:
    model = ViTModel.from_pretrained("folder")
    assert_type(model(pixel_values), BaseModelOutputWithPooling)
    assert_type(model(**inputs), BaseModelOutputWithPooling)
    assert_type(model(pixel_values, return_dict=False)[0], Any)
    assert_type(model.eval()(pixel_values), BaseModelOutputWithPooling)
    torch.compile(model)
    classifier = ViTForImageClassification.from_pretrained("folder")
    assert_type(classifier(pixel_values, labels=pixel_values), ImageClassifierOutput)
    assert_type(ViTForMaskedImageModeling.from_pretrained("folder")(pixel_values), MaskedImageModelingOutput)
    assert_type(ViTMAEModel.from_pretrained("folder")(pixel_values), ViTMAEModelOutput)
    assert_type(ViTMAEForPreTraining.from_pretrained("folder")(pixel_values), ViTMAEForPreTrainingOutput)


class Mine(ViTForImageClassification):
    """A class of a user's."""


def of_subclasses(pixel_values: torch.Tensor) -> None:
    assert_type(Mine.from_pretrained("folder"), Mine)
    assert_type(Mine.from_pretrained("folder")(pixel_values), ImageClassifierOutput)


def mistakes(pixel_values: torch.Tensor) -> None:
    ViTModel.from_pretrained("folder", num_label=3)  # type: ignore[call-overload]
    ViTModel.from_pretrained("folder", num_labels="three")  # type: ignore[call-overload]
    ViTModel.from_pretrained("folder", params_dtype="auto")  # type: ignore[call-overload]  # of Flax
    ViTModel.from_pretrained("folder", load_in_8bit=True)  # type: ignore[call-overload]  # which is refused
    AutoModel.from_pretrained("folder", num_label=3)  # type: ignore[call-overload]
    model = ViTModel.from_pretrained("folder")
    model(pixel_values, output_atentions=True)  # type: ignore[call-arg]
    model.save_pretrained("folder", max_shard="1GB")  # type: ignore[call-arg]
    model.save_pretrained("folder", push_to_hub=True)  # type: ignore[arg-type]
