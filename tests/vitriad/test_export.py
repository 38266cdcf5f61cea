"""Exported programs: each computes what its model does, in an engine of its own; what is no such program is named."""

import errno
import io
import json
import os
import shutil
from importlib import import_module

import numpy as np
import onnx
import pytest
from backends import INSTALLED
from programs import FIELDS

import vitriad
import vitriad.models
from vit_core.config.relatives import OF_DINOV2_HEADS
from vit_core.errors import BackendError, CheckpointError, ConfigError, InputError, MissingFileError, UnsafeFileError
from vit_core.images.processor import ViTImageProcessor
from vitriad import cli, engines
from vitriad.artefacts import ExportedModel, FeaturesOutput
from vitriad.identity import encoder_digest
from vitriad.option_groups import FORMATS
from vitriad.programs import certificate, exporting

CLASSES = {  # class -> the purposes of its programs
    "ViTForImageClassification": ("logits", "attentions"),
    "ViTModel": ("features",),
    "ViTForMaskedImageModeling": ("reconstruction",),
    "ViTMAEModel": ("features", "attentions"),
    "ViTMAEForPreTraining": ("reconstruction", "features"),
}
REGISTERS = {"num_register_tokens": 3, "layerscale_value": 0.1, "use_swiglu_ffn": True}
MODELS = {"torch": "torch_models", "tf": "tf_models", "flax": "flax_models"}
PREFIXES = {"torch": "", "tf": "TF", "flax": "Flax"}
EVERY_DAY = [  # of each format one cell; those of pt2 and savedmodel are in test_engines.py and test_export_files.py
    ("onnx", "torch", "ViTForImageClassification", "logits", "size"),
    ("openvino", "torch", "ViTModel", "features", "size"),
    ("litert", "tf", "ViTForImageClassification", "logits", "batch"),
    ("stablehlo", "flax", "ViTForMaskedImageModeling", "reconstruction", "size"),
]
WRITERS = [(to, backend) for to, each in exporting.FORMATS.items() for backend in each.converters]
WRITERS.remove(("onnx", "flax"))  # by jax2onnx, in an environment of its own: tests/peers
WRITERS.remove(("aoti", "torch"))  # compiles for a minute: test_engines.py
CELLS = [
    (*writer, cls, purpose, dynamic)
    for writer in WRITERS
    for cls, purposes in CLASSES.items()
    for purpose in purposes
    for dynamic in ("batch", "size")
]
PROCESSOR = ViTImageProcessor(image_mean=[0.4, 0.5, 0.6], image_std=[0.2, 0.3, 0.25], size={"height": 12, "width": 20})


def make(backend, cls, **fields):
    square = {"patch_size": 4, "encoder_stride": 4} if cls == "ViTForMaskedImageModeling" else {}
    return import_module(MODELS[backend]).make_model(PREFIXES[backend] + cls, **{**FIELDS, **square, **fields})


def check_cell(cell, folder, **fields):
    to, backend, cls, purpose, dynamic = cell
    model = make(backend, cls, **fields)
    layers = (0, -1) if purpose == "features" else ()
    found = vitriad.export(model, folder, to, outputs=purpose, dynamic=dynamic, layers=layers)
    assert found.holds
    assert {row.output for row in found.rows} >= {"tokens", "hidden_states_1"} if layers else True
    assert len({row.images for row in found.rows}) == (5 if dynamic == "size" else 3)
    assert json.loads((folder / "certificate.json").read_text())["worst"] == found.worst
    loaded = vitriad.load(folder)
    with pytest.raises(InputError, match=r"height|pixel_values"):
        loaded(np.zeros((1, 3, 2, 2), np.float32))


@pytest.mark.parametrize("cell", EVERY_DAY, ids="-".join)
def test_a_program_computes_what_its_model_does(cell, tmp_path):
    check_cell(cell, tmp_path / "program")


@pytest.mark.every_day("onnx-torch", "savedmodel-tf", "stablehlo-flax")
@pytest.mark.parametrize("writer", WRITERS, ids="-".join)
def test_a_program_of_a_model_with_options_computes_what_that_does(writer, tmp_path):
    cell = (*writer, "ViTForImageClassification", "logits", "size")
    check_cell(cell, tmp_path / "program", **REGISTERS, **OF_DINOV2_HEADS)


@pytest.mark.programs
@pytest.mark.parametrize("fields", [{"use_mean_pooling": True}, REGISTERS], ids=["mean", "registers"])
@pytest.mark.parametrize("writer", WRITERS, ids="-".join)
def test_features_of_a_model_with_options_are_those_of_the_model(writer, fields, tmp_path):
    check_cell((*writer, "ViTModel", "features", "size"), tmp_path / "program", **fields)


@pytest.mark.programs
@pytest.mark.parametrize("cell", CELLS, ids="-".join)
def test_every_program_computes_what_its_model_does(cell, tmp_path):
    check_cell(cell, tmp_path / "program")


@pytest.mark.programs
@pytest.mark.parametrize("dynamic", ["batch", "size"])
@pytest.mark.parametrize("layout", ["nhwc", "nchw"])
@pytest.mark.parametrize(("to", "backend"), WRITERS)
def test_every_program_prepares_images_as_the_processor_does(to, backend, layout, dynamic, tmp_path):
    model = make(backend, "ViTForImageClassification")
    options = {"image_processor": PROCESSOR, "preprocessing": layout, "dynamic": dynamic}
    assert vitriad.export(model, tmp_path / "program", to, **options).holds


# --- a program at hand -----------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    folder = tmp_path_factory.mktemp("exported") / "program"
    model = make("torch", "ViTForImageClassification")
    vitriad.export(model, folder, image_processor=PROCESSOR, preprocessing="nhwc")
    folder.with_name("encoder").write_text(encoder_digest(model))
    return folder


@pytest.fixture
def program(exported, tmp_path):
    return shutil.copytree(exported, tmp_path / "program")


def change(folder, **fields):
    path = folder / "vitriad.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **fields}))


def test_pixels_are_the_processors_bit_for_bit(exported):
    model, loaded = make("torch", "ViTForImageClassification"), vitriad.load(exported)
    images = np.random.default_rng(0).integers(0, 256, (2, 12, 20, 3), np.uint8)
    pixels = PROCESSOR.preprocess(list(images), do_resize=False, return_tensors="np")["pixel_values"]
    expected = model(pixel_values=pixels).logits.detach().numpy()
    found = loaded(images)
    np.testing.assert_allclose(found.logits, expected, rtol=0, atol=1e-5 * np.abs(expected).max())
    np.testing.assert_array_equal(loaded(images.transpose(0, 3, 1, 2)).logits, found[0])
    np.testing.assert_array_equal(loaded(images=images)["logits"], found[0])
    described = json.loads((exported / "vitriad.json").read_text())
    assert described["left_to_do"].startswith("decode and resize to 12x20 pixels")
    assert described["takes"] == [{"name": "images", "dtype": "uint8", "shape": ["batch", 12, 20, 3]}]


def test_features_have_names(tmp_path):
    model = make("torch", "ViTModel")
    vitriad.export(model, tmp_path / "program", "openvino", layers=(1,))
    loaded = vitriad.load(tmp_path / "program" / "model.xml", threads=1)
    assert isinstance(loaded, ExportedModel) and "features of a ViTModel" in repr(loaded)
    images = np.random.default_rng(1).standard_normal((2, 3, 12, 20), np.float32)
    found, expected = loaded(images), model(pixel_values=images, output_hidden_states=True)
    assert isinstance(found, FeaturesOutput)
    assert [*found] == ["class_token", "patch_mean", "tokens", "pooler_output", "hidden_states"]
    tokens = expected.last_hidden_state.detach().numpy()
    for name, value in (("class_token", tokens[:, 0]), ("patch_mean", tokens[:, 1:].mean(axis=1))):
        np.testing.assert_allclose(found[name], value, rtol=0, atol=1e-5)
    np.testing.assert_allclose(found.hidden_states[0], expected.hidden_states[1].detach(), rtol=0, atol=1e-5)


@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        ({}, "expected an array or tensor"),
        ({"pixel_values": np.zeros((1, 12, 20, 3), np.float32)}, "images: expected uint8, got float32"),
        ({"pixel_values": np.zeros((1, 12, 21, 3), np.uint8)}, "12x21"),
        ({"pixel_values": np.zeros((12, 20, 3), np.uint8)}, "expected .batch, 3, height, width"),
        ({"pixel_values": np.zeros((1, 12, 20, 3), np.uint8), "labels": [1]}, "no input called labels"),
    ],
)
def test_calls_that_do_not_fit_are_refused(exported, inputs, message):
    with pytest.raises(InputError, match=message):
        vitriad.load(exported)(**inputs)


# --- what is no program ----------------------------------------------------------------------------------------------


def outside(folder):
    change(folder, files={**json.loads((folder / "vitriad.json").read_text())["files"], "../secret": {"size": 1}})


def linked(folder):
    (folder / "model.onnx").rename(folder.parent / "elsewhere.onnx")
    (folder / "model.onnx").symlink_to(folder.parent / "elsewhere.onnx")


def cut(folder):
    os.truncate(folder / "model.onnx", 1000)


def spoilt(folder):
    """Cut, and recorded like that."""
    cut(folder)
    record(folder)


def changed_graph(folder, change):
    """The program with something else in its graph, recorded like that."""
    found = onnx.load(folder / "model.onnx")
    change(found)
    (folder / "model.onnx").write_bytes(found.SerializeToString())
    record(folder)


def record(folder, *names):
    from vit_core.files.manifest import record_of

    change(folder, files={name: record_of(folder / name) for name in ("model.onnx", *names)})


def external(folder, place):
    """Weights in a file of their own."""

    def move(found):
        tensor = found.graph.initializer[0]
        (folder / place).write_bytes(tensor.raw_data)
        tensor.ClearField("raw_data")
        tensor.data_location = onnx.TensorProto.EXTERNAL
        tensor.external_data.add(key="location", value=place)

    changed_graph(folder, move)


def reaching_out(folder):
    external(folder, "../secret")


def not_recorded(folder):
    external(folder, "model.onnx.data")


def weights_missing(folder):
    external(folder, "model.onnx.data")
    record(folder, "model.onnx.data")
    (folder / "model.onnx.data").unlink()


def newer_opset(folder):
    changed_graph(folder, lambda found: setattr(found.opset_import[0], "version", 999))


def swapped(folder):
    """Another program of ONNX under the name of this one."""
    found = onnx.load(folder / "model.onnx")
    found.graph.initializer[0].raw_data = bytes(len(found.graph.initializer[0].raw_data))
    (folder / "model.onnx").write_bytes(found.SerializeToString())


SPOILT = {
    "newer": (lambda folder: change(folder, vitriad_program=2), CheckpointError, "version 1, got 2"),
    "no format": (lambda folder: change(folder, format="exe"), CheckpointError, "no description of a program"),
    "no size": (lambda folder: change(folder, image_size=[1]), CheckpointError, "no description of a program"),
    "no config": (lambda folder: change(folder, config={"hidden_size": "x"}), ConfigError, "hidden_size"),
    "no list": (lambda folder: change(folder, files=[]), CheckpointError, "model.onnx"),
    "no JSON": (lambda folder: (folder / "vitriad.json").write_text("{"), CheckpointError, "not valid JSON"),
    "missing": (lambda folder: (folder / "model.onnx").unlink(), MissingFileError, "no such file"),
    "outside": (outside, UnsafeFileError, "outside its folder"),
    "linked": (linked, UnsafeFileError, "symbolic link out of its folder"),
    "cut": (cut, CheckpointError, "not as vitriad.json records it"),
    "spoilt": (spoilt, CheckpointError, "onnxruntime .* cannot open this program"),
    "reaching out": (reaching_out, UnsafeFileError, "has weights in '../secret', which vitriad.json does not name"),
    "not recorded": (not_recorded, UnsafeFileError, "has weights in 'model.onnx.data', which vitriad.json does not"),
    "weights missing": (weights_missing, MissingFileError, r"model\.onnx\.data: no such file"),
    "swapped": (swapped, CheckpointError, "not as vitriad.json records it"),
    "of another": (lambda folder: (folder / "vitriad.json").unlink(), MissingFileError, "without its vitriad.json"),
    "newer opset": (newer_opset, CheckpointError, "onnxruntime .* cannot open this program: .* opset"),
}


@pytest.mark.parametrize("name", SPOILT)
def test_what_is_no_program_is_named(program, name):
    spoil, error, message = SPOILT[name]
    spoil(program)
    with pytest.raises(error, match=message):
        vitriad.load(program)


def test_a_pooler_without_weights_is_left_out(tmp_path):
    make("torch", "ViTForImageClassification").save_pretrained(tmp_path / "model")
    model, processor = exporting.loaded(tmp_path / "model", "onnx", cls="ViTModel")
    assert not model.options["add_pooling_layer"] and processor is None
    with pytest.raises(InputError, match=r"lacks vit\.embeddings\.mask_token, which would be random"):
        exporting.loaded(tmp_path / "model", "onnx", cls="ViTForMaskedImageModeling")


def test_the_source_is_named_by_a_digest_and_no_path(exported):
    described = json.loads((exported / "vitriad.json").read_text())
    assert [*described["source"]] == ["encoder_sha256", "weights_sha256"]
    assert described["source"]["encoder_sha256"] == exported.with_name("encoder").read_text()
    assert str(exported.parent) not in (exported / "vitriad.json").read_text()


def test_an_engine_that_is_missing_is_named(exported, monkeypatch):
    monkeypatch.setattr(engines, "find_spec", lambda name: None)
    with pytest.raises(BackendError, match=r"onnxruntime, which is not installed.\n.*\[onnx\]"):
        vitriad.load(exported)


def test_a_program_takes_no_other_backend(exported):
    assert isinstance(vitriad.load(exported, "onnx"), ExportedModel)
    for other in ("torch", "openvino"):
        with pytest.raises(InputError, match=f"an exported program of onnx, got '{other}'"):
            vitriad.load(exported, other)
    with pytest.raises(InputError, match="takes no num_labels"):
        vitriad.load(exported, num_labels=3)


# --- exports that are refused ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("cls", "options", "message"),
    [
        ("ViTModel", {"to": "exe"}, "to: expected one of onnx"),
        ("ViTModel", {"to": "savedmodel"}, "savedmodel is written from tf, got a model of torch"),
        ("ViTModel", {"outputs": "logits"}, "expected a model of the class ViTForImageClassification, got a ViTModel"),
        ("ViTModel", {"outputs": "poetry"}, "outputs: expected one of logits"),
        ("ViTModel", {"layers": [9]}, "layers: expected 0 to 1"),
        ("ViTForImageClassification", {"layers": [0]}, "layers: only for outputs='features'"),
        ("ViTModel", {"dynamic": "all"}, "dynamic: expected batch or size"),
        ("ViTModel", {"dynamic": "size", "image_size": 24}, "give one of them"),
        ("ViTModel", {"image_size": 2}, "at least one patch"),
        ("ViTModel", {"preprocessing": "nhwc"}, "needs an image_processor"),
        ("ViTModel", {"preprocessing": "hwc", "image_processor": PROCESSOR}, "expected one of nhwc, nchw"),
        ("ViTModel", {"dtype": "float64"}, "expected a model in float32, got float64"),
    ],
)
def test_an_export_that_makes_no_sense_is_refused(cls, options, message, tmp_path):
    dtype = options.pop("dtype", "float32")
    model = make("torch", cls).to(getattr(import_module("torch"), dtype))
    with pytest.raises(InputError, match=message):
        vitriad.export(model, tmp_path / "program", **options)
    assert not (tmp_path / "program").exists()


def test_a_converter_of_one_size_takes_no_other(tmp_path):
    with pytest.raises(
        BackendError, match=r"jax2onnx 0\.17\.1 .* one size only.*\n.*from torch or tf, or fix the size"
    ):
        vitriad.export(make("flax", "ViTModel"), tmp_path / "program", dynamic="size")
    with pytest.raises(BackendError, match=r"package is missing: No module named 'jax2onnx'.\n.*jax2onnx"):
        vitriad.export(make("flax", "ViTModel"), tmp_path / "program")
    assert [*tmp_path.iterdir()] == []


def test_a_model_in_training_mode_is_refused(tmp_path):
    with pytest.raises(InputError, match=r"in training mode.*\n.*model\.eval\(\)"):
        vitriad.export(make("torch", "ViTModel").train(), tmp_path / "program")


def test_a_full_disk_is_said_and_nothing_is_left(tmp_path, monkeypatch):
    def full(*args):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("vit_torch.exporting.export_program", full)
    with pytest.raises(CheckpointError, match="saving failed: No space left on device"):
        vitriad.export(make("torch", "ViTModel"), tmp_path / "program")
    assert [*tmp_path.iterdir()] == []


def test_external_weights_that_are_recorded_are_read(program):
    images = np.zeros((1, 12, 20, 3), np.uint8)
    expected = vitriad.load(program)(images).logits
    external(program, "model.onnx.data")
    record(program, "model.onnx.data")
    np.testing.assert_array_equal(vitriad.load(program)(images).logits, expected)


@pytest.mark.parametrize("stage", ["vit_torch.exporting.export_program", "vitriad.programs.exporting.certify"])
def test_ctrl_c_leaves_what_was_there(stage, program, tmp_path, monkeypatch, capsys):
    def stopped(*args):
        raise KeyboardInterrupt

    before = {path.name: path.read_bytes() for path in program.iterdir()}
    monkeypatch.setattr(stage, stopped)
    assert cli.main(["export", "digits-vit", str(program), "--to", "openvino", "--force"]) == 130
    assert cli.main(["export", "digits-vit", str(tmp_path / "new"), "--to", "openvino"]) == 130
    assert {path.name: path.read_bytes() for path in program.iterdir()} == before
    assert [path.name for path in tmp_path.iterdir()] == ["program"]
    assert capsys.readouterr().err.splitlines() == ["vitriad: stopped"] * 2


@pytest.mark.every_day("True")
@pytest.mark.parametrize("is_terminal", [True, False])
def test_stages_are_shown_at_a_terminal(is_terminal, tmp_path, monkeypatch):
    class Screen(io.StringIO):
        def isatty(self):
            return is_terminal

    monkeypatch.setattr("sys.stderr", screen := Screen())
    vitriad.export("digits-vit", tmp_path / "program", "openvino")
    shown = [stage for stage in ("convert", "certify", "sync") if f"openvino: {stage}" in screen.getvalue()]
    assert shown == (["convert", "certify", "sync"] if is_terminal else []) and is_terminal == bool(screen.getvalue())


def test_threads_that_cannot_be_set_are_refused(exported, tmp_path):
    engines.open_program(exported, "onnx", ["images"], ["logits"], 1)
    with pytest.raises(InputError, match="threads: XLA"):
        engines.open_program(tmp_path, "stablehlo", [], [], 1)
    for nothing in (None, ""):
        assert engines.artefact_folder(nothing) is None


def test_a_program_that_computes_something_else_is_not_written(tmp_path, monkeypatch):
    (tmp_path / "program").mkdir()
    (tmp_path / "program" / "model.onnx").write_text("old")
    monkeypatch.setitem(certificate.FLOATS, "float32", 1e-12)
    with pytest.raises(CheckpointError, match=r"class_token|patch_mean|tokens|pooler_output"):
        vitriad.export(make("torch", "ViTModel"), tmp_path / "program", force=True)
    assert [path.name for path in (tmp_path / "program").iterdir()] == ["model.onnx"]
    assert (tmp_path / "program" / "model.onnx").read_text() == "old"


def test_what_a_converter_refuses_is_said_in_our_words(tmp_path):
    model = make("torch", "ViTMAEForPreTraining", mask_ratio=0.3)
    with pytest.raises(InputError, match=r"mask_ratio: 0\.3 .* not known while tracing"):
        vitriad.export(model, tmp_path / "program", "pt2", dynamic="size")


def test_what_is_there_is_kept_unless_forced(program):
    with pytest.raises(CheckpointError, match="something is there already"):
        vitriad.export(make("torch", "ViTModel"), program)
    (program / "notes.txt").write_text("mine")
    vitriad.export(make("torch", "ViTModel"), program, "pt2", force=True)
    names = {path.name for path in program.iterdir()}
    assert names == {"model.pt2", "vitriad.json", "certificate.json", "notes.txt"}


# --- the commands ----------------------------------------------------------------------------------------------------


def test_the_commands(tmp_path, capsys):
    program, pictures = str(tmp_path / "program"), sorted(map(str, vitriad.models.digit_files()))[:2]
    assert (
        cli.main(["export", "digits-vit", program, "--to", "onnx", "--with-preprocessing", "--images", *pictures]) == 0
    )
    assert "equal to the float64 oracle" in capsys.readouterr().out
    assert cli.main(["verify", "digits-vit", program, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["holds"]
    assert cli.main(["classify", "--json", "--model", program, *pictures]) == 0
    exported = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert cli.main(["classify", "--json", *pictures]) == 0
    for one, other in zip(exported, map(json.loads, capsys.readouterr().out.splitlines()), strict=True):
        assert one["label"] == other["label"]
        np.testing.assert_allclose(one["score"], other["score"], rtol=0, atol=1e-5)


def test_the_command_knows_every_format():
    assert FORMATS == tuple(exporting.FORMATS) == tuple(engines.ENGINES)
    assert {*INSTALLED} == {"torch", "tf", "flax"}
