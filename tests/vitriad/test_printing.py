"""Whatever files are called, and call their labels and tensors: a terminal shows it, and does not obey it."""

import json
import os
import subprocess
import sys

import numpy as np
import pytest
from backends import INSTALLED
from checkpoints import make_config, make_tensors, write
from PIL import Image

import vitriad
from vit_core.files.safetensors import serialised
from vit_core.files.saving import write_pieces
from vitriad import models
from vitriad.cli import main

HOSTILE = "\x1b[2J\x9b31m\x07\u202e\rred\x7f"
ESCAPED = r"\x1b[2J\x9b31m\x07\u202e\rred\x7f"
FILES, BACKEND = [*map(str, models.digit_files())], ["--backend", INSTALLED[0]]
CLASSIFIER = "ViTForImageClassification"


def is_plain(text):
    return all(character.isprintable() or character == "\n" for character in text)


@pytest.fixture
def folder(tmp_path):
    """A classifier in a folder of a hostile name, with hostile labels."""
    labels = [f"{HOSTILE}{i}\nvitriad: error: forged" for i in range(5)]
    config = make_config(CLASSIFIER, id2label=dict(enumerate(labels)), image_size=8, architectures=[CLASSIFIER])
    write(tmp_path / f"m{HOSTILE}", config, make_tensors(CLASSIFIER, config))
    (tmp_path / f"m{HOSTILE}" / "preprocessor_config.json").write_text('{"size": 8}')
    return tmp_path / f"m{HOSTILE}"


def printed(capsys, *words, status=0):
    assert main([*map(str, words)]) == status
    captured = capsys.readouterr()
    assert is_plain(captured.out) and is_plain(captured.err)
    return captured


@pytest.mark.parametrize("backend", INSTALLED)
def test_labels_and_names_of_images(backend, folder, capsys):
    image, broken = folder / f"a{HOSTILE}\n.png", folder / f"b{HOSTILE}.png"
    Image.new("RGB", (8, 8)).save(image)
    broken.write_bytes(b"")
    captured = printed(capsys, "classify", "--model", folder, "--backend", backend, image, broken, status=3)
    assert captured.out.count("\n") == 1 and rf"a{ESCAPED}\n.png" in captured.out
    assert rf"{ESCAPED}0\nvitriad: error: forged" in captured.out and f"b{ESCAPED}.png" in captured.err
    captured = printed(capsys, "classify", "--json", "--model", folder, "--backend", backend, image)
    assert json.loads(captured.out)["path"] == str(image)


def test_names_of_tensors_and_folders(folder, tmp_path, capsys):
    config = make_config(CLASSIFIER)
    tensors = {**make_tensors(CLASSIFIER, config), f"x{HOSTILE}\ny": np.ones(3, np.float32)}
    (folder / "model.safetensors").unlink()
    write_pieces(folder / "model.safetensors", serialised(tensors, lambda size: None))
    for command in (["inspect"], ["convert", "--to", "hf", "--dry-run"]):
        target = [tmp_path / "new"] if command[0] == "convert" else []
        captured = printed(capsys, *command, folder, *target, status=command[0] == "convert")
        assert "1 unexpected: " in captured.out + captured.err and f"m{ESCAPED}" in captured.out + captured.err


def test_messages_of_the_parser_and_of_loggers(folder, capsys, monkeypatch):
    with pytest.raises(SystemExit):
        main(["inspect", "x", f"--{HOSTILE}"])
    text = capsys.readouterr().err
    assert is_plain(text) and ESCAPED in text
    monkeypatch.setattr("vitriad.inspect.run", lambda arguments: print(HOSTILE, file=sys.stderr) or 0)
    assert ESCAPED in printed(capsys, "inspect", "x").err


def test_streams_are_given_back(capsys):
    before = sys.stdout, sys.stderr
    main(["inspect", "nope.bin"])
    assert (sys.stdout, sys.stderr) == before


def run(shell, *words):
    command = ["sh", "-c", f'"$@" {shell}', "sh", sys.executable, "-m", "vitriad", *words]
    return subprocess.run(command, capture_output=True, text=True, check=False)


INSPECT = ["inspect", "digits-vit"]


@pytest.mark.parametrize("words", [INSPECT, ["--help"], ["inspect", "nope.bin"]])
def test_a_closed_stdout_is_said_in_one_line(words):
    done = run(">&-", *words)
    assert (done.returncode, done.stderr) == (1, "vitriad: error: stdout is closed: there is nowhere to print to.\n")


@pytest.mark.parametrize("words", [INSPECT, ["--help"]])
def test_a_full_disk_under_stdout_is_said_in_one_line(words):
    done = run(">/dev/full", *words)
    assert done.returncode == 1 and done.stderr.startswith("vitriad: error: ") and done.stderr.count("\n") == 1
    assert "No space left on device" in done.stderr


def test_a_closed_stderr_changes_nothing(tmp_path):
    assert run("2>&-", *INSPECT).stdout == run("", *INSPECT).stdout
    done = run("2>&-", "convert", "digits-vit", str(tmp_path / "new"), "--to", "hf")
    assert (done.returncode, "written as 'hf'" in done.stdout) == (0, True)
    assert vitriad.AutoConfig.from_pretrained(tmp_path / "new").num_labels == 10


@pytest.mark.parametrize("words", [INSPECT, ["--help"], ["classify", *BACKEND, *FILES]])
def test_a_reader_that_stops_early_is_left_in_peace(words):
    command = [sys.executable, "-m", "vitriad", *words]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        process.stdout.close()
        assert (process.stderr.read(), process.wait()) == (b"", 1)


@pytest.mark.parametrize("words", [INSPECT, ["inspect", "digits-vit", "--class", "ViTModel", "--set", "a=1"]])
def test_nothing_that_is_printed_depends_on_the_hash_seed(words):
    command = [sys.executable, "-m", "vitriad", *words]
    said = set()
    for seed in "012":
        environment = {**os.environ, "PYTHONHASHSEED": seed}
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
        said.add(done.stdout + done.stderr)
    assert len(said) == 1 and len(said.pop()) > 30
