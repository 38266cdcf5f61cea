"""`vitriad convert`, `inspect` and `verify` on files of other libraries."""

import json
import os
import signal
import subprocess
import sys

import numpy as np
import pytest
from backends import INSTALLED
from checkpoints import make_config, make_tensors, write
from foreign import ENTRIES, source

import vitriad
from conversion.dialects import targets
from vitriad.cli import main
from vitriad.options import TARGETS


def path(name):
    return str(source(next(entry for entry in ENTRIES if entry["name"] == name)))


NPZ, TORCHVISION, TIMM = path("google_vit_prelinen"), path("torchvision_vit"), path("timm_hub_folder")


def refused(capsys, *words):
    assert main([*words]) == 1
    text = capsys.readouterr().err
    assert text.startswith("vitriad: error: ") and text.count("\n") <= 3
    return text


def test_convert_offers_every_dialect_that_is_written():
    assert {*TARGETS} == {*targets()}


def test_convert_writes_what_verify_finds_equal(tmp_path, capsys):
    assert main(["convert", NPZ, str(tmp_path / "new"), "--to", "hf"]) == 0
    assert "(dialect google) as ViTForImageClassification" in capsys.readouterr().out
    assert {"config.json", "model.safetensors", "preprocessor_config.json"} <= {*os.listdir(tmp_path / "new")}
    for backend in INSTALLED:
        assert main(["verify", NPZ, str(tmp_path / "new"), "--backend", backend, "--json"]) == 0
        found = json.loads(capsys.readouterr().out)
        assert found["same"] and [row["output"] for row in found["outputs"]] == ["logits"]
        assert found["outputs"][0]["difference"] <= 1e-5 < found["outputs"][0]["scale"]


def test_convert_adapts_to_other_images_where_it_is_asked_to(tmp_path, capsys):
    target = str(tmp_path / "grey")
    grey = ["--set", "num_channels=1", "--set", "patch_size=4"]
    assert "adapt=('channels', 'patches') (--adapt channels --adapt patches)" in refused(
        capsys, "convert", NPZ, target, "--to", "hf", *grey
    )
    assert main(["convert", NPZ, target, "--to", "hf", *grey, "--adapt", "channels", "--adapt", "patches"]) == 0
    assert capsys.readouterr().out.count("patch projection from") == 2
    model = vitriad.load(target)
    assert (model.config.num_channels, model.config.patch_size) == (1, 4)
    options = {"num_channels": 1, "patch_size": 4, "adapt": ("channels", "patches")}
    assert vitriad.load(NPZ, **options).config.num_channels == 1


def test_verify_finds_what_differs(tmp_path, capsys):
    config = make_config("ViTForImageClassification")
    tensors = make_tensors("ViTForImageClassification", config)
    write(tmp_path / "one", config, tensors)
    write(tmp_path / "two", config, {**tensors, "classifier.bias": tensors["classifier.bias"] + 0.1})
    assert main(["verify", *(str(tmp_path / name) for name in ("one", "two")), "--backend", INSTALLED[0]]) == 1
    text = capsys.readouterr()
    assert "logits" in text.out and "1.00e-01" in text.out
    assert text.out.splitlines()[-1].startswith("not the same: 1 of 1 outputs differ by more than 1e-05 of their")


def test_convert_says_what_it_would_do_and_does_not_overwrite(tmp_path, capsys):
    target = tmp_path / "new"
    assert main(["convert", NPZ, str(target), "--to", "timm", "--dry-run"]) == 0
    assert "nothing written" in capsys.readouterr().out and not target.exists()
    assert main(["convert", NPZ, str(target), "--to", "timm", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["dialect"] == "google"
    before = {file.name: file.read_bytes() for file in target.iterdir()}
    assert "something is there already" in refused(capsys, "convert", TIMM, str(target), "--to", "timm")
    assert {file.name: file.read_bytes() for file in target.iterdir()} == before
    assert main(["convert", TIMM, str(target), "--to", "timm", "--force"]) == 0
    assert {file.name: file.read_bytes() for file in target.iterdir()} != before


def test_what_no_file_tells_is_asked_for_and_taken(tmp_path, capsys):
    target = str(tmp_path / "new")
    assert "num_attention_heads=" in refused(capsys, "convert", TORCHVISION, target, "--to", "hf")
    words = ["convert", TORCHVISION, target, "--to", "hf", "--heads", "4"]
    assert "does not fit" in refused(capsys, *words, "--set", 'id2label={"0": "x"}')
    assert main([*words, "--set", "hidden_dropout_prob=0.1"]) == 0
    written = json.loads((tmp_path / "new" / "config.json").read_text())
    assert (written["num_attention_heads"], written["hidden_dropout_prob"]) == (4, 0.1)
    assert "expected FIELD=JSON" in refused(capsys, *words, "--force", "--set", "hidden_dropout_prob=x")
    assert "not 'timm'" in refused(capsys, *words, "--force", "--from", "timm")


@pytest.mark.parametrize("name", ["google_vit_prelinen", "hf4_vit_cls_bin", "tf_vit_cls", "keras_hub_preset_cls"])
def test_inspect_shows_our_names_and_theirs(name, capsys):
    assert main(["inspect", "--json", path(name)]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["class"] == "ViTForImageClassification" and found["problems"] == []
    assert {row["name"] for row in found["parameters"]} >= {"classifier.weight", "vit.embeddings.cls_token"}
    assert all(row["stored_as"] for row in found["parameters"])


def test_inspect_says_what_stands_in_the_way(capsys):
    assert main(["inspect", TORCHVISION]) == 0
    assert "problem: " in (text := capsys.readouterr().out) and "num_attention_heads is not in the file" in text


@pytest.mark.parametrize("backend", INSTALLED)
def test_load_takes_files_of_other_libraries(backend):
    model = vitriad.load(NPZ, backend=backend)
    assert type(model).__name__.endswith("ViTForImageClassification") and model.config.num_attention_heads == 4
    assert vitriad.load(TIMM, backend=backend).config.num_attention_heads == 5
    assert vitriad.load(path("google_vit_representation"), backend=backend).config.pooler_output_size == 28


def test_ctrl_c_leaves_no_half_file(tmp_path):
    config = make_config("ViTModel", hidden_size=768, num_attention_heads=12, intermediate_size=3072)
    write(tmp_path / "model", config, make_tensors("ViTModel", config))
    code = (
        "import os, signal, sys; from vit_core.files import npz\n"
        "before = npz.serialised\n"
        "def stopped(tensors, advance):\n"
        "    for i, piece in enumerate(before(tensors, advance)):\n"
        "        if i == 20: os.kill(os.getpid(), signal.SIGINT)\n"
        "        yield piece\n"
        "npz.serialised = stopped\n"
        "from vitriad.cli import main; sys.exit(main(sys.argv[1:]))"
    )
    words = ["convert", str(tmp_path / "model"), str(tmp_path / "new.npz"), "--to", "google", "--allow", "numerics"]
    done = subprocess.run([sys.executable, "-c", code, *words], capture_output=True, text=True, check=False)
    assert done.returncode == 128 + signal.SIGINT and done.stderr == "vitriad: stopped\n"
    assert os.listdir(tmp_path) == ["model"]


def test_numbers_survive_the_round_trip(tmp_path):
    first = vitriad.load(NPZ, backend=INSTALLED[0])
    first.save_pretrained(tmp_path / "saved")
    vitriad.convert(tmp_path / "saved", tmp_path / "again.npz", to="google")
    with np.load(NPZ) as theirs, np.load(tmp_path / "again.npz") as ours:
        assert {*theirs} == {*ours}
        for name in theirs:
            np.testing.assert_array_equal(ours[name], theirs[name], err_msg=name)
