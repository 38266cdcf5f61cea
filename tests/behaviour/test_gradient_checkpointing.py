"""Gradient checkpointing changes memory, not gradients: what is computed again meets the same random numbers."""

import numpy as np
import pytest


@pytest.mark.every_day("torch", "ViTForImageClassification")
def test_gradients_stay_as_they_are(backend, name):
    inputs = backend.make_inputs(name)
    with backend.doubles():
        rates = {"hidden_dropout_prob": 0.3, "attention_probs_dropout_prob": 0.3, "drop_path_rate": 0.5}
        model = backend.make_model(name, "float64", **rates)
        inputs = {key: backend.native(np.asarray(value, np.float64)) for key, value in inputs.items()}
        expected = backend.gradients(model, 7, inputs)
        model.gradient_checkpointing_enable()
        assert model.is_gradient_checkpointing
        found = backend.gradients(model, 7, inputs)
        model.gradient_checkpointing_disable()
        assert not model.is_gradient_checkpointing
    for one, other in zip(found, expected, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-10, atol=1e-12)
