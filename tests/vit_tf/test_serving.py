"""Models for TensorFlow Serving and ONNX, as transformers' and Keras' users write them."""

import base64
import io
from functools import cache

import keras
import numpy as np
import onnxruntime
import pytest
import tensorflow as tf
from PIL import Image
from tf_models import FIELDS, make_inputs, make_model

import vit_tf
from vit_core import CheckpointError, InputError

# Keras' patch of tf2onnx asks NumPy for a name that it no longer has.
pytestmark = pytest.mark.filterwarnings("ignore:In the future `np.object` will be defined:FutureWarning")

CLASSIFIER = "TFViTForImageClassification"
PROCESSOR = vit_tf.ViTImageProcessor(size=(12, 20), image_mean=[0.1, 0.2, 0.3], image_std=[0.5, 0.6, 0.7])


def close(got, expected, tolerance=1e-5):
    scale = np.abs(np.asarray(expected)).max()
    np.testing.assert_allclose(got, expected, rtol=0, atol=tolerance * scale)


def run_onnx(path, **inputs) -> dict[str, np.ndarray]:
    session = onnxruntime.InferenceSession(path)
    assert sorted(each.name for each in session.get_inputs()) == sorted(inputs)
    names = [each.name for each in session.get_outputs()]
    return dict(zip(names, session.run(names, inputs), strict=True))


@pytest.mark.every_day("TFViTForImageClassification", "TFViTForMaskedImageModeling")
@pytest.mark.parametrize("name", FIELDS)
def test_onnx_has_the_same_numbers_for_any_number_of_images(name, tmp_path):
    model = make_model(name, num_hidden_layers=1)
    model.export(tmp_path / "model.onnx", format="onnx", verbose=False)
    for batch in (1, 3):
        inputs = make_inputs(name, batch=batch)
        expected = model(**inputs)
        got = run_onnx(tmp_path / "model.onnx", **inputs)
        assert sorted(got) == sorted(expected)
        for key, value in got.items():
            close(value, expected[key])


@pytest.mark.every_day("MAE")
@pytest.mark.parametrize("name", [CLASSIFIER, "TFViTMAEForPreTraining"])
def test_onnx_takes_raw_images_with_a_processor(name, tmp_path):
    model, images = (
        make_model(name, num_hidden_layers=1),
        np.random.default_rng(5).integers(0, 256, (3, 12, 20, 3), np.uint8),
    )
    model.export(tmp_path / "model.onnx", format="onnx", verbose=False, image_processor=PROCESSOR)
    noise = {"noise": make_inputs(name, batch=3)["noise"]} if "MAE" in name else {}
    expected = model(PROCESSOR(list(images), return_tensors="np").pixel_values, **noise)
    close(run_onnx(tmp_path / "model.onnx", images=images, **noise)["logits"], expected.logits)


def test_what_is_served_is_named_as_in_transformers():
    model = make_model("TFViTModel", output_hidden_states=True)
    assert model.input_signature == {"pixel_values": tf.TensorSpec((None, 3, 12, 20), tf.float32, "pixel_values")}
    assert model.dummy_inputs["pixel_values"].shape == (2, 3, 12, 20)
    output, served = model(model.dummy_inputs), model.serving(model.dummy_inputs)
    assert sorted(served) == [*(f"hidden_states_{i}" for i in range(3)), "last_hidden_state", "pooler_output"]
    np.testing.assert_array_equal(served["last_hidden_state"], output.last_hidden_state)
    assert list(model.serving_output(output)) == list(served)


def serve(folder, **inputs):
    return tf.saved_model.load(folder).signatures["serving_default"](**{k: tf.constant(v) for k, v in inputs.items()})


def test_a_saved_model_is_written_beside_the_checkpoint(tmp_path):
    model, images = make_model(CLASSIFIER), make_inputs(CLASSIFIER)["pixel_values"]
    model.save_pretrained(tmp_path / "model", saved_model=True)
    assert (tmp_path / "model/saved_model/1/saved_model.pb").exists()
    close(serve(tmp_path / "model/saved_model/1", pixel_values=images)["logits"], model(images).logits)
    loaded = vit_tf.TFViTForImageClassification.from_pretrained(tmp_path / "model")
    close(loaded(images).logits, model(images).logits)


@pytest.mark.every_day("TFViTMAEModel")
@pytest.mark.parametrize("name", [name for name in FIELDS if "MAE" in name])
def test_a_served_autoencoder_draws_a_mask_for_every_call(name, tmp_path):
    model, images = make_model(name), make_inputs(name)["pixel_values"]
    model.save_pretrained(tmp_path / "model", saved_model=True)
    served = tf.saved_model.load(tmp_path / "model/saved_model/1").signatures["serving_default"]
    first, second = (served(pixel_values=tf.constant(images))["mask"].numpy() for _ in range(2))
    np.testing.assert_array_equal(first.sum(1), model(images).mask.numpy().sum(1))
    assert np.abs(first - second).max() == 1


def test_versions_are_replaced_one_by_one(tmp_path):
    first, images = make_model(CLASSIFIER), make_inputs(CLASSIFIER)["pixel_values"]
    second = make_model(CLASSIFIER)
    second.classifier.bias.assign_add(np.ones(5))
    first.save_pretrained(tmp_path / "model", saved_model=True)
    second.save_pretrained(tmp_path / "model", saved_model=True, version=2)
    (tmp_path / "model/saved_model/2/assets/old").write_text("stale")
    second.save_pretrained(tmp_path / "model", saved_model=True, version=2)
    assert sorted(path.name for path in (tmp_path / "model/saved_model").iterdir()) == ["1", "2"]
    assert not (tmp_path / "model/saved_model/2/assets/old").exists()
    for version, model in ((1, first), (2, second)):
        close(serve(tmp_path / f"model/saved_model/{version}", pixel_values=images)["logits"], model(images).logits)
    first.save_pretrained(tmp_path / "model")
    assert (tmp_path / "model/saved_model/2/saved_model.pb").exists()  # somebody else's, as every other file


def test_a_saved_model_that_fails_leaves_the_old_checkpoint(tmp_path, monkeypatch):
    model = make_model(CLASSIFIER)
    model.save_pretrained(tmp_path / "model", saved_model=True)
    before = {path: path.read_bytes() for path in (tmp_path / "model").rglob("*") if path.is_file()}

    @tf.function(input_signature=[tf.TensorSpec((None,), tf.float32)], autograph=False)
    def broken(numbers):
        raise OSError("no space")

    model.classifier.bias.assign_add(np.ones(5))
    with pytest.raises(CheckpointError, match="no space"):
        model.save_pretrained(tmp_path / "model", saved_model=True, signatures=broken)
    assert {path: path.read_bytes() for path in (tmp_path / "model").rglob("*") if path.is_file()} == before
    assert [path.name for path in tmp_path.iterdir()] == ["model"]
    monkeypatch.chdir(tmp_path / "model")
    with pytest.raises(CheckpointError, match="cannot be replaced as a whole"):
        model.save_pretrained(".", saved_model=True)
    assert {path: path.read_bytes() for path in (tmp_path / "model").rglob("*") if path.is_file()} == before


def test_signatures_of_the_user_are_served(tmp_path):
    model, images = make_model(CLASSIFIER), make_inputs(CLASSIFIER)["pixel_values"]
    names = tf.constant(list(model.config.id2label.values()))

    @tf.function(input_signature=[model.input_signature["pixel_values"]])
    def label(pixel_values):
        return {"label": tf.gather(names, tf.argmax(model(pixel_values).logits, axis=1))}

    model.save_pretrained(tmp_path, saved_model=True, signatures={"serving_default": label})
    expected = [model.config.id2label[i].encode() for i in model(images).logits.numpy().argmax(1)]
    assert list(serve(tmp_path / "saved_model/1", pixel_values=images)["label"].numpy()) == expected
    with pytest.raises(InputError, match="write saved_model=True"):
        model.save_pretrained(tmp_path, signatures=label)


def pictures() -> list[Image.Image]:
    """Smooth ones, as photographs are, of sizes around the model's."""
    random, made = np.random.default_rng(8), []
    for height, width in ((48, 64), (30, 21), (9, 13)):
        coarse = Image.fromarray(random.integers(0, 256, (4, 5, 3), np.uint8))
        made.append(coarse.resize((width, height), Image.Resampling.BICUBIC))
    return made


def as_file(picture: Image.Image, kind: str) -> bytes:
    file = io.BytesIO()
    picture.save(file, kind)
    return file.getvalue()


ENCODINGS = {
    "bytes": bytes,
    "base64": base64.b64encode,
    "base64 of the web": lambda file: base64.urlsafe_b64encode(file).rstrip(b"="),
}


@pytest.fixture(scope="module")
def taking_files(tmp_path_factory):
    """The folder of a classifier that opens files in the form that is named: exported once for each."""

    @cache
    def exported(images):
        folder = tmp_path_factory.mktemp(images)
        make_model(CLASSIFIER).export(folder, image_processor=PROCESSOR, images=images)
        return folder

    return exported


@pytest.mark.parametrize("encoding", ENCODINGS)
@pytest.mark.parametrize("kind", ["JPEG", "PNG"])
def test_image_files_are_opened_inside(kind, encoding, taking_files):
    files = [as_file(picture, kind) for picture in pictures()]
    got = serve(taking_files(encoding.split()[0]), images=[ENCODINGS[encoding](file) for file in files])["logits"]
    opened = [Image.open(io.BytesIO(file)) for file in files]
    close(got, make_model(CLASSIFIER)(PROCESSOR(opened, return_tensors="np").pixel_values).logits, 0.02)


LEVELS = {
    1: 2,
    2: 1,
    3: 1,
}  # filter -> of 256, between Pillow's resized pixels and TensorFlow's; see the guide on Keras


@pytest.mark.parametrize("resample", LEVELS)
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "GIF", "BMP"])
def test_pixels_of_tensorflow_are_near_pillows(kind, resample):
    model = make_model(CLASSIFIER)
    bare = vit_tf.ViTImageProcessor(size=(12, 20), resample=resample, do_rescale=False, do_normalize=False)
    model.serving = lambda inputs: inputs
    files = [as_file(picture, kind) for picture in pictures()]
    got = model.serving_function(bare, "bytes")(tf.constant(files))["pixel_values"].numpy().astype(int)
    opened = [Image.open(io.BytesIO(file)) for file in files]
    expected = bare(opened, return_tensors="np").pixel_values.astype(int)
    assert np.abs(got - expected).max() <= LEVELS[resample]


def test_what_tensorflow_cannot_open_alike_is_refused(tmp_path):
    model = make_model(CLASSIFIER)
    for options in ({"resample": 0}, {"do_resize": False}, {"size": (12, 12)}, {"do_exif_transpose": True}):
        processor = vit_tf.ViTImageProcessor(**{"size": (12, 20), **options})
        with pytest.raises(InputError, match=r"not for files that TensorFlow opens"):
            model.export(tmp_path / "model", image_processor=processor, images="bytes")
    for options in ({"images": "bytes"}, {"images": "bytes", "image_processor": PROCESSOR, "format": "onnx"}):
        with pytest.raises(InputError, match="needs an image_processor"):
            model.export(tmp_path / "model", **options)
    with pytest.raises(InputError, match="expected one of pixels"):
        model.serving_function(PROCESSOR, "jpeg")
    assert not any(tmp_path.iterdir())


def test_the_recipe_of_tensorflow_serving_works_as_it_stands(tmp_path):
    """A model traced by its `call`, and saved with tf.saved_model.save."""
    model, images = make_model(CLASSIFIER), make_inputs(CLASSIFIER)["pixel_values"]
    spec = tf.TensorSpec((None, 3, 12, 20), tf.float32, name="pixel_values")
    concrete = tf.function(model.call).get_concrete_function(spec)

    @tf.function(input_signature=[spec])
    def serving_fn(pixel_values):
        probabilities = tf.nn.softmax(concrete(pixel_values=pixel_values).logits, axis=1)
        return {"confidence": tf.reduce_max(probabilities, axis=1)}

    tf.saved_model.save(model, tmp_path, signatures={"serving_default": serving_fn})
    expected = keras.ops.max(keras.ops.softmax(model(images).logits), axis=1)
    close(serve(tmp_path, pixel_values=images)["confidence"], expected)
