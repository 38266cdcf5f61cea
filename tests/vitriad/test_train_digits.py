"""The training example learns from labels and from nothing else, and picks up where it was stopped."""

import importlib.util
import json
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from vit_core.tensors import to_numpy
from vitriad.cli import main

SCRIPT = Path(__file__).parents[2] / "docs" / "examples" / "train_digits.py"


@pytest.fixture(scope="module")
def example():
    specification = importlib.util.spec_from_file_location("train_digits", SCRIPT)
    module = importlib.util.module_from_spec(specification)
    sys.modules["train_digits"] = module
    specification.loader.exec_module(module)
    yield module
    del sys.modules["train_digits"]


@pytest.fixture(scope="module")
def digits(example):
    return example.read_digits(16)


@pytest.fixture(autouse=True)
def one_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def held_out_accuracy(example, data, truth, state: Path) -> float:
    model = example.make_classifier(data, 4, seed=0)
    example.train(model, example.classifier_loss, data, 4, 0, state)
    held_out = data.split()["held_out"]
    predicted = to_numpy(model(data.pixel_values[held_out]).logits).argmax(axis=1)
    return (predicted == to_numpy(truth)[held_out]).mean()


def test_shuffled_labels_teach_nothing_about_held_out_digits(example, digits, tmp_path):
    """The control for leakage: with labels torn from their scans, the same recipe must fall back to chance."""
    shuffled = digits.labels[torch.randperm(len(digits.labels), generator=torch.Generator().manual_seed(0))]
    control = digits._replace(labels=shuffled)
    assert held_out_accuracy(example, digits, digits.labels, tmp_path / "true.safetensors") > 0.8
    assert held_out_accuracy(example, control, digits.labels, tmp_path / "shuffled.safetensors") < 0.2


@pytest.mark.parametrize("task", ["classifier", "mae"])
def test_stopped_and_resumed_run_ends_at_the_same_weights(example, digits, tmp_path, task):
    data = digits._replace(pixel_values=digits.pixel_values[:200], labels=digits.labels[:200], names=digits.names[:200])
    make, loss_of = getattr(example, f"make_{task}"), getattr(example, f"{task}_loss")
    weights = []
    for stops_at in (None, 4):  # steps of the second epoch are 3, 4 and 5

        def loss_or_stop(model, pixels, labels, seed, step, stops_at=stops_at):
            if step == stops_at:
                raise KeyboardInterrupt
            return loss_of(model, pixels, labels, seed, step)

        state = tmp_path / f"{stops_at}.safetensors"
        if stops_at:
            with pytest.raises(KeyboardInterrupt):
                example.train(make(data, 4, 0), loss_or_stop, data, 3, 0, state)
        model = make(data, 4, 0)
        example.train(model, loss_of, data, 3, 0, state)
        weights.append({name: to_numpy(tensor) for name, tensor in model.state_dict().items()})
    for name, array in weights[0].items():
        np.testing.assert_array_equal(array, weights[1][name])


def test_a_folder_of_pictures_becomes_a_classifier_and_an_autoencoder(example, tmp_path, monkeypatch, capsys):
    random = np.random.default_rng(0)
    for index, name in enumerate(("blue", "red", "green")):
        (tmp_path / "photos" / name).mkdir(parents=True)
        for number in range(10):
            pixels = random.integers(0, 60, (24, 30, 3), dtype=np.uint8)
            pixels[..., (2, 0, 1)[index]] += 190
            Image.fromarray(pixels).save(tmp_path / "photos" / name / f"{number}.png")
    options = ["--images", str(tmp_path / "photos"), "--output", str(tmp_path / "out"), "--epochs", "12", "1"]
    monkeypatch.setattr(sys, "argv", ["train_digits.py", *options])
    example.main()
    split = json.loads((tmp_path / "out" / "vit" / "split.json").read_text())
    assert (len(split["train"]), len(split["held_out"])) == (24, 6)
    capsys.readouterr()
    picture = str(tmp_path / "photos" / split["held_out"][0])
    assert main(["classify", "--json", "--model", str(tmp_path / "out" / "vit"), picture]) == 0
    assert json.loads(capsys.readouterr().out)["label"] == split["held_out"][0].partition("/")[0]
    assert main(["inspect", str(tmp_path / "out" / "vit-mae")]) == 0


def test_a_folder_without_classes_is_refused(example, tmp_path):
    with pytest.raises(SystemExit, match="expected a sub-folder of pictures for each of at least two classes"):
        example.read_folder(tmp_path, 16)
