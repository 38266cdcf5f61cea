"""Quantised models, LoRA and summaries: what Keras' users do with any Keras model."""

import keras
import numpy as np
import pytest
from tf_models import FIELDS, make_inputs, make_model

import vit_tf
from vit_core import InputError

# Keras reads its variables in a way that NumPy 2 deprecates, whenever it saves them.
pytestmark = [
    pytest.mark.filterwarnings("ignore:__array__ implementation doesn't accept a copy:DeprecationWarning"),
    # and names the kinds of layers that stay as they are, whenever it quantises
    pytest.mark.filterwarnings("ignore:Layer .* does not have a `quantize` method implemented:UserWarning"),
]

CLASSIFIER = "TFViTForImageClassification"


@pytest.mark.every_day("TFViTForImageClassification", "TFViTMAEModel")
@pytest.mark.parametrize(
    "name, mode", [*((name, "int8") for name in FIELDS), (CLASSIFIER, "int4"), (CLASSIFIER, "float8")]
)
def test_quantised_models_are_saved_and_loaded(name, mode, tmp_path):
    model, inputs = make_model(name, num_hidden_layers=1), make_inputs(name)
    before = model(**inputs)
    model.quantize(mode)
    expected = model(**inputs)
    key = next(key for key in expected if key not in ("loss", "mask", "ids_restore"))
    distance = np.abs(np.asarray(expected[key]) - np.asarray(before[key])).max() / np.abs(before[key]).max()
    assert 0 < distance < {"int8": 0.1, "int4": 1.0, "float8": 0.2}[mode]
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    loaded.compiles_calls = False
    assert {layer.quantization_mode for layer in loaded._flatten_layers()} == {None, mode}
    for key, value in loaded(**inputs).items():
        np.testing.assert_array_equal(value, expected[key], err_msg=key)


def test_filters_and_configurations_of_quantisation_are_kept(tmp_path):
    model, inputs = make_model(CLASSIFIER), make_inputs(CLASSIFIER)
    quantizer = keras.quantizers.AbsMaxQuantizer(axis=0, value_range=(-100, 100))
    config = keras.quantizers.Int8QuantizationConfig(weight_quantizer=quantizer)
    model.quantize(config=config, filters="query|key")
    assert len(model.get_config()["quantised"]) == 4
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    loaded.compiles_calls = False
    np.testing.assert_array_equal(loaded(**inputs).logits, model(**inputs).logits)
    assert list(loaded.get_config()["quantised"]) == list(model.get_config()["quantised"])


def test_checkpoints_of_quantised_models_are_refused(tmp_path):
    model = make_model(CLASSIFIER)
    model.quantize("int8")
    with pytest.raises(InputError, match=r"quantised \(int8\)[^\n]*\n[^\n]*before quantize"):
        model.save_pretrained(tmp_path)
    assert not any(tmp_path.iterdir())


def add_lora(model, scale: float = 0.1):
    """As one who fine-tunes it: in every attention, and in the projection of the patches."""
    random = np.random.default_rng(7)
    layers = [part for layer in model.vit.encoder.layer for part in layer.attention.attention.values()]
    for layer in [*layers, model.vit.embeddings.patch_embeddings.projection]:
        layer.enable_lora(2)
        for part in (layer.lora_kernel_a, layer.lora_kernel_b):
            part.assign(scale * random.standard_normal(part.shape))


def test_checkpoints_hold_what_lora_has_learnt(tmp_path):
    model, inputs = make_model(CLASSIFIER), make_inputs(CLASSIFIER)
    before = model(**inputs).logits.numpy()
    add_lora(model)
    expected = model(**inputs).logits.numpy()
    assert np.abs(expected - before).max() > 1e-3
    model.save_pretrained(tmp_path)
    loaded, info = vit_tf.TFViTForImageClassification.from_pretrained(tmp_path, output_loading_info=True)
    assert not any(info.values())
    np.testing.assert_allclose(loaded(**inputs).logits, expected, rtol=0, atol=1e-5 * np.abs(expected).max())


def test_lora_trains_what_it_added_and_nothing_else(tmp_path):
    model, images = make_model(CLASSIFIER), make_inputs(CLASSIFIER, batch=4)["pixel_values"]
    add_lora(model)
    before = {weight.path: weight.numpy() for weight in model.weights}
    model.vit.embeddings.trainable = True
    model.compile(keras.optimizers.SGD(0.1), run_eagerly=True)
    model.fit(images, np.array([0, 1, 2, 3]), verbose=0)
    changed = {path for path, value in before.items() if (model_weight(model, path) != value).any()}
    frozen = {layer._kernel.path for layer in model._flatten_layers() if getattr(layer, "lora_enabled", False)}
    assert changed
    assert not changed & frozen
    assert any("lora" in path for path in changed)


def model_weight(model, path):
    return next(weight.numpy() for weight in model.weights if weight.path == path)


SHAPES = {
    CLASSIFIER: {"vit": (16, 24), "classifier": (5,)},
    "TFViTMAEForPreTraining": {"vit": (4, 24), "decoder": (15, 48)},
}


@pytest.mark.parametrize("name", SHAPES)
def test_summaries_show_real_shapes(name, monkeypatch):
    monkeypatch.setenv("COLUMNS", "150")
    model, inputs, lines = make_model(name), make_inputs(name), []
    model.summary(print_fn=lines.append, expand_nested=True)
    text = "\n".join(lines)
    for layer, sides in SHAPES[name].items():
        (line,) = [line for line in text.splitlines() if f" {layer} (" in line]
        assert f"(None, {', '.join(map(str, sides))})" in line
    assert f"Total params: {model.num_parameters():,}" in text
    assert "?" not in text
    assert not any({"call", "output_shape"} & {*vars(layer)} for layer in model._flatten_layers())
    assert model(**inputs)["logits"].shape[0] == 2
