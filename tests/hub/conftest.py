"""A hub on this machine for every test, and small checkpoints to put there."""

import os

# Read by huggingface_hub when it is imported: ask nothing but the hub of the tests, and do not wait for it for long.
os.environ |= {"HF_HUB_DISABLE_TELEMETRY": "1", "HF_HUB_DISABLE_XET": "1", "HF_HUB_DISABLE_PROGRESS_BARS": "1"}
os.environ |= {"HF_HUB_ETAG_TIMEOUT": "1", "HF_HUB_DOWNLOAD_TIMEOUT": "1"}

import pytest
from backends import INSTALLED
from hub.loopback import Hub

import conversion
from vit_core import ViTConfig, ViTImageProcessor
from vit_core.parameters import draw
from vitriad.auto import model_class

SIZES = {"hidden_size": 12, "num_hidden_layers": 2, "num_attention_heads": 3, "intermediate_size": 14}
SAVED_AS = {"architectures": ["ViTForImageClassification"], "dtype": "float32"}
CONFIG = ViTConfig(**SIZES, **SAVED_AS, image_size=8, patch_size=4)


@pytest.fixture(params=INSTALLED)
def backend(request):
    """Of every test that needs a model; those of configurations, files and arrays need none."""
    return request.param


@pytest.fixture
def classifier(backend):
    """The backend's class."""
    return model_class("ViTForImageClassification", backend)


@pytest.fixture
def hub():
    with Hub() as hub:
        yield hub


@pytest.fixture
def options(hub, tmp_path):
    """Hub options that lead to the hub of the test and to a cache of its own."""
    return {"endpoint": hub.url, "cache_dir": tmp_path / "cache", "token": Hub.TOKEN}


@pytest.fixture
def files(tmp_path):
    """files(seed=0, **options of saving) -> name -> bytes of a classifier and its processor, as vitriad saves them."""

    def make(seed=0, folder="made", **save_options):
        tensors = draw(CONFIG, "ViTForImageClassification", seed=seed)
        made = tmp_path / folder
        conversion.save_pretrained(made, CONFIG, tensors, class_name="ViTForImageClassification", **save_options)
        ViTImageProcessor(size=8).save_pretrained(made)
        return {path.name: path.read_bytes() for path in made.iterdir()}

    return make
