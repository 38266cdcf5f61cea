"""Models that are not loaded: how they start, what they count, what their package offers."""

import numpy as np
import pytest
from small_models import FIELDS


def test_fresh_models_follow_the_table(backend):
    backend.seed(0)
    fields = {"hidden_size": 128, "num_attention_heads": 4, "initializer_range": 0.05}
    model = backend.cls("ViTMAEForPreTraining")(backend.make_config("ViTMAEForPreTraining", **fields))
    tensors = model.canonical_tensors()
    for key, row in model.parameter_table().items():
        values = tensors[key]
        if row.init.kind == "normal" and values.size > 1000:
            np.testing.assert_allclose(values.std(), 0.05, rtol=0.1, err_msg=key)
        elif row.init.kind == "uniform":
            np.testing.assert_allclose(np.abs(values).max(), row.init.value, rtol=0.01, err_msg=key)
        elif row.init.kind == "sincos":
            assert values[0, 0].max() == 0 and values[0, 1:].std() > 0.4, key
        elif row.init.kind == "constant":
            np.testing.assert_array_equal(values, np.float32(row.init.value), err_msg=key)


@pytest.mark.parametrize("deviation", [0.02, 1.5])
def test_fresh_weights_are_cut_at_two(backend, deviation):
    backend.seed(0)
    config = backend.make_config("ViTModel", hidden_size=192, initializer_range=deviation)
    values = backend.cls("ViTModel")(config).canonical_tensors()["pooler.dense.weight"]
    assert np.abs(values).max() < 2
    np.testing.assert_allclose(values.std(), {0.02: 0.02, 1.5: 1.0229}[deviation], rtol=0.02)
    assert (np.abs(values) > 1.9).mean() > 0.01 or deviation == 0.02


def test_parameters_are_counted(backend):
    model = backend.make_model("ViTMAEForPreTraining")
    table = model.parameter_table()
    counts = {name: int(np.prod(row.shape)) for name, row in table.items()}
    assert model.num_parameters() == sum(counts.values())
    assert model.num_parameters(only_trainable=True) == sum(counts[n] for n, row in table.items() if row.trainable)
    embeddings = sum(count for name, count in counts.items() if name.startswith("vit.embeddings."))
    assert model.num_parameters(exclude_embeddings=True) == sum(counts.values()) - embeddings


def test_every_class_is_exported(backend):
    assert {backend.cls(name).__name__ for name in FIELDS} <= set(backend.package.__all__)
