"""What is named as weights and is something else: each is called by its name, with what to do."""

import gzip
import io
import tarfile
import zipfile

import numpy as np
import pytest
from checkpoints import make_config, make_tensors, write
from refusing import refusal
from weight_files import packed, tensor, torch_zip

import conversion
from vit_core.config import ViTConfig
from vit_core.errors import CheckpointError, ConfigError, MissingFileError
from vit_core.files.containers import open_any


def tar(*names):
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w:", format=tarfile.PAX_FORMAT) as archive:
        for name in names:
            archive.addfile(tarfile.TarInfo(name))
    return file.getvalue()


def archive(*names):
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as written:
        for name in names:
            written.writestr(name, b"")
    return file.getvalue()


POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n"
ONNX = b"\x08\x08\x12\x07pytorch\x1a\x052.0.0:\xff\x01"
KINDS = {
    "tar": (tar("vit/model.safetensors"), "a tar archive.\nUnpack it"),
    "tar of the first torch": (
        tar("sys_info", "pickle", "tensors", "storages"),
        "a tar archive of PyTorch before 0.1.10",
    ),
    "gz": (gzip.compress(b"weights"), "a gzip archive.\nUnpack it"),
    "ONNX": (ONNX, "an ONNX model.\nAn exported program"),
    "TFLite": (b"\x1c\0\0\0TFL3" + bytes(90), "a TFLite (LiteRT) model.\nAn exported program"),
    "GGUF": (b"GGUF\3\0\0\0" + bytes(90), "a GGUF file.\nOf llama.cpp"),
    "HTML": (b"\n<!DOCTYPE html><html>" + 90 * b" ", "an HTML or XML page.\nA download that ended at a login"),
    "an error of a store": (b'<?xml version="1.0"?><Error>', "an HTML or XML page"),
    "LFS pointer": (POINTER, "a Git LFS pointer, not weights.\nFetch the file itself: git lfs pull"),
    "JSON": (b'{"weight_map": {"a": "b"}}', "a JSON text"),
    "one array": (b"\x93NUMPY\1\0" + bytes(90), "one array of numpy.save"),
    "something else": (b"hello world, no weights", "of no known kind: it starts with b'hello world, no '"),
}
OF_ANY_READER = {
    "TorchScript": (archive("m/data.pkl", "m/code/__torch__/m.py", "m/constants.pkl"), "a TorchScript archive"),
    "a list in msgpack": (
        b"\x93\1\2\3" + bytes(90),
        "expected nested maps of arrays, as Flax saves parameters, got list",
    ),
    "a long list in msgpack": (
        b"\xdc\1\0" + bytes(90),
        "expected nested maps of arrays, as Flax saves parameters, got list",
    ),
}
ELSEWHERE = {
    "zip": (archive("a.npy"), "a zip archive, as torch.save and numpy.savez write, not a safetensors file"),
    "HDF5": (b"\x89HDF\r\n\x1a\n" + bytes(90), "an HDF5 file, not a safetensors file"),
    "a pickle": (b"\x80\2}." + bytes(90), "a pickle, as torch.save wrote before 1.6, not a safetensors file"),
}


def refused(read, source, match, error=CheckpointError):
    text = refusal(lambda: read(source), error)
    assert match in text and "header of" not in text, text


@pytest.mark.parametrize("case", KINDS | OF_ANY_READER)
def test_a_file_is_called_what_it_is(case, tmp_path):
    content, match = (KINDS | OF_ANY_READER)[case]
    for name in ("weights.bin", "x.safetensors", "x.h5", "x.pth.tar"):
        (tmp_path / name).write_bytes(content)
        refused(open_any, tmp_path / name, f"{tmp_path / name}: ")
        refused(conversion.load, tmp_path / name, match)


@pytest.mark.parametrize("case", KINDS | ELSEWHERE)
def test_in_a_folder_too(case, tmp_path):
    content, match = (KINDS | ELSEWHERE)[case]
    (tmp_path / "model.safetensors").write_bytes(content)
    ViTConfig().save_pretrained(tmp_path)
    refused(conversion.load, tmp_path, match)


def test_a_configuration_that_was_not_fetched_is_called_so(tmp_path):
    for content, match in ((POINTER, "a Git LFS pointer"), (b"<!DOCTYPE html>", "an HTML or XML page")):
        (tmp_path / "config.json").write_bytes(content)
        refused(ViTConfig.from_pretrained, tmp_path, f"config.json: not valid JSON, but {match}", ConfigError)


def test_a_sound_file_is_none_of_them(tmp_path):
    """A header may be of any length, that of an ONNX model's first bytes among them."""
    config = make_config("ViTModel")
    write(tmp_path / "m", config, make_tensors("ViTModel", config))
    file = (tmp_path / "m" / "model.safetensors").read_bytes()
    length = int.from_bytes(file[:8], "little")
    header = file[8 : 8 + length].ljust(0x120808)
    (tmp_path / "m" / "model.safetensors").write_bytes(len(header).to_bytes(8, "little") + header + file[8 + length :])
    assert len(conversion.load(tmp_path / "m")[1]) > 30


def test_backups_of_an_editor_are_no_tensorstore(tmp_path):
    for name in ("notes.txt~", "report~1.txt", "#x#", "a~b"):
        (tmp_path / name).touch()
    refused(conversion.load, tmp_path, "no weights here", MissingFileError)
    for name in ("params~cls", "params~head~kernel", "params~Transformer~encoder_norm~scale"):
        (tmp_path / name).mkdir()
    refused(conversion.load, tmp_path, "a tensorstore of big_vision")


def test_a_cut_msgpack_says_what_is_missing(tmp_path):
    whole = (
        b"\x81\xa6params\x82\xa1b"
        + packed()
        + b"\xa6kernel"
        + packed(shape=(3, 4), data=np.arange(12.0, dtype="f4").tobytes())
    )
    (tmp_path / "whole").write_bytes(whole)
    assert {*open_any(tmp_path / "whole").tensors} == {"params.b", "params.kernel"}
    for cut, match in (
        (len(whole) - 9, "the file ends in 'params.kernel': 48 bytes expected, 39 there. It was cut"),
        (len(whole) - 50, "the file ends in 'params.kernel': "),
        (4, "the file ends before the first tensor: 6 bytes expected, 2 there"),
    ):
        (tmp_path / "cut").write_bytes(whole[:cut])
        refused(open_any, tmp_path / "cut", match)


def test_a_tensor_that_repeats_itself_is_named(tmp_path):
    path = torch_zip(tmp_path / "a.pth", tensor(shape=(9, 2), strides=(0, 1)), {"0": bytes(16)})
    refused(open_any, path, f"{path}: 'a': a tensor (9, 2) in a storage of 4 numbers by a stride of 0 (expand)")
