"""`vitriad.load` and the Auto classes find the right class, or say what is missing."""

import json
import shutil
import sys
from types import ModuleType, SimpleNamespace

import pytest
from backends import INSTALLED

import vitriad
from vit_core.errors import BackendError, CheckpointError, ConfigError, InputError
from vit_core.installing import install_command
from vitriad import models
from vitriad.auto import model_class
from vitriad.backends import BACKENDS

DIGITS = models.FOLDER / "digits-vit"
SMALL = {"hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 8, "image_size": 8}
DECODER = {"decoder_hidden_size": 8, "decoder_num_attention_heads": 2, "decoder_num_hidden_layers": 1}
VIT = vitriad.ViTConfig(**SMALL, patch_size=4)
MAE = vitriad.ViTMAEConfig(**SMALL, **DECODER, patch_size=4)
TASKS = [
    ("AutoModel", VIT, "ViTModel"),
    ("AutoModel", MAE, "ViTMAEModel"),
    ("AutoModelForImageClassification", VIT, "ViTForImageClassification"),
    ("AutoModelForMaskedImageModeling", VIT, "ViTForMaskedImageModeling"),
    ("AutoModelForPreTraining", MAE, "ViTMAEForPreTraining"),
]


@pytest.fixture
def only(monkeypatch):
    """Makes only the named frameworks look installed."""

    def choose(*names: str) -> None:
        monkeypatch.setattr("vitriad.auto.find_spec", lambda name: name if name in names else None)

    return choose


def named(tmp_path, architectures):
    """A copy of the digits classifier whose config.json names other classes."""
    folder = shutil.copytree(DIGITS, tmp_path / "model")
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "architectures": architectures}))
    return folder


@pytest.fixture(params=INSTALLED)
def backend(request):
    return request.param


def test_load_takes_the_class_from_the_checkpoint_and_passes_options_on(backend):
    model = vitriad.load(DIGITS, backend, attn_implementation="eager")
    assert type(model) is model_class("ViTForImageClassification", backend)
    assert model.config.attn_implementation == "eager"


@pytest.mark.parametrize("name", ["TFViTModel", "FlaxViTModel", "ViTModel"])
def test_load_takes_the_names_of_every_framework(tmp_path, name, backend):
    assert type(vitriad.load(named(tmp_path, [name, "SomethingElse"]), backend)) is model_class("ViTModel", backend)


@pytest.mark.parametrize("architectures", [None, [], ["ResNetModel"], ["ViTModel", "ViTForImageClassification"]])
def test_load_falls_back_to_nothing(tmp_path, architectures, backend):
    with pytest.raises(CheckpointError, match="Name one of ViTModel, ViTForImageClassification") as error:
        vitriad.load(named(tmp_path, architectures), backend)
    assert len(str(error.value).splitlines()) <= 3


@pytest.mark.parametrize(("auto", "config", "expected"), TASKS)
def test_auto_class_follows_the_type_of_the_configuration(tmp_path, auto, config, expected, backend):
    fresh = getattr(vitriad, auto).from_config(config, backend=backend)
    assert type(fresh) is model_class(expected, backend)
    fresh.save_pretrained(tmp_path / "model")
    loaded = getattr(vitriad, auto).from_pretrained(tmp_path / "model", backend=backend, hidden_dropout_prob=0.5)
    assert type(loaded) is type(fresh)
    assert loaded.config.hidden_dropout_prob == 0.5


def test_configuration_of_the_caller_decides(tmp_path, backend):
    vitriad.AutoModel.from_config(VIT, backend=backend).save_pretrained(tmp_path)
    with pytest.raises(
        ConfigError, match="AutoModelForPreTraining: expected a configuration of type vit_mae, got 'vit'"
    ):
        vitriad.AutoModelForPreTraining.from_pretrained(tmp_path, backend)
    model = vitriad.AutoModelForPreTraining.from_pretrained(tmp_path, backend, config=MAE)
    assert type(model) is model_class("ViTMAEForPreTraining", backend)


def test_auto_is_the_first_backend_that_works_and_says_so_once(caplog, only, backend):
    only(BACKENDS[backend].framework, "something else")
    assert type(vitriad.load(DIGITS)) is model_class("ViTForImageClassification", backend)
    assert [record.getMessage() for record in caplog.records] == [f"vitriad: backend {backend}"]


@pytest.mark.parametrize("missing", BACKENDS)
def test_missing_framework_names_the_command_that_installs_it(only, missing):
    only()
    with pytest.raises(BackendError) as error:
        vitriad.load(DIGITS, missing)
    assert install_command(missing) in str(error.value)


def test_no_framework_at_all_names_every_command(only):
    only()
    with pytest.raises(BackendError) as error:
        vitriad.load(DIGITS)
    assert [install_command(backend) in str(error.value) for backend in ("torch", "tf", "flax")] == [True] * 3


def test_backend_without_the_class_is_not_in_this_release(only, monkeypatch):
    only("flax")
    monkeypatch.setitem(sys.modules, "vit_flax", ModuleType("vit_flax"))
    with pytest.raises(BackendError, match="FlaxViTForImageClassification is not in this release"):
        vitriad.load(DIGITS, "flax")
    with pytest.raises(BackendError, match="none of torch, tf, flax"):
        vitriad.load(DIGITS)


def test_backend_counts_from_the_day_its_package_exports_the_class(only, monkeypatch, caplog):
    only("flax")
    model = SimpleNamespace(from_pretrained=lambda path, **kwargs: (path, kwargs))
    monkeypatch.setitem(sys.modules, "vit_flax", SimpleNamespace(FlaxViTForImageClassification=model))
    assert vitriad.load(DIGITS, mmap=False) == (DIGITS, {"mmap": False})
    assert "backend flax" in caplog.text


def test_unknown_backend_lists_the_known_ones():
    with pytest.raises(InputError, match="expected one of auto, torch, tf, flax, got 'mxnet'"):
        vitriad.load(DIGITS, "mxnet")


def test_package_lists_what_it_offers():
    assert {*vitriad.__all__} <= {*dir(vitriad)}
    assert [name for name in vitriad.__all__ if getattr(vitriad, name).__name__ != name] == []
    with pytest.raises(AttributeError, match="no attribute 'TFAutoModel'"):
        vitriad.TFAutoModel  # noqa: B018


def test_shipped_models_are_known_by_their_names():
    assert type(vitriad.load("digits-vit", INSTALLED[0])) is model_class("ViTForImageClassification", INSTALLED[0])
    auto = vitriad.AutoModelForPreTraining.from_pretrained("digits-vit-mae", INSTALLED[0])
    assert type(auto) is model_class("ViTMAEForPreTraining", INSTALLED[0])
