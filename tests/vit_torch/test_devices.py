"""NumPy's images go to where the model is; their values are looked at before."""

from functools import partial

import numpy as np
import pytest
import torch
from bad_calls import CLASSIFIER, IMAGES, MAE, MIM, VIT, small_config

import vit_torch
from vit_core import InputError


@pytest.mark.parametrize("name", [VIT, CLASSIFIER, MIM, MAE])
def test_numpy_images_are_moved_to_the_model(name):
    model = getattr(vit_torch, name)(small_config(name)).to("meta")
    noise = {"noise": np.zeros((2, 4), np.float32)} if name == MAE else {}
    for images in (IMAGES, IMAGES.transpose(0, 2, 3, 1), IMAGES.tolist()):
        output = model(pixel_values=images, **noise)
        assert {value.device.type for value in output.values() if isinstance(value, torch.Tensor)} == {"meta"}
    with pytest.raises(InputError, match="NaN or infinite"):
        model(pixel_values=IMAGES * np.nan, **noise)


def test_an_image_processor_puts_its_tensors_on_a_device():
    process = partial(vit_torch.ViTImageProcessor(size=4), np.zeros((3, 9, 7), np.uint8), return_tensors="pt")
    for device in ("meta", torch.device("meta")):  # stands for an accelerator
        assert process(device=device).pixel_values.device.type == "meta"
    for device in ("cpu", torch.device("cpu"), None):
        assert process(device=device).pixel_values.device.type == "cpu"
