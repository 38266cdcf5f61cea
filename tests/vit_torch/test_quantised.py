"""Models whose weights torchao has made integers: kept as state dicts, refused by name as checkpoints."""

import logging
import warnings

import numpy as np
import pytest
import torch
from torch_models import make_model

from vit_core.errors import InputError


@pytest.fixture
def quantised():
    """quantised() -> the same small model every time, with integers in its layers."""
    logging.getLogger("torchao").setLevel(logging.ERROR)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from torchao.quantization import Int8WeightOnlyConfig, quantize_

    def made():
        model = make_model("ViTForImageClassification").requires_grad_(False)
        quantize_(model, Int8WeightOnlyConfig(), lambda module, name: isinstance(module, torch.nn.Linear))
        return model

    return made


def test_a_state_dict_keeps_them(quantised, tmp_path):
    model, other = quantised(), make_model("ViTForImageClassification").requires_grad_(False)
    images = torch.randn(2, 3, 12, 20, generator=torch.Generator().manual_seed(0))
    expected = model(images).logits
    assert np.abs(other(images).logits.numpy() - expected.numpy()).max() > 0
    torch.save(model.state_dict(), tmp_path / "quantised.pt")
    other.load_state_dict(torch.load(tmp_path / "quantised.pt"), assign=True)
    np.testing.assert_array_equal(other(images).logits.numpy(), expected.numpy())


def test_a_checkpoint_of_them_is_refused_by_name(quantised, tmp_path):
    with pytest.raises(
        InputError, match=r"weight is quantised by torchao, .*\n.*torch\.save\(model\.state_dict\(\), path\)"
    ):
        quantised().save_pretrained(tmp_path / "model")
    assert [*tmp_path.iterdir()] == []
