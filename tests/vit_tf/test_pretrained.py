"""Saving and loading: round trips, reports, dtypes, and what the documentation's own lines do."""

import json
import logging

import keras
import ml_dtypes
import numpy as np
import oracle
import pytest
import tensorflow as tf
from safetensors.numpy import load_file
from tf_models import FIELDS, make_config, make_inputs, make_model, make_tensors

import conversion
import vit_tf
from vit_core import CheckpointError, ConfigError, InputError, MissingFileError
from vit_core.positions import resize_table


def check_weights(model, other) -> None:
    ours, theirs = model.canonical_tensors(), other.canonical_tensors()
    assert list(ours) == list(theirs)
    for key, value in theirs.items():
        assert ours[key].dtype == value.dtype
        np.testing.assert_array_equal(ours[key], value, err_msg=key)


@pytest.mark.parametrize("shard", ["5GB", 4000])
def test_round_trip(name, shard, tmp_path):
    model = make_model(name)
    model.save_pretrained(tmp_path, max_shard_size=shard)
    assert (tmp_path / "model.safetensors").exists() == (shard == "5GB")
    loaded, info = getattr(vit_tf, name).from_pretrained(tmp_path, output_loading_info=True)
    check_weights(loaded, model)
    assert {key: value for key, value in info.items() if value} == {}
    assert loaded.config.architectures == [name.removeprefix("TF")]
    assert loaded.config.dtype == "float32"
    frozen = {key for key, weight in loaded.named_weights().items() if not weight.trainable}
    assert frozen == {key for key, row in loaded.parameter_table().items() if not row.trainable}


def test_files_have_the_canonical_names_and_layouts(name, tmp_path):
    tensors = make_tensors(name)
    make_model(name).save_pretrained(tmp_path)
    stored = load_file(tmp_path / "model.safetensors")
    assert set(stored) == set(tensors)
    for key, value in tensors.items():
        np.testing.assert_array_equal(stored[key], value, err_msg=key)


def test_nothing_is_initialised_and_nothing_is_called_while_loading(name, tmp_path, monkeypatch):
    make_model(name).save_pretrained(tmp_path)

    def forbidden(*args, **kwargs):
        raise AssertionError("a weight was initialised, or the model called")

    monkeypatch.setattr(getattr(vit_tf, name), "call", forbidden)
    monkeypatch.setattr(vit_tf.weights, "fresh", forbidden)
    for word in ("normal", "uniform", "truncated_normal", "randint"):
        monkeypatch.setattr(keras.random, word, forbidden)
    for initializer in vars(keras.initializers).values():
        if isinstance(initializer, type):
            monkeypatch.setattr(initializer, "__call__", forbidden)
    with pytest.raises(AssertionError):
        keras.layers.Dense(3).build((None, 3))
    getattr(vit_tf, name).from_pretrained(tmp_path)


def test_training_leaves_the_file_and_the_tensors_of_a_model_alone(tmp_path):
    tensors = make_tensors("TFViTModel")
    tensors["layernorm.bias"].flags.writeable = False
    before = {key: value.copy() for key, value in tensors.items()}
    model = vit_tf.TFViTModel.from_tensors(make_config("TFViTModel"), tensors)
    model.save_pretrained(tmp_path)
    stored = (tmp_path / "model.safetensors").read_bytes()
    for trained in (model, vit_tf.TFViTModel.from_pretrained(tmp_path)):
        for weight in trained.weights:
            weight.value.assign_add(tf.ones_like(weight.value))
    assert (tmp_path / "model.safetensors").read_bytes() == stored
    for key, value in before.items():
        np.testing.assert_array_equal(tensors[key], value, err_msg=key)


@pytest.mark.parametrize(
    ("keywords", "expected"),
    [
        ({}, "float32"),
        ({"dtype": "auto"}, "bfloat16"),
        ({"torch_dtype": tf.float16}, "float16"),
        ({"dtype": "float64"}, "float64"),
        ({"dtype": "mixed_bfloat16"}, "float32"),
    ],
)
def test_dtypes(keywords, expected, tmp_path):
    tensors = make_tensors("TFViTModel", ml_dtypes.bfloat16)
    vit_tf.TFViTModel.from_tensors(make_config("TFViTModel"), tensors).save_pretrained(tmp_path)
    assert json.loads((tmp_path / "config.json").read_text())["dtype"] == "bfloat16"
    loaded = vit_tf.TFViTModel.from_pretrained(tmp_path, **keywords)
    assert {weight.dtype for weight in loaded.weights} == {expected}
    assert loaded.compute_dtype == ("bfloat16" if keywords.get("dtype") == "mixed_bfloat16" else expected)
    for key, value in loaded.canonical_tensors().items():
        np.testing.assert_array_equal(value, tensors[key].astype(value.dtype), err_msg=key)


def test_the_global_policy_holds_where_no_dtype_is_asked_for(tmp_path):
    make_model("TFViTModel").save_pretrained(tmp_path)
    keras.config.set_dtype_policy("mixed_bfloat16")
    try:
        loaded = vit_tf.TFViTModel.from_pretrained(tmp_path)
        exact = vit_tf.TFViTModel.from_pretrained(tmp_path, dtype="float32")
    finally:
        keras.config.set_dtype_policy("float32")
    assert loaded.dtype_policy.name == loaded.embeddings.dtype_policy.name == "mixed_bfloat16"
    assert exact.dtype_policy.name == exact.embeddings.dtype_policy.name == "float32"


# file of this class -> loaded as that class: what is missing and what is left over, as prefixes
HAND_OVERS = [
    ("TFViTForImageClassification", "TFViTModel", {"pooler.dense"}, {"classifier"}),
    ("TFViTModel", "TFViTForImageClassification", {"classifier"}, {"pooler.dense"}),
    (
        "TFViTForMaskedImageModeling",
        "TFViTForImageClassification",
        {"classifier"},
        {"decoder.0", "vit.embeddings.mask_token"},
    ),
    (
        "TFViTForImageClassification",
        "TFViTForMaskedImageModeling",
        {"decoder.0", "vit.embeddings.mask_token"},
        {"classifier"},
    ),
    ("TFViTMAEForPreTraining", "TFViTForImageClassification", {"classifier"}, {"decoder"}),
    ("TFViTMAEForPreTraining", "TFViTMAEModel", set(), {"decoder"}),
    ("TFViTModel", "TFViTMAEModel", set(), {"pooler.dense"}),
    ("TFViTMAEModel", "TFViTMAEForPreTraining", {"decoder"}, set()),
]


@pytest.mark.parametrize(("source", "target", "missing", "unexpected"), HAND_OVERS)
def test_hand_overs_between_classes(source, target, missing, unexpected, tmp_path):
    model = make_model(source)
    model.save_pretrained(tmp_path)
    loaded, info = getattr(vit_tf, target).from_pretrained(
        tmp_path, output_loading_info=True, **{k: v for k, v in FIELDS[target].items() if k.startswith("decoder")}
    )
    for found, prefixes in ((info["missing_keys"], missing), (info["unexpected_keys"], unexpected)):
        assert {key for key in found if not key.startswith(tuple(prefixes))} == set()
        assert {prefix for prefix in prefixes if not any(key.startswith(prefix) for key in found)} == set()
    ours, theirs = loaded.base_model.canonical_tensors(), model.base_model.canonical_tensors()
    for key in [key for key in theirs if not key.startswith("pooler") and "mask_token" not in key]:
        np.testing.assert_array_equal(ours[key], theirs[key], err_msg=key)
    assert all(np.isfinite(array).all() for array in loaded.canonical_tensors().values())
    assert np.isfinite(loaded(**make_inputs(target))[0]).all()


def test_missing_parts_are_reported_once_by_name(tmp_path, caplog):
    make_model("TFViTMAEForPreTraining").save_pretrained(tmp_path)
    with caplog.at_level(logging.INFO, logger="vitriad"):
        vit_tf.TFViTForImageClassification.from_pretrained(tmp_path, num_labels=4)
    assert caplog.text.count("classifier.weight") == 1
    assert caplog.text.count("decoder.decoder_embed.weight") == 1


def test_another_number_of_labels(tmp_path):
    make_model("TFViTForImageClassification").save_pretrained(tmp_path)
    with pytest.raises(CheckpointError, match=r"classifier\.weight") as caught:
        vit_tf.TFViTForImageClassification.from_pretrained(tmp_path, num_labels=7)
    assert "ignore_mismatched_sizes" in str(caught.value)
    model, info = vit_tf.TFViTForImageClassification.from_pretrained(
        tmp_path, num_labels=7, ignore_mismatched_sizes=True, output_loading_info=True
    )
    assert model.classifier.kernel.shape == (24, 7)
    assert sorted(info["mismatched_keys"]) == ["classifier.bias", "classifier.weight"]


def test_another_image_size_resizes_the_positions(tmp_path):
    model = make_model("TFViTForImageClassification")
    model.save_pretrained(tmp_path)
    loaded = vit_tf.TFViTForImageClassification.from_pretrained(tmp_path, image_size=(24, 28))
    key = "vit.embeddings.position_embeddings"
    expected = resize_table(model.canonical_tensors()[key], (3, 5), (6, 7))
    np.testing.assert_array_equal(loaded.canonical_tensors()[key], expected)


def test_pruned_models_stay_pruned(name, tmp_path):
    model = make_model(name)
    model.prune_heads({0: [0, 2], 1: [1]})
    model.save_pretrained(tmp_path)
    loaded = getattr(vit_tf, name).from_pretrained(tmp_path)
    check_weights(loaded, model)
    assert loaded.config.pruned_heads == {0: [0, 2], 1: [1]}
    loaded.compiles_calls = False
    for one, other in zip(loaded(**make_inputs(name)).to_tuple(), model(**make_inputs(name)).to_tuple(), strict=True):
        np.testing.assert_array_equal(one, other)


# The documentation's own calls: class, class of the published file, keywords.
DOCUMENTED = [
    ("TFViTModel", "TFViTModel", {}),
    ("TFViTForImageClassification", "TFViTForImageClassification", {}),
    ("TFViTMAEModel", "TFViTMAEForPreTraining", {}),
    ("TFViTMAEForPreTraining", "TFViTMAEForPreTraining", {}),
    ("TFViTMAEModel", "TFViTMAEForPreTraining", {"attn_implementation": "sdpa", "from_pt": True}),
]


@pytest.mark.parametrize(("cls", "stored", "keywords"), DOCUMENTED)
def test_documented_calls(cls, stored, keywords, tmp_path):
    make_model(stored, image_size=32, patch_size=16).save_pretrained(tmp_path)
    vit_tf.ViTImageProcessor(size={"height": 32, "width": 32}).save_pretrained(tmp_path)
    image_processor = vit_tf.AutoImageProcessor.from_pretrained(tmp_path)
    model = getattr(vit_tf, cls).from_pretrained(tmp_path, **keywords)
    image = np.arange(20 * 30 * 3, dtype=np.uint8).reshape(20, 30, 3)
    inputs = image_processor(images=image, return_tensors="tf")
    for outputs in (model(**inputs), model(inputs)):
        assert all(np.isfinite(value).all() for value in outputs.to_tuple())


@pytest.mark.parametrize(
    ("keywords", "needle"),
    [
        ({"device_map": "auto"}, "device_map"),
        ({"trust_remote_code": True}, "trust_remote_code"),
        ({"load_in_8bit": True}, "load_in_8bit"),
        ({"use_safetensors": False}, "use_safetensors"),
        ({"hiden_size": 3}, "hidden_size"),
    ],
)
def test_keywords_that_mean_nothing_here_are_refused(keywords, needle, tmp_path):
    make_model("TFViTModel").save_pretrained(tmp_path)
    with pytest.raises((InputError, CheckpointError, ConfigError), match=needle) as caught:
        vit_tf.TFViTModel.from_pretrained(tmp_path, **keywords)
    assert len(str(caught.value).splitlines()) <= 3


@pytest.mark.parametrize("keywords", [{"from_pt": True}, {"use_safetensors": True}, {"trust_remote_code": False}])
def test_keywords_that_hold_are_accepted(keywords, tmp_path):
    make_model("TFViTModel").save_pretrained(tmp_path)
    vit_tf.TFViTModel.from_pretrained(tmp_path, **keywords)


def test_missing_folders_and_callable_activations(tmp_path):
    with pytest.raises(MissingFileError):
        vit_tf.TFViTModel.from_pretrained(tmp_path / "nowhere")
    with pytest.raises(MissingFileError):
        vit_tf.TFViTModel.from_pretrained(tmp_path)
    model = make_model("TFViTModel", hidden_act=keras.ops.relu)
    with pytest.raises(ConfigError, match="callable"):
        model.save_pretrained(tmp_path / "callable")
    assert not (tmp_path / "callable").exists()


def test_from_tensors_wants_exactly_the_parameters():
    tensors = make_tensors("TFViTModel")
    tensors["extra"] = tensors.pop("layernorm.bias")
    with pytest.raises(CheckpointError, match=r"1 missing: layernorm\.bias; 1 unknown: extra"):
        vit_tf.TFViTModel.from_tensors(make_config("TFViTModel"), tensors)


def test_tensors_of_tensorflow_are_taken_as_arrays_are():
    arrays = make_tensors("TFViTForMaskedImageModeling", "float64")
    config = make_config("TFViTForMaskedImageModeling")
    tensors = {key: tf.constant(array) for key, array in arrays.items()}
    model = vit_tf.TFViTForMaskedImageModeling.from_tensors(config, tensors)
    for key, array in model.canonical_tensors().items():
        np.testing.assert_array_equal(array, arrays[key], err_msg=key)


def test_subclasses_save_and_load_as_their_class(tmp_path):
    class Mine(vit_tf.TFViTForImageClassification):
        pass

    model = Mine(make_config("TFViTForImageClassification"))
    model.save_pretrained(tmp_path)
    loaded = Mine.from_pretrained(tmp_path)
    assert type(loaded) is Mine
    assert loaded.config.architectures == ["ViTForImageClassification"]
    check_weights(loaded, model)


def test_weights_of_a_subclass_are_in_no_checkpoint(tmp_path):
    class Wider(vit_tf.TFViTForImageClassification):
        def __init__(self, config, **kwargs):
            super().__init__(config, **kwargs)
            self.adapter = keras.layers.Dense(3, name="adapter")
            self.adapter.build((None, 3))

    make_model("TFViTForImageClassification").save_pretrained(tmp_path)
    model = Wider.from_pretrained(tmp_path)
    with pytest.raises(CheckpointError, match="adapter"):
        model.save_pretrained(tmp_path)


def test_names_do_not_depend_on_the_name_of_the_model_or_the_scope_around_it(name):
    tensors = make_tensors(name)
    with tf.name_scope("around"), keras.name_scope("it"):
        model = getattr(vit_tf, name).from_tensors(make_config(name), tensors, name="vit")
    for key, array in model.canonical_tensors().items():
        np.testing.assert_array_equal(array, tensors[key], err_msg=key)


@pytest.mark.filterwarnings("ignore:__array__ implementation doesn't accept a copy:DeprecationWarning")  # Keras, saving
@pytest.mark.parametrize("suffix", [".weights.h5", ".keras"])
@pytest.mark.parametrize("case", oracle.CASES[::5], ids=lambda case: case.name)
def test_what_keras_saves_is_read_without_keras(case, suffix, tmp_path):
    tensors = {name: array.astype("float32") for name, array in oracle.random_tensors(case).items()}
    model = getattr(vit_tf, f"TF{case.cls}").from_tensors(case.config, tensors, **case.options)
    path = tmp_path / f"model{suffix}"
    (model.save_weights if suffix == ".weights.h5" else model.save)(path)
    config, found, report = conversion.load(path, config=case.config, cls=case.cls, **case.options)
    assert report.dialect == "vitriad_tf" and config.hidden_size == case.config.hidden_size
    assert {name: array.tobytes() for name, array in found.items()} == {n: a.tobytes() for n, a in tensors.items()}
