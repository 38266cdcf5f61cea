"""The Auto classes of every backend take what `vitriad.load` takes, and give the same classes."""

from importlib import import_module

import numpy as np
import pytest
from backends import INSTALLED
from checkpoints import make_config, make_tensors, write

from conversion import convert
from vit_core.errors import ConfigError
from vit_core.tensors import to_numpy
from vitriad.backends import BACKENDS

TASKS = {
    "AutoModel": "ViTModel",
    "AutoModelForImageClassification": "ViTForImageClassification",
    "AutoModelForMaskedImageModeling": "ViTForMaskedImageModeling",
    "AutoModelForPreTraining": "ViTMAEForPreTraining",
}


def of(backend: str, name: str):
    return getattr(import_module(BACKENDS[backend].package), BACKENDS[backend].prefix + name)


def write_model(folder, name: str):
    config = make_config(name)
    write(folder, config, make_tensors(name, config))
    return config


@pytest.mark.every_day("torch", "AutoModelForImageClassification")
@pytest.mark.parametrize("backend", INSTALLED)
@pytest.mark.parametrize("task", TASKS)
def test_auto_classes_give_the_class_of_the_task(backend, task, tmp_path):
    config = write_model(tmp_path, TASKS[task])
    auto, cls = of(backend, task), of(backend, TASKS[task])
    assert type(auto.from_pretrained(tmp_path)) is cls
    assert type(auto.from_pretrained(tmp_path, config=str(tmp_path / "config.json"))) is cls
    assert type(auto.from_config(config)) is cls


@pytest.mark.parametrize("backend", INSTALLED)
def test_auto_classes_take_files_of_other_programs(backend, tmp_path):
    config = write_model(tmp_path / "hf", "ViTForImageClassification")
    convert(tmp_path / "hf", tmp_path / "file.npz", to="google", allow=("numerics",))
    heads = {"num_attention_heads": config.num_attention_heads, "image_size": config.image_size}
    auto = of(backend, "AutoModelForImageClassification")
    image = np.ones(
        (1, 3, *([config.image_size] * 2 if isinstance(config.image_size, int) else config.image_size)), "f"
    )
    for where in ("file.npz", "hf/model.safetensors"):
        model = auto.from_pretrained(tmp_path / where, **(heads if where == "file.npz" else {}))
        assert to_numpy(model(image).logits).shape == (1, config.num_labels)


@pytest.mark.parametrize("backend", INSTALLED)
def test_auto_classes_refuse_what_does_not_do_the_task(backend, tmp_path):
    write_model(tmp_path, "ViTModel")
    with pytest.raises(
        ConfigError, match="AutoModelForPreTraining: expected a configuration of type vit_mae, got 'vit'"
    ):
        of(backend, "AutoModelForPreTraining").from_pretrained(tmp_path)
