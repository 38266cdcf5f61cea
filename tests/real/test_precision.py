"""What programs in less than float32 lose of a published DINOv2, on photographs that calibrated nothing."""

import numpy as np
import pytest
from PIL import Image
from real import dinov2
from real.fetching import MORE_PHOTOGRAPHS, PHOTOGRAPHS, fetched

import vitriad
from vit_core.errors import CheckpointError
from vit_core.reference import forward
from vitriad.programs import certificate

pytestmark = pytest.mark.real

# Whole photographs and two crops of each; no photograph is in both lists, so no scene is.
HELD_OUT = (
    *("chelsea", "rocket", "china", "camera", "coins", "clock_motion"),
    *("gravel", "hubble_deep_field", "retina", "cell", "brick"),
)
CALIBRATING = ("astronaut", "coffee", "flower", "motorcycle_left", "grass", "moon", "ihc", "page")
# Program -> the least cosine of the class token in the mean and at worst; measured on 33 or 36 pictures stands behind.
BOUNDS = {
    "onnx weights": (0.999, 0.997),  # 0.99993, 0.9998
    "onnx dynamic": (0.999, 0.997),  # 0.99960, 0.9973
    "onnx static": (0.998, 0.99),  # 0.99924, 0.9969
    "openvino weights": (0.999, 0.997),  # 0.99976, 0.9992
    "openvino dynamic": (0.999, 0.997),  # 0.99962, 0.9985
    "openvino static": (0.998, 0.99),  # 0.99899, 0.9960
    "litert dynamic": (0.999, 0.997),  # 0.99939, 0.9976
    "pt2 weights": (0.999, 0.997),  # 0.99970, 0.9992
    "savedmodel weights": (0.999, 0.997),  # 0.99970, 0.9990
}


@pytest.fixture(scope="module")
def photographs(published, tmp_path_factory):
    """photographs(names) -> files of whole photographs and crops."""
    files = {path.stem: path for path in (*fetched(PHOTOGRAPHS), *fetched(MORE_PHOTOGRAPHS), *dinov2.sklearn_s())}
    folder = tmp_path_factory.mktemp("photographs")

    def written(names):
        found = []
        for name in names:
            image = Image.open(files[name]).convert("RGB")
            (width, height), side = image.size, min(image.size) * 2 // 3
            corner = image.crop((0, 0, side, side))
            other = image.crop((width - side, height - side, width, height))
            for i, picture in enumerate((image, corner, other)):
                found.append(folder / f"{name}-{i}.png")
                picture.save(found[-1])
        return found

    return written


@pytest.fixture(scope="module")
def known():
    return {}


@pytest.fixture
def oracle_once(known, monkeypatch):
    """What the oracle says of the same images is computed once for all tests: it takes as long as all else."""

    def once(model, config, tensors, **inputs):
        key = inputs["pixel_values"].tobytes()
        if key not in known:
            known[key] = forward(model, config, tensors, **inputs)
        return known[key]

    monkeypatch.setattr(certificate, "forward", once)


@pytest.mark.timeout(900)  # three minutes alone
@pytest.mark.parametrize("name", BOUNDS)
def test_integers_keep_the_class_token(name, folder, photographs, oracle_once, tmp_path):
    to, int8 = name.split()
    options = {"calibration": photographs(CALIBRATING)} if int8 == "static" else {}
    pictures = photographs(HELD_OUT)
    found = vitriad.export(
        folder, tmp_path / "program", to, int8=int8, outputs="features", image_size=224, pictures=pictures, **options
    )
    token, mean, worst = found.held_out.outputs[0]
    assert (token, found.held_out.pictures) == ("class_token", 33)
    np.testing.assert_array_less(BOUNDS[name], (mean, worst))
    assert found.is_recommended and found.held_out.size < 0.65


def test_a_bound_that_is_not_kept_leaves_nothing(folder, photographs, oracle_once, tmp_path):
    with pytest.raises(CheckpointError, match="is asked for"):
        options = {"outputs": "features", "image_size": 224, "pictures": photographs(HELD_OUT), "min_cosine": 0.9999}
        vitriad.export(folder, tmp_path / "program", "onnx", int8="dynamic", **options)
    assert not (tmp_path / "program").exists()
