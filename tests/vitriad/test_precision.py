"""Programs in less than float32: each stays within its bound on pictures, or nothing is written."""

import json
from importlib import import_module

import numpy as np
import pytest
from PIL import Image
from sklearn.datasets import load_digits

import vitriad
from vit_core.errors import BackendError, CheckpointError, ImageError, InputError
from vit_core.images.processor import ViTImageProcessor
from vit_core.programs import Spared, quantised
from vit_core.tensors import to_numpy
from vitriad import cli, parity
from vitriad.models import FOLDER, digit_files
from vitriad.programs import held_out, precision
from vitriad.programs.exporting import FORMATS
from vitriad.programs.precision import COSINES, FLOATS, TOOLS, Tool

FILES = digit_files()
PROCESSOR = ViTImageProcessor.from_pretrained(FOLDER / "digits-vit")
CELLS = [(to, name) for to, row in TOOLS.items() for name, tool in row.items() if isinstance(tool, Tool)]
REFUSED = [(to, name) for to, row in TOOLS.items() for name, tool in row.items() if isinstance(tool, str)]
EVERY_DAY = [  # of each precision one, in the formats that are written soonest
    ("onnx", "int8 static"),
    ("openvino", "bfloat16"),
    ("openvino", "int8 dynamic"),
    ("openvino", "int8 weights"),
    ("stablehlo", "float16"),
]


def options_of(name):
    """Keywords of `vitriad.export`; the scans that calibrate are not among those that measure."""
    if not name.startswith("int8"):
        return {"dtype": name}
    int8 = name.removeprefix("int8 ")
    return {"int8": int8, **({"calibration": FILES[::2], "pictures": FILES[1::2]} if int8 == "static" else {})}


def make(cls="ViTForImageClassification", **fields):
    return import_module("torch_models").make_model(cls, patch_size=4, image_size=(12, 20), **fields)


def check_cell(to, name, folder):
    found = vitriad.export("digits-vit", folder, to, image_processor=PROCESSOR, **options_of(name))
    assert found.holds and found.is_recommended and found.precision == name
    said = json.loads((folder / "vitriad.json").read_text())
    int8 = name.removeprefix("int8 ") if name.startswith("int8") else None
    assert (said["int8"], said["dtype"]) == (int8, name if int8 is None else "float32")
    assert {"vitriad", *TOOLS[to][name].distributions} <= said["versions"].keys()
    assert found.tolerance == (FLOATS[name] if int8 is None else None)
    assert found.min_cosine == said["min_cosine"] == (None if int8 is None else COSINES[int8])
    assert 0 < found.held_out.worst <= 1 + 1e-12 and found.held_out.speed > 0
    assert json.loads((folder / "certificate.json").read_text())["held_out"]["top1"] == found.held_out.top1
    assert {path.name for path in folder.iterdir() if path.name.startswith(".")} == set()
    program, scans = vitriad.load(folder), load_digits()
    held_out = json.loads((FOLDER / "digits-vit" / "split.json").read_text())["held_out"]
    images = np.rint(scans.images[held_out] * (255 / 16)).astype(np.uint8)
    pixels = PROCESSOR(list(images), input_data_format="none", return_tensors="np")["pixel_values"]
    exact = to_numpy(vitriad.load("digits-vit", "torch")(pixel_values=pixels).logits).argmax(axis=1)
    right, near = ((each == scans.target[held_out]).mean() for each in (exact, program(pixels).logits.argmax(axis=1)))
    np.testing.assert_allclose(near, right, rtol=0, atol=0.003)  # one of 359 digits


@pytest.mark.parametrize(("to", "name"), EVERY_DAY)
def test_a_program_stays_within_its_bound(to, name, tmp_path):
    check_cell(to, name, tmp_path / "program")


def test_every_precision_is_among_those():
    assert sorted(name for _, name in EVERY_DAY) == sorted({name for _, name in CELLS})


@pytest.mark.programs
@pytest.mark.parametrize(("to", "name"), [cell for cell in CELLS if cell not in EVERY_DAY])
def test_every_program_stays_within_its_bound(to, name, tmp_path):
    check_cell(to, name, tmp_path / "program")


@pytest.mark.programs
@pytest.mark.parametrize("dynamic", ["batch", "size"])
@pytest.mark.parametrize("cls", ["ViTModel", "ViTForMaskedImageModeling", "ViTMAEModel", "ViTMAEForPreTraining"])
@pytest.mark.parametrize("name", ["float16", "int8 weights"])
def test_every_class_has_them(name, cls, dynamic, tmp_path):
    found = vitriad.export(make(cls), tmp_path / "program", "onnx", dynamic=dynamic, **options_of(name))
    assert found.holds


@pytest.mark.programs
@pytest.mark.parametrize("name", ["float16", "int8 weights", "int8 dynamic"])
def test_a_program_of_tensorflow_has_its_matrices_found(name, tmp_path):
    found = vitriad.export("digits-vit", tmp_path / "program", "onnx", backend="tf", **options_of(name))
    assert found.holds and found.is_recommended


# --- what is refused -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("to", "name"), REFUSED)
def test_what_no_tool_makes_is_refused_by_name(to, name, tmp_path):
    assert TOOLS.keys() == FORMATS.keys()
    (backend, *_) = FORMATS[to].converters
    program = import_module("vit_core.programs").settle(
        "ViTModel", make("ViTModel").config, purpose=None, size=None, **options_without_images(name)
    )
    with pytest.raises(
        InputError, match=rf"{to}: {name} is not offered: .*\n{to} can be float32, .*{name} can be had as"
    ):
        precision.tool_of(to, backend, program)


def options_without_images(name):
    return {"int8": name.removeprefix("int8 ")} if name.startswith("int8") else {"dtype": name}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"int8": "static"}, r"takes its scales from images: calibration="),
        ({"int8": "dynamic", "calibration": FILES[:1]}, "calibration: only for int8='static'"),
        ({"int8": "static", "calibration": FILES[:2], "pictures": FILES[1:3]}, "is among the calibration images"),
        ({"int8": "weights", "dtype": "float16"}, "give one of the two"),
        ({"int8": "four"}, "int8: expected one of dynamic, static, weights"),
        ({"dtype": "float64"}, "dtype: expected one of float32, bfloat16, float16"),
        ({"dtype": "float16", "min_cosine": 0.9}, "min_cosine: only of int8"),
        ({"dtype": "bfloat16"}, "onnx: bfloat16 is not offered"),
    ],
)
def test_a_precision_that_makes_no_sense_is_refused(options, message, tmp_path):
    with pytest.raises(InputError, match=message):
        vitriad.export(make(), tmp_path / "program", **options)
    assert [*tmp_path.iterdir()] == []


def test_calibration_images_that_cannot_be_read_are_named(tmp_path):
    (tmp_path / "broken.png").write_bytes(b"no picture")
    for file in (tmp_path / "broken.png", tmp_path / "missing.png"):
        with pytest.raises(ImageError, match=file.name):
            vitriad.export(make(), tmp_path / "program", int8="static", calibration=[file], pictures=FILES[:1])
    assert not (tmp_path / "program").exists()


def test_a_tool_that_is_missing_is_named(tmp_path, monkeypatch):
    monkeypatch.setitem(import_module("sys").modules, "nncf", None)
    with pytest.raises(
        BackendError, match=r"openvino: a package is missing: .*nncf.*\n.*pip install torch openvino nncf"
    ):
        vitriad.export(make(), tmp_path / "program", "openvino", int8="weights")
    assert [*tmp_path.iterdir()] == []


# --- bounds ----------------------------------------------------------------------------------------------------------


def test_a_program_below_its_bound_leaves_nothing_unless_the_user_lowers_it(tmp_path, monkeypatch):
    monkeypatch.setattr(precision, "RECOMMENDED", 1.1)
    monkeypatch.setattr("vitriad.programs.certificate.RECOMMENDED", 1.1)
    options = {"int8": "dynamic", "image_processor": PROCESSOR}
    with pytest.raises(CheckpointError, match=r"logits has a cosine of .* 1\.05 is asked for .*\nNothing was written"):
        vitriad.export("digits-vit", tmp_path / "program", min_cosine=1.05, **options)
    assert [*tmp_path.iterdir()] == []
    found = vitriad.export("digits-vit", tmp_path / "program", min_cosine=0.5, **options)
    assert found.holds and not found.is_recommended and "NOT RECOMMENDED" in str(found)


@pytest.mark.long
def test_a_float_that_is_too_far_off_leaves_nothing(tmp_path, monkeypatch):
    monkeypatch.setitem(FLOATS, "float16", 1e-7)
    with pytest.raises(CheckpointError, match=r"off by .* at most 1e-07 is allowed"):
        vitriad.export(make(), tmp_path / "program", dtype="float16")
    assert [*tmp_path.iterdir()] == []


def test_the_bounds_of_floats_are_those_of_the_comparison_of_backends():
    assert {dtype: parity.TOLERANCES[dtype]["forward"] for dtype in FLOATS} == FLOATS


def test_the_loss_is_of_every_picture():
    exact = [[np.float64([[4, 0], [0, 4]])], [np.float64([[0, 4]])]]
    got = [[exact[0][0]], [np.float64([[4, 3]])]]
    found = held_out.measured(["logits"], got, exact)
    assert found.pictures == 3
    np.testing.assert_allclose(found.top1, 2 / 3)
    np.testing.assert_allclose(found.worst, 12 / 20)
    np.testing.assert_allclose(found.outputs[0].mean, (1 + 1 + 0.6) / 3)
    one, two = np.exp([0, 4]) / np.exp([0, 4]).sum(), np.exp([4, 3]) / np.exp([4, 3]).sum()
    np.testing.assert_allclose(found.kl, (one * np.log(one / two)).sum() / 3)


def test_a_bound_is_that_of_the_first_output_and_lower_for_the_others():
    near, far, none = (held_out.Kept("a", 1, worst) for worst in (0.998, 0.992, np.nan))

    def lacking(*outputs):
        return held_out.HeldOut(1, outputs, None, None).lacking(0.997, 0.99)

    assert lacking(near, far) is None
    for outputs, wrong in (((far, near), far), ((near, none), none), ((none, near), none)):
        assert lacking(*outputs) is wrong


def test_which_layers_are_spared():
    names = make("ViTMAEForPreTraining", num_hidden_layers=3, decoder_num_hidden_layers=2).canonical_tensors()
    every = quantised(names, Spared())
    assert len(every) == (3 + 2) * 6
    assert not [name for name in every if "embed" in name or "norm" in name or "pred" in name]
    some = quantised(names, Spared(ends=True, second=True))
    assert {name.partition(".layer.")[2][:1] for name in some if ".layer." in name} == {"1"}
    assert [name for name in some if name.endswith(".output.dense") and ".attention." not in name] == []
    assert len(some) == 5 + 2 * 5  # two layers have no middle: they are not ends


# --- the commands ----------------------------------------------------------------------------------------------------


def test_the_commands(tmp_path, capsys):
    program, own = str(tmp_path / "program"), tmp_path / "own.png"
    Image.new("L", (16, 16), 200).save(own)
    reduced = ["--int8", "static", "--calibration", str(own), "--images", *map(str, FILES[:4])]
    assert cli.main(["export", "digits-vit", program, "--to", "onnx", "--min-cosine", "0.9", *reduced]) == 0
    said = capsys.readouterr().out
    assert "onnx in int8 static: " in said and "logits of 4 pictures: cosine " in said and "x its speed" in said
    assert cli.main(["verify", "digits-vit", program, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["min_cosine"], found["held_out"]["pictures"], found["held_out"]["speed"]) == (0.9, len(FILES), None)
    assert cli.main(["verify", "digits-vit", program, "--tolerance", "1"]) == 1
    assert "judged by its cosines" in capsys.readouterr().err
    assert cli.main(["classify", "--json", "--model", program, str(FILES[0])]) == 0
    assert json.loads(capsys.readouterr().out)["label"] == FILES[0].name[0]
