"""The classifier's losses, and its logits without labels."""

import numpy as np
import pytest

from vit_core.tensors import to_numpy

CLASSIFIER = "ViTForImageClassification"
SINGLE = {"problem_type": "single_label_classification"}
LABELS = [
    ({}, np.array([1, -100]), "single_label_classification"),
    ({"num_labels": 1, **SINGLE}, np.array([0, -100]), "single_label_classification"),
    ({}, np.array([1, 4], np.int32), "single_label_classification"),
    ({}, np.array([[0, 1, 0, 1, 1]] * 2), "multi_label_classification"),
    ({}, np.array([[0.0, 1, 0, 1, 1]] * 2), "multi_label_classification"),
    ({"num_labels": 1}, np.array([0.5, 2]), "regression"),
    ({"num_labels": 1}, np.array([[0.5], [2]]), "regression"),
    ({"problem_type": "regression"}, np.array([[0.5, 2, 0, 1, 3]] * 2), "regression"),
]


@pytest.mark.parametrize(("fields", "labels", "problem"), LABELS)
def test_losses(backend, fields, labels, problem):
    model = backend.make_model(CLASSIFIER, **fields)
    output = model(**backend.make_inputs(CLASSIFIER), labels=backend.native(labels))
    logits = to_numpy(output.logits).astype(np.float64)
    expected = {
        "single_label_classification": lambda: (
            np.log(np.exp(logits).sum(1)) - logits[np.arange(2), np.maximum(labels, 0)]
        )[labels >= 0].mean(),
        "multi_label_classification": lambda: (np.log1p(np.exp(logits)) - logits * labels).mean(),
        "regression": lambda: np.square(logits - labels.reshape(logits.shape)).mean(),
    }[problem]()
    assert output.loss.shape == ()
    np.testing.assert_allclose(to_numpy(output.loss), expected, rtol=1e-6, atol=1e-12)


def test_without_labels_in_the_config_the_logits_are_features(backend):
    model = backend.make_model(CLASSIFIER, num_labels=0)
    output = model(**backend.make_inputs(CLASSIFIER), output_hidden_states=True)
    assert output.logits.shape == (2, 24)
    assert not [key for key in model.canonical_tensors() if key.startswith("classifier")]
