"""SavedModels that open and resize image files themselves: held to the oracle, their distance from Pillow stated."""

import base64
import json

import numpy as np
import pytest
import tensorflow as tf
from programs import FIELDS
from tf_models import make_model

import vitriad
from vit_core.errors import InputError
from vit_core.images.processor import ViTImageProcessor
from vitriad import cli
from vitriad.models import digit_files

PROCESSOR = ViTImageProcessor(size={"height": 12, "width": 20}, resample=2)
FILES = [file.read_bytes() for file in digit_files()[:2]]


@pytest.fixture(scope="module", params=["bytes", pytest.param("base64", marks=pytest.mark.long)])
def exported(request, tmp_path_factory):
    """A folder with such a program, its form of files, its certificate, and its model."""
    folder, model = tmp_path_factory.mktemp("files") / "program", make_model("TFViTForImageClassification", **FIELDS)
    options = {"image_processor": PROCESSOR, "preprocessing": request.param}
    return folder, request.param, vitriad.export(model, folder, "savedmodel", **options), model


def test_it_is_held_to_the_oracle_and_its_distance_from_pillow_is_stated(exported):
    folder, _, found, _ = exported
    assert found.holds and len(found.rows) == 3
    (note,) = json.loads((folder / "certificate.json").read_text())["notes"]
    assert note in str(found)
    assert 0 < float(note.split("outputs ")[1].split(" of scale")[0]) < 0.05
    said = json.loads((folder / "vitriad.json").read_text())
    assert said["takes"] == [{"name": "images", "dtype": "string", "shape": ["batch"]}]
    assert said["left_to_do"].startswith("nothing")


def test_it_takes_the_content_of_files(exported):
    folder, form, _, model = exported
    given = FILES if form == "bytes" else [base64.b64encode(file).decode() for file in FILES]
    loaded = vitriad.load(folder)
    logits = loaded(images=given).logits
    served = tf.saved_model.load(str(folder)).signatures["serving_default"](images=tf.constant(given))["logits"]
    np.testing.assert_array_equal(logits, served)
    assert logits.shape == (2, model.config.num_labels)
    for wrong in (FILES[0], [], [np.zeros((8, 8), np.uint8)], None):
        with pytest.raises(InputError, match="expected a list with the content of image files"):
            loaded(images=wrong)
    with pytest.raises(InputError, match="no input called labels"):
        loaded(images=given, labels=[1])


def test_classify_says_how_to_call_it(exported, capsys):
    assert cli.main(["classify", str(digit_files()[0]), "--model", str(exported[0])]) == 1
    assert "a program that opens files itself" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("to", "options", "message"),
    [
        ("litert", {}, "image files are opened by programs of savedmodel, got litert"),
        ("savedmodel", {"dynamic": "size"}, "a size other than the model's any"),
        ("savedmodel", {"image_processor": ViTImageProcessor()}, r"a size other than the model's \(12, 20\)"),
        ("savedmodel", {"image_processor": ViTImageProcessor(size=PROCESSOR.size, resample=5)}, "resample=5"),
    ],
)
def test_what_programs_do_not_do_to_files_is_refused(to, options, message, tmp_path):
    model = make_model("TFViTForImageClassification", **FIELDS)
    with pytest.raises(InputError, match=message):
        given = {"image_processor": PROCESSOR, "preprocessing": "bytes", **options}
        vitriad.export(model, tmp_path / "program", to, **given)
    assert [*tmp_path.iterdir()] == []


@pytest.mark.long
def test_noise_goes_beside_files(tmp_path):
    model = make_model("TFViTMAEForPreTraining", **FIELDS)
    options = {"image_processor": PROCESSOR, "preprocessing": "bytes"}
    assert vitriad.export(model, tmp_path / "program", "savedmodel", **options).holds
    noise = np.random.default_rng(0).random((2, 20), np.float32)
    assert vitriad.load(tmp_path / "program")(images=FILES, noise=noise).mask.shape == (2, 20)
