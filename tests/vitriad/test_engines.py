"""Engines: named as a backend, run with some threads; files that would run code of their author are not opened."""

import io
import json
import shutil
import zipfile
from importlib import import_module

import numpy as np
import pytest
import torch
from programs import FIELDS
from torch_models import make_model

import vitriad
from vit_core.errors import BackendError, InputError, UnsafeFileError
from vitriad import cli
from vitriad.engines.pt2 import check_archive

AOTI = [
    ("ViTForImageClassification", "logits", "size"),
    ("ViTModel", "features", "batch"),
    ("ViTMAEForPreTraining", "reconstruction", "size"),
]


@pytest.fixture(scope="module")
def digits(tmp_path_factory):
    """The shipped classifier as a program of ONNX."""
    folder = tmp_path_factory.mktemp("engines") / "digits-onnx"
    vitriad.export("digits-vit", folder)
    return folder


@pytest.fixture(scope="module")
def pt2(tmp_path_factory):
    folder = tmp_path_factory.mktemp("engines") / "program"
    vitriad.export(make_model("ViTForImageClassification", **FIELDS), folder, "pt2", dynamic="size")
    return folder


# --- as a backend ----------------------------------------------------------------------------------------------------


def test_commands_take_an_engine_for_its_programs(digits, capsys):
    picture = str(vitriad.models.digit_files()[0])
    words = ["classify", picture, "--model", str(digits), "--backend", "onnx", "--threads", "1", "--json"]
    assert cli.main(words) == 0
    assert json.loads(capsys.readouterr().out)["label"] == "0"
    assert cli.main(["verify", "digits-vit", str(digits), "--backend", "onnx", "--threads", "1"]) == 0
    assert "equal to the float64 oracle" in capsys.readouterr().out


@pytest.mark.parametrize("words", [["classify", "x.png", "--model"], ["verify", "digits-vit"]])
def test_commands_take_no_engine_for_another(words, digits, capsys):
    assert cli.main([*words, str(digits), "--backend", "openvino"]) == 1
    assert "an exported program of onnx, got 'openvino'" in capsys.readouterr().err
    assert cli.main([*words, "digits-vit", "--backend", "onnx"]) == 1
    command = "vitriad export digits-vit digits-vit-onnx --to onnx"
    assert capsys.readouterr().err.splitlines()[-1].endswith(command)
    assert cli.main([*words, "digits-vit", "--threads", "1"]) == 1
    assert "--threads and --machine-code are for exported programs" in capsys.readouterr().err


def test_a_checkpoint_takes_no_engine():
    with pytest.raises(InputError, match=r"none.\n.*vitriad export digits-vit digits-vit-litert --to litert"):
        vitriad.load("digits-vit", "litert")
    with pytest.raises(InputError, match="threads is for exported programs"):
        vitriad.load("digits-vit", "torch", threads=1)


@pytest.mark.every_day("nhwc")
@pytest.mark.parametrize("preprocessing", [None, "nhwc", "nchw"])
def test_features_are_embedded_by_an_engine(preprocessing, tmp_path, capsys):
    program, out, others = tmp_path / "program", tmp_path / "engine.npz", tmp_path / "torch.npz"
    vitriad.export("digits-vit", program, "openvino", outputs="features", preprocessing=preprocessing)
    pictures = [str(file) for file in vitriad.models.digit_files()[:3]]
    words = ["embed", *pictures]
    assert (
        cli.main([*words, "--model", str(program), "--backend", "openvino", "--threads", "1", "--out", str(out)]) == 0
    )
    assert cli.main([*words, "--model", "digits-vit", "--backend", "torch", "--out", str(others)]) == 0
    with np.load(out) as one, np.load(others) as two:
        np.testing.assert_allclose(one["class_token"], two["class_token"], rtol=0, atol=1e-5)
    assert cli.main([*words, "--model", "digits-vit", "--backend", "onnx", "--out", str(tmp_path / "x.npz")]) == 1
    assert "vitriad export digits-vit digits-vit-onnx --to onnx" in capsys.readouterr().err


# --- machine code ----------------------------------------------------------------------------------------------------


@pytest.mark.programs
@pytest.mark.timeout(1800)  # a compiler at work
@pytest.mark.parametrize("cell", AOTI, ids="-".join)
def test_compiled_programs_compute_what_their_model_does(cell, tmp_path):
    cls, purpose, dynamic = cell
    model = make_model(cls, **FIELDS)
    assert vitriad.export(model, tmp_path / "program", "aoti", outputs=purpose, dynamic=dynamic).holds
    with pytest.raises(UnsafeFileError, match=r"machine code.*\n.*machine_code=True"):
        vitriad.load(tmp_path / "program")
    loaded = vitriad.load(tmp_path / "program", machine_code=True, threads=1)
    images = np.zeros((1, 3, 12, 20), np.float32)
    more = {"noise": np.zeros((1, 20), np.float32)} if purpose == "reconstruction" else {}
    name = loaded.artefact.program.outputs[0]
    with torch.no_grad():
        expected = model(torch.from_numpy(images), **{key: torch.from_numpy(value) for key, value in more.items()})
    expected = expected.last_hidden_state[:, 0] if purpose == "features" else expected[name]
    np.testing.assert_allclose(loaded(images, **more)[name], expected, rtol=0, atol=1e-5)


def test_without_a_compiler_nothing_is_compiled(tmp_path, monkeypatch):
    module, error = (import_module(f"torch._inductor.{name}") for name in ("cpp_builder", "exc"))

    def none():
        raise error.InvalidCxxCompiler

    monkeypatch.setattr(module, "get_cpp_compiler", none)
    with pytest.raises(BackendError, match=r"needs a C\+\+ compiler here, and found none.\nInstall g\+\+"):
        vitriad.export(make_model("ViTModel", **FIELDS), tmp_path / "program", "aoti")
    assert [*tmp_path.iterdir()] == []


@pytest.mark.long
def test_machine_code_is_not_run_for_the_asking(pt2, tmp_path, capsys):
    program = shutil.copytree(pt2, tmp_path / "program")
    said = json.loads((program / "vitriad.json").read_text())
    (program / "vitriad.json").write_text(json.dumps({**said, "format": "aoti"}))
    for words in (["classify", "x.png", "--model", str(program)], ["verify", "digits-vit", str(program)]):
        assert cli.main(words) == 1
        assert "is machine code, which can do anything" in capsys.readouterr().err
    assert cli.main(["export", "digits-vit", str(tmp_path / "new"), "--to", "onnx", "--aoti"]) == 1
    assert "--aoti: only of pt2, got --to onnx" in capsys.readouterr().err


# --- programs of torch.export that do more ---------------------------------------------------------------------------


class Harm:
    """A pickle that runs something."""

    def __reduce__(self):
        return print, ("harm",)


def pickled():
    buffer = io.BytesIO()
    torch.save(Harm(), buffer)
    return buffer.getvalue()


def first_payload(content, **fields):
    said = json.loads(content)
    next(iter(said["config"].values())).update(fields)
    return json.dumps(said).encode()


CONFIG = "model/data/weights/model_weights_config.json"
CHANGES = {  # name of a file in the archive, from its content to another, what is said
    "weights": (CONFIG, lambda old: first_payload(old, use_pickle=True), "a pickle in data/weights"),
    "an object": (CONFIG, lambda old: first_payload(old, path_name="custom_obj_0"), "a pickle in data/weights"),
    "example": ("model/data/sample_inputs/model.pt", lambda old: pickled(), "a pickle in data/sample_inputs"),
    "code": ("model/data/aotinductor/model/x.so", lambda old: b"x", "machine code"),
    "older": ("version", lambda old: b"1.0", "'version'"),
    "legacy": ("model/data/weights/model.pt", lambda old: pickled(), "'data/weights/model.pt'"),
    "call": (
        "model/models/model.json",
        lambda old: old.replace(b"torch.ops.aten.gelu.default", b"torch.hub.load"),
        "a call of 'torch.hub.load'",
    ),
    "file": (
        "model/models/model.json",
        lambda old: old.replace(b"torch.ops.aten.gelu.default", b"torch.ops.aten.from_file.default"),
        "a call of 'torch.ops.aten.from_file.default'",
    ),
    "text": (
        "model/models/model.json",
        lambda old: old.replace(b'"expr_str": "', b'"expr_str": "exec(chr(112))+', 1),
        r"the text .exec\(chr\(112\)\)",
    ),
    "dots": (
        "model/models/model.json",
        lambda old: old.replace(b'"expr_str": "', b'"expr_str": "Symbol.mro + ', 1),
        "the text .Symbol.mro",
    ),
    "twice": (
        "model/models/model.json",
        lambda old: old.replace(b'"expr_str": "', b'"expr_str": "(exec)(1)+', 1),
        r"the text .\(exec\)\(1\)",
    ),
}


@pytest.mark.parametrize("name", CHANGES)
def test_a_program_of_torch_that_would_run_code_is_not_opened(name, pt2, tmp_path, capsys):
    place, change, said = CHANGES[name]
    with zipfile.ZipFile(pt2 / "model.pt2") as old, zipfile.ZipFile(tmp_path / "model.pt2", "w") as new:
        contents = {each: old.read(each) for each in old.namelist()}
        changed = change(contents.get(place, b""))
        assert changed != contents.get(place)
        for each, content in {**contents, place: changed}.items():
            new.writestr(each, content)
    with pytest.raises(UnsafeFileError, match=f"holds {said}"):
        check_archive(tmp_path / "model.pt2")
    assert "harm" not in capsys.readouterr().out


def test_a_program_of_torch_as_it_was_written_is_opened(pt2):
    check_archive(pt2 / "model.pt2")
    assert vitriad.load(pt2)(np.zeros((1, 3, 9, 8), np.float32)).logits.shape == (1, 5)
