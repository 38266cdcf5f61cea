"""Layers whose heads are pruned may be counted from the end, in every backend."""

import numpy as np
import pytest
from backends import INSTALLED
from bad_calls import CLASSIFIER, IMAGES, small_config

from vit_core import ConfigError
from vit_core.parameters import draw
from vit_core.tensors import to_numpy
from vitriad.auto import model_class


@pytest.mark.parametrize("backend", INSTALLED)
def test_layers_are_counted_from_the_end(backend):
    config, found = small_config(CLASSIFIER), []
    for layer in (-1, 1):
        model = model_class(CLASSIFIER, backend).from_tensors(config, draw(config, CLASSIFIER, seed=1))
        model.prune_heads({layer: [0]})
        assert model.config.pruned_heads == {1: [0]}
        found.append(to_numpy(model(pixel_values=IMAGES).logits))
    np.testing.assert_array_equal(*found)
    for layers in ({-3: [0]}, {2: [0]}, {-1: [1]}, {0: [2]}):
        with pytest.raises(ConfigError, match="pruned_heads"):
            model.prune_heads(layers)
    assert model.config.pruned_heads == {1: [0]}
