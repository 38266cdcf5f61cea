"""Bad inputs, and legal ones that look odd: how each is made, what is done with it, and what the refusal says."""

import itertools
import json
import os
import pickle
import socket
import struct
import tempfile
import time
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import h5py  # noqa: F401  # which asks the system for its processor when imported
import ml_dtypes
import numpy as np
import safetensors.numpy
from bad_calls import CALLS, CLASSIFIER, DECODER, IMAGES, MAE, MIM, SIZES, VALUES, VIT, small_config
from PIL import Image
from reliability.watched import CANARY, most_seconds

import conversion
import vitriad
from vit_core import ConfigError, ViTConfig, ViTImageProcessor, open_image
from vit_core.config import AutoConfig
from vit_core.parameters import draw
from vitriad.auto import model_class

SINGLE, INDEX, MANIFEST = "model.safetensors", "model.safetensors.index.json", "manifest.json"
QUERY = "vit.encoder.layer.0.attention.attention.query.weight"  # square: (8, 8)
UP = "vit.encoder.layer.0.intermediate.dense.weight"  # (16, 8)


class Case(NamedTuple):
    """One input. `error` is None for a legal one; `what` and `why` are expressions that the refusal's text matches.

    After `patience` seconds it is taken for hanging.
    """

    group: str
    prepare: Callable[[Path], Any]
    act: Callable[[Path], Any]
    error: str | None
    what: str = ""
    why: str = ""
    patience: float = 20


CASES: dict[str, Case] = {}


def nothing(folder: Path) -> None:
    """There is nothing to write."""


def add(group: str, name: str, prepare: Callable, act: Callable, error: str | None, what: str = "", why: str = ""):
    """Puts one case into the table."""
    assert f"{group}: {name}" not in CASES
    CASES[f"{group}: {name}"] = Case(group, prepare, act, error, what, why)


# --- configurations --------------------------------------------------------------------------------------------------


def load_config(folder: Path) -> Any:
    """Reads config.json."""
    return AutoConfig.from_pretrained(folder)


def config_file(content: str | bytes) -> Callable[[Path], None]:
    """Writes config.json as it is given."""
    data = content.encode() if isinstance(content, str) else content
    return lambda folder: (folder / "config.json").write_bytes(data)


def changed(mae: bool = False, **fields: Any) -> Callable[[Path], None]:
    """Writes the configuration of a small model with some fields changed."""
    base = {"model_type": "vit_mae", **SIZES, **DECODER} if mae else {"model_type": "vit", **SIZES}
    return config_file(json.dumps({**base, **fields}))


WIDTH, COUNT = "expected an int from 1 to", "expected an int from 0 to"
FIELDS: list[tuple[dict[str, Any], str]] = [
    ({"hidden_size": "32"}, WIDTH),
    ({"hidden_size": 8.0}, WIDTH),
    ({"hidden_size": True}, WIDTH),
    ({"hidden_size": None}, WIDTH),
    ({"hidden_size": 0}, WIDTH),
    ({"hidden_size": -8}, WIDTH),
    ({"hidden_size": [8]}, WIDTH),
    ({"hidden_size": 2**31}, "65536, got 2147483648"),
    ({"hidden_size": 9}, "a multiple of num_attention_heads 2, got 9"),
    ({"num_hidden_layers": -1}, COUNT),
    ({"num_hidden_layers": 10**9}, "1024, got 1000000000"),
    ({"num_attention_heads": 0}, WIDTH),
    ({"num_attention_heads": 3}, "a multiple of num_attention_heads 3, got 8"),
    ({"num_attention_heads": 10**6}, "1024, got 1000000"),
    ({"intermediate_size": 0}, WIDTH),
    ({"intermediate_size": 1e400}, WIDTH),
    ({"hidden_act": "os.system"}, "gelu.*got 'os.system'"),
    ({"hidden_act": ["gelu"]}, "gelu"),
    ({"hidden_act": None}, "gelu"),
    ({"hidden_dropout_prob": 1.5}, r"a number in \[0, 1\], got 1.5"),
    ({"hidden_dropout_prob": float("nan")}, r"a number in \[0, 1\], got nan"),
    ({"attention_probs_dropout_prob": -0.1}, r"a number in \[0, 1\], got -0.1"),
    ({"layer_norm_eps": -1}, "a number above 0 in float32, got -1"),
    ({"layer_norm_eps": 0}, "a number above 0 in float32, got 0"),
    ({"layer_norm_eps": float("nan")}, "a number above 0 in float32, got nan"),
    ({"layer_norm_eps": float("inf")}, "a number above 0 in float32, got inf"),
    ({"layer_norm_eps": 1e-300}, "a number above 0 in float32, got 1e-300"),
    ({"layer_norm_eps": "1e-12"}, "a number above 0 in float32, got '1e-12'"),
    ({"initializer_range": -0.02}, "at least 0, got -0.02"),
    ({"image_size": 0}, "from 1 to 16384, got 0"),
    ({"image_size": 1e3}, "from 1 to 16384, got 1000.0"),
    ({"image_size": [8, 8, 8]}, "pair of ints"),
    ({"image_size": [8, -8]}, "pair of ints"),
    ({"image_size": 10**6}, "16384, got 1000000"),
    ({"patch_size": -8}, "from 1 to"),
    ({"patch_size": 0}, "from 1 to"),
    ({"patch_size": 16}, "at most image_size 8, got 16"),
    ({"num_channels": 0}, WIDTH),
    ({"num_channels": -3}, WIDTH),
    ({"qkv_bias": "false"}, "True or False, got 'false'"),
    ({"qkv_bias": 1}, "True or False, got 1"),
    ({"encoder_stride": 0}, WIDTH),
    ({"pooler_act": "exec"}, "tanh.*got 'exec'"),
    ({"problem_type": "guess"}, "regression.*got 'guess'"),
    ({"dtype": "int8"}, "float16, bfloat16.*int8"),
    ({"pruned_heads": {"0": [5]}}, "heads below 2"),
    ({"pruned_heads": {"0": [0, 1]}}, "one head left"),
    ({"pruned_heads": {"7": [0]}}, "layers below 2"),
    ({"pruned_heads": [1, 2]}, "pruned_heads.*expected"),
    ({"id2label": {"0": "a", "1": "b"}, "num_labels": 5}, "num_labels"),
    ({"id2label": {"a": "b"}}, "expected.*got"),
    ({"id2label": {"0": "a", "2": "c"}}, "0 to 1 for 2 classes, but 1 is missing and 2"),
    ({"num_labels": -1}, "expected an int"),
    ({"num_labels": 10**8}, "expected an int"),
    ({"architectures": "ViTModel"}, "expected.*got 'ViTModel'"),
    ({"output_attentions": "yes"}, "True or False"),
    ({"layerdrop": 0.5}, "expected 0, or none at all, got 0.5: no model here drops"),
    ({"drop_path_rate": 1.0}, r"a number in \[0, 1\), got 1.0"),
    ({"drop_path": 0.5}, "write drop_path_rate="),
    ({"hidden_size": 65536, "num_hidden_layers": 1024, "intermediate_size": 65536}, "parameters, the limit is"),
]
for number, (fields, why) in enumerate(FIELDS):
    (field, *_) = fields
    what = "the sizes together" if "parameters, the" in why else field
    add("config", f"{number} {field}", changed(**fields), load_config, "ConfigError", what, why)

MAE_FIELDS: list[tuple[dict[str, Any], str]] = [
    ({"mask_ratio": 1.5}, "expected a number"),
    ({"mask_ratio": -0.5}, "expected a number"),
    ({"mask_ratio": 1.0}, "expected a number"),
    ({"mask_ratio": "most"}, "expected a number"),
    ({"mask_ratio": float("nan")}, "expected a number"),
    ({"decoder_num_attention_heads": 3}, "a multiple of decoder_num_attention_heads 3"),
    ({"decoder_hidden_size": 0}, WIDTH),
    ({"norm_pix_loss": "no"}, "True or False"),
    ({"norm_pix_loss": True, "patch_size": 1, "num_channels": 1}, "at least 2 numbers"),
]
for number, (fields, why) in enumerate(MAE_FIELDS):
    (field, *_) = fields
    add("config", f"mae {number} {field}", changed(True, **fields), load_config, "ConfigError", field, why)

GOOD = json.dumps({"model_type": "vit", **SIZES})
TEXTS: dict[str, tuple[str | bytes, str]] = {
    "empty": ("", "not valid JSON"),
    "truncated": (GOOD[:-20], "not valid JSON"),
    "an array": ("[1, 2]", "expected a JSON object, got list"),
    "null": ("null", "expected a JSON object, got NoneType"),
    "binary": (bytes(range(256)), "expected UTF-8"),
    "UTF-16": (GOOD.encode("utf-16"), "expected UTF-8"),
    "a duplicate key": (GOOD[:-1] + ', "hidden_size": 16}', "'hidden_size' stands there twice"),
    "a duplicate key far inside": (GOOD[:-1] + ', "x": {"a": {"b": 1, "b": 2}}}', "'b' stands there twice"),
    "deep": (GOOD[:-1] + ', "x": ' + 1000 * "[" + 1000 * "]" + "}", "nested deeper than the limit of 32"),
    "very deep": (200_000 * "[", "nested deeper than the limit of 32|not valid JSON"),
    "one level too deep": (GOOD[:-1] + ', "x": ' + 32 * "[" + 32 * "]" + "}", "nested deeper than the limit of 32"),
    "huge digits": (GOOD[:-1] + ', "x": ' + 100_000 * "9" + "}", "not valid JSON"),
    "too large": (
        GOOD[:-1] + ', "x": "' + 16_000_000 * "x" + '"}',
        "16000[0-9]* bytes, above the limit of 16000000; to raise it: .*config_bytes",
    ),
    "no model type": (json.dumps(SIZES), "model_type"),
    "another model type": ('{"model_type": "swin"}', "swin"),
    "a model type of another type": ('{"model_type": ["vit"]}', "model_type"),
    "a pickle": (pickle.dumps({"model_type": "vit"}, 4), "expected UTF-8|not valid JSON"),
    "HTML": ("<!DOCTYPE html><html></html>", "not valid JSON"),
    "single quotes": (GOOD.replace('"', "'"), "not valid JSON"),
    "a trailing comma": (GOOD[:-1] + ",}", "not valid JSON"),
    "code behind it": (GOOD + "\nimport os", "not valid JSON"),
}
for name, (text, why) in TEXTS.items():
    what = "model_type|config.json" if "model type" in name else "config.json"
    add("config", f"text: {name}", config_file(text), load_config, "ConfigError", what, why)

PLACES: dict[str, tuple[Callable[[Path], Any], str, str]] = {
    "a pipe": (lambda folder: os.mkfifo(folder / "config.json"), "ConfigError", "expected a regular file"),
    "a folder": (lambda folder: (folder / "config.json").mkdir(), "ConfigError", "expected a regular file|directory"),
    "a device": (
        lambda folder: (folder / "config.json").symlink_to("/dev/zero"),
        "UnsafeFileError",
        "link out of its folder",
    ),
    "missing": (nothing, "MissingFileError", "no such file"),
    "a link to nothing": (
        lambda folder: (folder / "config.json").symlink_to("nowhere"),
        "MissingFileError",
        "no such file",
    ),
    "a link to itself": (
        lambda folder: (folder / "config.json").symlink_to("config.json"),
        "ConfigError",
        "cannot be opened",
    ),
}
for name, (prepare, error, why) in PLACES.items():
    add("config", f"place: {name}", prepare, load_config, error, "config.json", why)


# --- weights ---------------------------------------------------------------------------------------------------------


def load(folder: Path) -> Any:
    """What every backend's from_pretrained does first; touches every tensor."""
    loaded = conversion.load_pretrained(folder, CLASSIFIER, {})
    return sum(float(np.abs(array).sum()) for array in loaded.tensors.values()), loaded.report.notes


def small(dtype: Any = np.float32) -> tuple[ViTConfig, dict[str, Any]]:
    """A small classifier's configuration and weights."""
    config = ViTConfig(**SIZES, num_labels=3)
    return config, {name: array.astype(dtype) for name, array in draw(config, CLASSIFIER, seed=0).items()}


def saved(folder: Path, manifest: bool = False, **options: Any) -> None:
    """Writes the classifier; without a manifest, as other programs do."""
    config, tensors = small()
    conversion.save_pretrained(folder, config, tensors, class_name=CLASSIFIER, **options)
    if not manifest:
        (folder / MANIFEST).unlink()


def tensors(change: Callable[[dict[str, Any]], Any], metadata: dict[str, str] | None = None) -> Callable:
    """Writes the classifier with its tensors changed in place."""

    def prepare(folder: Path) -> None:
        config, found = small()
        change(found)
        config.architectures = [CLASSIFIER]
        config.save_pretrained(folder)
        safetensors.numpy.save_file(found, folder / SINGLE, metadata)

    return prepare


def content(change: Callable[[bytes], bytes], manifest: bool = False) -> Callable[[Path], None]:
    """Writes the classifier and changes the bytes of its weight file."""

    def prepare(folder: Path) -> None:
        saved(folder, manifest)
        (folder / SINGLE).write_bytes(change((folder / SINGLE).read_bytes()))

    return prepare


def header(change: Callable[[dict[str, Any]], Any], data: Callable[[bytes], bytes] = bytes) -> Callable:
    """Writes the classifier and changes the header, and perhaps the data, of its weight file."""

    def rewritten(file: bytes) -> bytes:
        length = int.from_bytes(file[:8], "little")
        entries = json.loads(file[8 : 8 + length])
        changed = change(entries)
        text = changed if isinstance(changed, bytes) else json.dumps(entries).encode()
        return struct.pack("<Q", len(text)) + text + data(file[8 + length :])

    return content(rewritten)


def flipped(file: bytes) -> bytes:
    """One bit of the last number changed."""
    return file[:-1] + bytes([file[-1] ^ 1])


class Gadget:
    """What a hostile pickle holds."""

    def __reduce__(self):
        return os.system, (f"touch {CANARY}",)


def entry(**fields: Any) -> Callable[[dict[str, Any]], None]:
    """Changes fields of one tensor in a header."""
    return lambda entries: entries[QUERY].update(fields)


def many(count: int) -> Callable[[dict[str, Any]], None]:
    """Adds so many empty tensors to a header."""

    def change(entries: dict[str, Any]) -> None:
        entries |= dict.fromkeys((f"extra.{i}" for i in range(count)), nothing_at(entries))

    return change


def models(count: int, parts: int) -> Callable[[dict[str, Any]], None]:
    """Adds so many of the matrices that tell an encoder, behind so many prefixes."""
    matrices = ("patch_embed.proj", *(f"blocks.0.{part}" for part in ("attn.qkv", "attn.proj", "mlp.fc1", "mlp.fc2")))

    def change(entries: dict[str, Any]) -> None:
        names = (f"m{i}.{matrix}.weight" for i in range(count) for matrix in matrices[:parts])
        entries |= dict.fromkeys(names, nothing_at(entries))

    return change


def nothing_at(entries: dict[str, Any]) -> dict[str, Any]:
    """The entry of an empty tensor behind all others."""
    ends = [value["data_offsets"][1] for name, value in entries.items() if name != "__metadata__"]
    return {"dtype": "F32", "shape": [0], "data_offsets": 2 * [max(ends, default=0)]}


def numbered(entries: dict[str, Any]) -> None:
    """Adds empty tensors whose names hold many numbers, each of which could be that of a layer."""
    entries |= dict.fromkeys((8 * "1." + str(i) for i in range(99_000)), nothing_at(entries))


def named(name: str) -> Callable[[dict[str, Any]], None]:
    """Adds an empty tensor of this name."""
    return lambda entries: entries.update({name: nothing_at(entries)})


def renamed(found: dict[str, Any], old: str, new: str) -> None:
    """Gives a tensor another name."""
    found[new] = found.pop(old)


CHECKPOINT, UNSAFE, MISSING = "CheckpointError", "UnsafeFileError", "MissingFileError"
WEIGHTS: dict[
    str, tuple[Any, ...]
] = {  # how it is made, what the refusal names, what it says; an error of another class
    "empty": (content(lambda file: b""), SINGLE, "empty file"),
    "7 bytes": (content(lambda file: file[:7]), SINGLE, "not a whole safetensors file"),
    "8 bytes": (content(lambda file: file[:8]), SINGLE, "not a whole safetensors file"),
    "cut in the header": (content(lambda file: file[:100]), SINGLE, "not a whole safetensors file"),
    "cut in the data": (content(lambda file: file[:-4]), SINGLE, "the file was cut"),
    "cut in the middle": (content(lambda file: file[: len(file) // 2]), SINGLE, "the file was cut"),
    "a byte too long": (content(lambda file: file + b"\0"), SINGLE, "something was added"),
    "zeros": (content(lambda file: bytes(len(file))), SINGLE, "starts with"),
    "a Git LFS pointer": (
        content(lambda file: b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n"),
        SINGLE,
        "Git LFS pointer.*\n.*git lfs pull",
    ),
    "HTML": (content(lambda file: b"<!DOCTYPE html>" + 99 * b" "), SINGLE, "HTML or XML page"),
    "a pickle": (content(lambda file: pickle.dumps(Gadget())), SINGLE, "safetensors file"),
    "a huge header length": (
        content(lambda file: struct.pack("<Q", 2**63) + file[8:]),
        SINGLE,
        "header of 9223372036854775808 bytes",
    ),
    "a header above the limit": (
        header(lambda entries: json.dumps(entries).encode() + 16_000_001 * b" "),
        SINGLE,
        "limit of 16000000; to raise it: .*header_bytes",
    ),
    "a header that is no JSON": (header(lambda entries: b"{oops}"), SINGLE, "not valid JSON"),
    "a header that is an array": (header(lambda entries: b"[]"), SINGLE, "starts with"),
    "a deep header": (header(lambda entries: b'{"a":' * 100_000), SINGLE, "not valid JSON|more entries"),
    "a header of other bytes": (header(lambda entries: b'{"\xff\xfe": 1}'), SINGLE, "not valid JSON"),
    "a name twice": (
        header(lambda entries: json.dumps(entries).encode()[:-1] + b', "classifier.bias": {}}'),
        "classifier.bias",
        "stands there twice",
    ),
    "two shapes for one name": (
        header(lambda entries: json.dumps(entries).encode().replace(b'"shape"', b'"shape": [1], "shape"', 1)),
        "shape",
        "stands there twice",
    ),
    "an unknown dtype": (header(entry(dtype="F8_E5M2")), QUERY, "dtype: expected one of"),
    "a dtype that is a number": (header(entry(dtype=3)), QUERY, "dtype: expected one of"),
    "a negative side": (header(entry(shape=[-8, 8])), QUERY, "shape: expected counts"),
    "a side that is a fraction": (header(entry(shape=[8.0, 8])), QUERY, "shape: expected counts"),
    "a shape of text": (header(entry(shape="8x8")), QUERY, "shape: expected counts"),
    "nine axes": (header(entry(shape=[1] * 7 + [8, 8])), QUERY, "9 axes, above the limit of 8"),
    "a product that overflows": (header(entry(shape=[2**40, 2**40])), QUERY, "parameters"),
    "a shape of another size": (header(entry(shape=[8, 9])), QUERY, "takes 288 bytes"),
    "offsets backwards": (header(entry(data_offsets=[256, 0])), QUERY, "takes 256 bytes"),
    "offsets far away": (header(entry(data_offsets=[2**62, 2**62 + 256])), SINGLE, "a hole or an overlap"),
    "negative offsets": (header(entry(data_offsets=[-256, 0])), QUERY, "expected two counts"),
    "three offsets": (header(entry(data_offsets=[0, 128, 256])), QUERY, "expected two counts"),
    "an overlap": (header(lambda entries: entry(**entries["classifier.bias"])(entries)), SINGLE, "overlap"),
    "a hole": (header(lambda entries: entries.pop(QUERY) and None), SINGLE, "a hole or an overlap"),
    "an entry without offsets": (
        header(lambda entries: entries[QUERY].pop("data_offsets") and None),
        QUERY,
        "expected dtype, shape and data_offsets",
    ),
    "metadata of numbers": (
        header(lambda entries: entries.update(__metadata__={"format": 1})),
        "__metadata__",
        "expected strings by name",
    ),
    "20,000 extra names": (header(many(20_000)), "extra.0", "20000|20,000"),
    "99,000 extra names": (header(many(99_000)), "extra.0", "99000 unexpected"),
    "99,000 names of nothing": (
        header(lambda entries: [entries.clear(), many(99_000)(entries)], lambda data: b""),
        "extra.0",
        "not a known dialect: of 1980 of its 99000 names",
    ),
    "99,000 names of numbers": (header(numbered), "99000 unexpected", r"1\.1\.1"),
    "99,000 beginnings of models": (
        header(lambda entries: [entries.clear(), models(99_000, 1)(entries)], lambda data: b""),
        "m0.patch_embed",
        "not a known dialect: of 1980 of its 99000 names",
    ),
    "19,800 models": (
        header(lambda entries: [entries.clear(), models(19_800, 5)(entries)], lambda data: b""),
        "'m0'",
        "several sets of weights: .* and 19795 more",
    ),
    "a name of 10 MB": (header(named(10_000_000 * "x")), "1 unexpected", "'xxx"),
    "a name of 5,000,000 numbers": (header(named(5_000_000 * "1.")), "1 unexpected", "'1.1.1"),
    "300,000 extra names": (header(many(300_000)), SINGLE, "the limit of 1"),
    "weights of integers": (
        tensors(lambda found: found.update({QUERY: found[QUERY].astype(np.int64)})),
        "query.weight",
        "int64",
    ),
    "weights of truth values": (tensors(lambda found: found.update({QUERY: found[QUERY] > 0})), "query.weight", "bool"),
    "NaN": (tensors(lambda found: found[QUERY].fill(np.nan)), "query.weight", "64 of 64 values are NaN"),
    "one infinity": (
        tensors(lambda found: found[UP].__setitem__((3, 4), np.inf)),
        "intermediate.dense.weight",
        "1 of 128 values are NaN or infinite",
    ),
    "a float64 too large for float32": (
        tensors(lambda found: found.update({QUERY: np.full((8, 8), 1e300)})),
        "query.weight",
        "float32|infinite",
    ),
    "a transposed kernel": (
        tensors(lambda found: found.update({UP: np.ascontiguousarray(found[UP].T)})),
        "intermediate.dense.weight",
        r"8, 16",
    ),
    "a tensor missing": (tensors(lambda found: found.pop(QUERY)), "query.weight", "not in the file|missing"),
    "all encoder tensors missing": (
        tensors(lambda found: [found.pop(name) for name in [*found] if "encoder" in name]),
        "encoder",
        "missing|not in the file",
    ),
    "a tensor of nobody": (
        tensors(lambda found: found.update(backdoor=np.ones(3, np.float32))),
        "backdoor",
        "not known|unexpected|unexplained|mean",
    ),
    "a flattened tensor": (
        tensors(lambda found: found.update({QUERY: found[QUERY].reshape(-1)})),
        "query.weight",
        r"\(64,?\)|64",
    ),
    "two spellings of one tensor": (
        tensors(lambda found: found.update({QUERY.removeprefix("vit."): found[QUERY] * 2})),
        "query.weight",
        "twice|both|two|same",
    ),
    "tensors of another model": (
        tensors(lambda found: [renamed(found, name, f"bert.{i}") for i, name in enumerate([*found])]),
        "bert",
        "not a known dialect",
    ),
    "more layers than the configuration": (
        lambda folder: (saved(folder), changed(num_hidden_layers=1, num_labels=3)(folder)),
        "layer.1",
        "",
    ),
    "fewer layers than the configuration": (
        lambda folder: (saved(folder), changed(num_hidden_layers=3, num_labels=3)(folder)),
        "layer.2",
        "",
    ),
    "another width than the configuration": (
        lambda folder: (saved(folder), changed(hidden_size=16, num_labels=3)(folder)),
        "weight",
        "16",
    ),
    "in a TensorFlow layout": (tensors(lambda found: None, {"format": "tf"}), SINGLE, "said to be 'tf'"),
    "in a Flax layout": (tensors(lambda found: None, {"format": "flax"}), SINGLE, "said to be 'flax'"),
    "a flipped bit": (content(flipped, manifest=True), SINGLE, "damaged"),
    "a file of another save": (
        lambda folder: (saved(folder, True), tensors(lambda found: found[QUERY].fill(1))(folder)),
        SINGLE,
        "another program wrote it",
    ),
    "a manifest that is no manifest": (
        lambda folder: (saved(folder), (folder / MANIFEST).write_text('{"vitriad": "1", "files": 3}')),
        MANIFEST,
        "expected records",
    ),
    "a manifest cut short": (
        lambda folder: (saved(folder), (folder / MANIFEST).write_text('{"vitriad": ')),
        MANIFEST,
        "not valid JSON",
    ),
    "a file that the manifest does not know": (
        lambda folder: (saved(folder), (folder / MANIFEST).write_text('{"vitriad": "1", "files": {}}')),
        SINGLE,
        "not as manifest.json records it",
    ),
    "no weights": (changed(), "", "no weights here", MISSING),
    "a folder in place of the file": (
        lambda folder: (changed()(folder), (folder / SINGLE).mkdir()),
        SINGLE,
        "regular file|directory",
    ),
    "a pipe in place of the file": (
        lambda folder: (changed()(folder), os.mkfifo(folder / SINGLE)),
        SINGLE,
        "expected a regular file",
    ),
    "a link out of the folder": (
        lambda folder: (
            saved(folder),
            os.rename(folder / SINGLE, folder.parent / "outside"),
            (folder / SINGLE).symlink_to("../outside"),
        ),
        SINGLE,
        "a symbolic link out of its folder",
        UNSAFE,
    ),
    "a link to itself": (
        lambda folder: (changed()(folder), (folder / SINGLE).symlink_to(SINGLE)),
        SINGLE,
        "cannot be opened|link",
    ),
    "only a pickle": (
        lambda folder: (changed()(folder), (folder / "pytorch_model.bin").write_bytes(pickle.dumps(Gadget()))),
        "pytorch_model.bin",
        "a pickle, but not of torch.save",
    ),
    "only an HDF5 file": (
        lambda folder: (changed()(folder), (folder / "tf_model.h5").write_bytes(b"\x89HDF\r\n\x1a\n")),
        "tf_model.h5",
        "not a sound HDF5 file",
    ),
    "only msgpack": (
        lambda folder: (changed()(folder), (folder / "flax_model.msgpack").write_bytes(b"\x80")),
        "flax_model.msgpack",
        "no arrays in it",
    ),
}
for name, (prepare, what, why, *other) in WEIGHTS.items():
    add("weights", name, prepare, load, *(other or [CHECKPOINT]), what, why)


# --- shards ----------------------------------------------------------------------------------------------------------


def sharded(change: Callable[[Path, dict[str, Any]], Any], manifest: bool = False) -> Callable[[Path], None]:
    """Writes the classifier in shards and changes the folder, or its index in place."""

    def prepare(folder: Path) -> None:
        saved(folder, manifest, max_shard_size=3000)
        index = json.loads((folder / INDEX).read_text())
        text = change(folder, index)
        (folder / INDEX).write_text(text if isinstance(text, str) else json.dumps(index))

    return prepare


def points_to(shard: Any) -> Callable[[Path], None]:
    """An index whose first tensor is said to be in another file."""

    def change(folder: Path, index: dict[str, Any]) -> None:
        index["weight_map"][min(index["weight_map"])] = shard
        (folder.parent / "x.safetensors").write_bytes(next(folder.glob("model-*")).read_bytes())

    return sharded(change)


def first_shard(folder: Path) -> Path:
    """The file of the first shard."""
    return min(folder.glob("model-*"))


NAMES = ["../x.safetensors", "/etc/passwd", "/tmp/x.safetensors", "a/../../x.safetensors", "..\\x.safetensors"]
NAMES += ["C:\\x.safetensors", ".x.safetensors", "x.bin", "", "x.safetensors\0.bin", "checkpoint/x.safetensors"]
for shard in NAMES:
    add("shards", f"named {shard!r}", points_to(shard), load, UNSAFE, "index.json", "plain name of a .safetensors file")
INDEXES: dict[str, tuple[Any, ...]] = {
    "a shard that is a number": (points_to(3), "index.json", "weight_map: expected file names"),
    "a shard missing": (
        sharded(lambda folder, index: first_shard(folder).unlink()),
        "model-00001",
        "no such file",
        MISSING,
    ),
    "a shard cut": (
        sharded(lambda folder, index: os.truncate(first_shard(folder), 200)),
        "model-00001",
        "not a whole|was cut",
    ),
    "a shard that is a pickle": (
        sharded(lambda folder, index: first_shard(folder).write_bytes(pickle.dumps(Gadget())) and None),
        "model-00001",
        "safetensors file",
    ),
    "a shard that is a link out": (
        sharded(
            lambda folder, index: (
                os.rename(first := first_shard(folder), folder.parent / "outside"),
                first.symlink_to("../outside"),
            )
        ),
        "model-0000",
        "a symbolic link out of its folder",
        UNSAFE,
    ),
    "a tensor that is not in its shard": (
        sharded(lambda folder, index: index["weight_map"].update({"vit.more": min(index["weight_map"].values())})),
        "vit.more",
        "does not hold",
    ),
    "a tensor that the index leaves out": (
        sharded(lambda folder, index: index["weight_map"].pop(QUERY) and None),
        QUERY,
        "also holds",
    ),
    "a tensor in the wrong shard": (
        sharded(lambda folder, index: index["weight_map"].update({QUERY: max(index["weight_map"].values())})),
        "query",
        "does not hold|also holds",
    ),
    "an empty map": (
        sharded(lambda folder, index: index.update(weight_map={})),
        "index.json",
        "weight_map: expected file names",
    ),
    "no map": (sharded(lambda folder, index: "{}"), "index.json", "weight_map: expected file names"),
    "no object": (sharded(lambda folder, index: "[]"), "index.json", "expected a JSON object"),
    "cut": (sharded(lambda folder, index: '{"weight_map": {'), "index.json", "not valid JSON"),
    "a name twice": (
        sharded(
            lambda folder, index: json.dumps(index).replace('"weight_map": {', '"weight_map": {"a": "b", "a": "c",')
        ),
        "index.json",
        "'a' stands there twice",
    ),
    "too many shards": (
        sharded(lambda folder, index: index.update(weight_map={f"x{i}": f"{i}.safetensors" for i in range(1025)})),
        "1025 shards",
        "limit of 1024; to raise it",
    ),
    "too large": (
        sharded(lambda folder, index: json.dumps({**index, "x": 16_000_000 * "y"})),
        "index.json",
        "limit of 16000000; to raise it: .*index_bytes",
    ),
    "a flipped bit in a shard": (
        sharded(
            lambda folder, index: (
                first_shard(folder).write_bytes(flipped(first_shard(folder).read_bytes())),
                json.dumps(index, indent=2, sort_keys=True) + "\n",
            )[1],
            manifest=True,
        ),
        "model-00001",
        "damaged",
    ),
    "a changed index": (
        sharded(lambda folder, index: json.dumps(index), manifest=True),
        "index.json",
        "not as manifest.json records it",
    ),
}
for name, (prepare, what, why, *other) in INDEXES.items():
    add("shards", name, prepare, load, *(other or [CHECKPOINT]), what, why)


# --- images ----------------------------------------------------------------------------------------------------------


def picture_file(change: Callable[[bytes], bytes], form: str = "PNG") -> Callable[[Path], None]:
    """Writes an image file and changes its bytes."""

    def prepare(folder: Path) -> None:
        noise = np.random.default_rng(0).integers(0, 256, (40, 30, 3), dtype=np.uint8)
        Image.fromarray(noise).save(folder / "x", format=form)
        (folder / "x").write_bytes(change((folder / "x").read_bytes()))

    return prepare


def sized(width: int, height: int) -> Callable[[bytes], bytes]:
    """A PNG whose header claims another size."""

    def change(file: bytes) -> bytes:
        chunk = b"IHDR" + struct.pack(">II", width, height) + file[24:29]
        return file[:12] + chunk + struct.pack(">I", zlib.crc32(chunk)) + file[33:]

    return change


def open_it(folder: Path) -> Any:
    """Opens the image file."""
    return open_image(folder / "x")


FILES: dict[str, tuple[Any, ...]] = {
    **{
        f"half of a {form}": (picture_file(lambda file: file[: len(file) // 2], form), "cannot be decoded")
        for form in ("PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF")
    },
    "EPS": (picture_file(lambda file: file, "EPS"), "cannot be decoded.*\n.*JPEG, PNG"),
    "PDF": (picture_file(lambda file: file, "PDF"), "cannot be decoded.*\n.*JPEG, PNG"),
    "ICO": (picture_file(lambda file: file, "ICO"), "cannot be decoded"),
    "SVG": (picture_file(lambda file: b"<svg/>"), "cannot be decoded"),
    "empty": (picture_file(lambda file: b""), "cannot be decoded"),
    "text": (picture_file(lambda file: b"hello"), "cannot be decoded"),
    "a pickle": (picture_file(lambda file: pickle.dumps(Gadget())), "cannot be decoded"),
    "174 megapixels in a header": (picture_file(sized(13_200, 13_200)), "13200.*limits of"),
    "a very wide header": (picture_file(sized(70_000, 1)), "70000.*limits of 65535|limits of"),
    "no pixels": (picture_file(sized(0, 0)), "cannot be decoded|at least one"),
    "a folder": (lambda folder: (folder / "x").mkdir(), "expected a regular file"),
    "a pipe": (lambda folder: os.mkfifo(folder / "x"), "expected a regular file"),
    "missing": (nothing, "no such file", "MissingImageError"),
    "100 MB": (picture_file(lambda file: file + bytes(100_000_000)), "limit of 100000000; to raise it"),
}
for name, (prepare, why, *other) in FILES.items():
    add("images", f"file: {name}", prepare, open_it, *(other or ["ImageError"]), "/x", why)

PIXELS = np.zeros((3, 9, 7), np.uint8)
ARRAYS: dict[str, tuple[Any, str]] = {
    "a path": ("cat.png", r"vit_core.open_image\(path\)"),
    "a URL": ("http://127.0.0.1:9/cat.png", "no files or URLs are opened"),
    "bytes": (b"\x89PNG", r"vit_core.open_image\(path\)"),
    "a Path": (Path("cat.png"), r"vit_core.open_image\(path\)"),
    "None": (None, "NoneType"),
    "a dict": ({"image": PIXELS}, "dict"),
    "nested numbers": ([[[1, 2], [3, 4]]], "got int"),
    "no pixels": (np.zeros((0, 0, 3), np.uint8), "at least one pixel"),
    "objects": (PIXELS.astype(object), "dtype object"),
    "truth values": (PIXELS.astype(bool), "dtype bool"),
    "complex numbers": (PIXELS.astype(complex), "dtype complex"),
    "text": (PIXELS.astype("U1"), "dtype"),
    "NaN": (np.full((3, 4, 4), np.nan), "NaN or infinity"),
    "infinity": (np.full((3, 4, 4), np.inf), "NaN or infinity"),
    "five axes": (np.zeros((1, 1, 3, 4, 4), np.uint8), r"got shape \(1, 1, 3, 4, 4\)"),
    "one axis": (np.zeros(9, np.uint8), r"got shape \(9,\)"),
    "five channels": (np.zeros((5, 8, 6), np.uint8), "1, 3 or 4 channels"),
    "below zero": (PIXELS.astype(int) - 1, "-1 to -1"),
    "above 255": (PIXELS.astype(int) + 256, "256 to 256"),
    "two layouts": ([PIXELS, PIXELS.transpose(1, 2, 0)], "one layout"),
}
for name, (images, why) in ARRAYS.items():
    add("images", name, nothing, lambda folder, i=images: ViTImageProcessor(size=4)(i), "ImageError", "image \\d", why)
add("images", "none", nothing, lambda folder: ViTImageProcessor()([]), "ImageError", "preprocess", "at least one image")
OPTIONS: list[dict[str, Any]] = [{"size": 0}, {"size": "224"}, {"size": 10**6}, {"resample": 99}, {"do_resize": "yes"}]
OPTIONS += [{"image_mean": [float("nan")] * 3}, {"rescale_factor": "1/255"}, {"do_pad": True}, {"image_std": "0.5"}]
OPTIONS += [{"image_processor_type": "CLIPImageProcessor"}, {"alpha_background": "white"}, {"do_exif_transpose": 1}]
for options in OPTIONS:
    (option,) = options
    add(
        "images",
        f"option {option} {options[option]!r}",
        lambda folder, o=options: (folder / "preprocessor_config.json").write_text(json.dumps(o)),
        lambda folder: vitriad.AutoImageProcessor.from_pretrained(folder),
        "ImageError",
        option,
        "expected|no such step",
    )


# --- calls -----------------------------------------------------------------------------------------------------------


MODELS: dict[str, Any] = {}  # class -> a model of the backend whose turn it is


def call(cls: str, **inputs: Any) -> Callable[[Path], Any]:
    """Calls a small model."""
    return lambda folder: MODELS[cls](**{"pixel_values": IMAGES, **inputs})


def warm(backend: str) -> None:
    """Makes the models of a backend, and calls and loads as much as a first call and a first load bring along."""
    for cls in (VIT, MIM, CLASSIFIER, MAE):
        MODELS[cls] = model_class(cls, backend)(small_config(cls))
        call(cls)(Path())
    with tempfile.TemporaryDirectory() as folder:
        saved(Path(folder), manifest=True)
        through(Path(folder))


def through(folder: Path) -> Any:
    """Loads a checkpoint into a model of the backend."""
    return type(MODELS[CLASSIFIER]).from_pretrained(folder)


def through_a_backend(case: Case) -> Callable[[Path], Any]:
    """What a backend does in a case: its model loads what is otherwise loaded without one."""
    return through if case.act is load else case.act


for number, (cls, what, inputs, why) in enumerate(CALLS + VALUES):
    add("calls", f"{number} {cls} {what}", nothing, call(cls, **inputs), "InputError", f"{cls}: {what}|{what}", why)


# --- legal, though odd -----------------------------------------------------------------------------------------------


def labelled(count: int) -> Callable[[Path], None]:
    """A configuration with so many labels, both ways."""
    labels = [f"n{i:08d} a kind of thing" for i in range(count)]
    return changed(id2label=dict(enumerate(labels)), label2id={label: i for i, label in enumerate(labels)})


def as_snapshot(folder: Path) -> None:
    """The links of the hub's cache: a snapshot whose files are blobs."""
    saved(folder)
    (folder / "blobs").mkdir()
    (folder / SNAPSHOT).mkdir(parents=True)
    for name in ("config.json", SINGLE):
        os.rename(folder / name, folder / "blobs" / name)
        (folder / SNAPSHOT / name).symlink_to(f"../../blobs/{name}")


def cast(dtype: Any) -> Callable[[Path], None]:
    """Weights of another floating dtype."""
    return tensors(lambda found: found.update({name: array.astype(dtype) for name, array in found.items()}))


SNAPSHOT = f"snapshots/{40 * 'a'}"
CODE = {"auto_map": {"AutoModel": "evil.Model"}, "_attn_implementation_internal": "attacker/kernel"}
LEGAL: dict[str, tuple[Callable[[Path], Any], Callable[[Path], Any]]] = {
    "unknown keys": (changed(some_future_option=[1, {"a": None}], _private=3), load_config),
    "code and kernels named as data": (changed(**CODE, trust_remote_code=True), load_config),
    "a field misspelt": (changed(hiden_size=8), load_config),
    "keys named like methods": (changed(to_dict=1, from_pretrained=2, __class__="x", validate=3), load_config),
    "1,000 labels": (labelled(1000), load_config),
    "21,843 labels": (labelled(21_843), load_config),
    "100,000 labels": (labelled(100_000), load_config),
    "labels in other scripts": (
        changed(id2label={"0": "größe", "1": "猫"}, label2id={"größe": 0, "猫": 1}),
        load_config,
    ),
    "150,000 unknown keys": (changed(**{f"unknown{i}": i for i in range(150_000)}), load_config),
    "no label2id": (changed(id2label={"0": "a", "1": "b", "2": "c"}), load_config),
    "a patch that does not divide": (changed(image_size=9), load_config),
    "sides of their own": (changed(image_size=[8, 12], patch_size=[2, 3]), load_config),
    "no layers": (changed(num_hidden_layers=0), load_config),
    "the depth limit": (config_file(GOOD[:-1] + ', "x": ' + 31 * "[" + 31 * "]" + "}"), load_config),
    "torch_dtype": (changed(torch_dtype="bfloat16"), load_config),
    "a link within the folder": (
        lambda folder: (
            changed()(folder),
            os.rename(folder / "config.json", folder / "c"),
            (folder / "config.json").symlink_to("c"),
        ),
        load_config,
    ),
    "one file": (saved, load),
    "with a manifest": (lambda folder: saved(folder, True), load),
    "shards": (lambda folder: saved(folder, max_shard_size=3000), load),
    "an index without metadata": (sharded(lambda folder, index: index.pop("metadata") and None), load),
    "no metadata": (tensors(lambda found: None), load),
    "float16": (cast(np.float16), load),
    "bfloat16": (cast(ml_dtypes.bfloat16), load),
    "float64": (cast(np.float64), load),
    "a pooler too many": (
        tensors(
            lambda found: found.update(
                {
                    "vit.pooler.dense.weight": np.ones((8, 8), np.float32),
                    "vit.pooler.dense.bias": np.ones(8, np.float32),
                }
            )
        ),
        load,
    ),
    "no classifier": (tensors(lambda found: [found.pop(f"classifier.{kind}") for kind in ("weight", "bias")]), load),
    "the hub's cache": (as_snapshot, lambda folder: load(folder / SNAPSHOT)),
    "a pickle beside it": (
        lambda folder: (saved(folder), (folder / "pytorch_model.bin").write_bytes(pickle.dumps(Gadget()))),
        load,
    ),
    "read-only files": (lambda folder: (saved(folder), [path.chmod(0o444) for path in folder.iterdir()]), load),
    "a hard link": (lambda folder: (saved(folder), os.link(folder / SINGLE, folder.parent / "other")), load),
    "a file of another program with its own manifest": (
        lambda folder: (saved(folder), (folder / MANIFEST).write_text('{"name": "something else"}')),
        load,
    ),
    "a 1 x 1 picture": (nothing, lambda folder: ViTImageProcessor()(Image.new("RGB", (1, 1)))),
    "a 50,000 x 1 picture": (nothing, lambda folder: ViTImageProcessor()(Image.new("RGB", (50_000, 1)))),
}
LEGAL_CALLS = {
    "channels last": call(VIT, pixel_values=IMAGES.transpose(0, 2, 3, 1)),
    "some labels ignored": call(CLASSIFIER, labels=np.array([-100, 2])),
    "no images in a batch": call(VIT, pixel_values=IMAGES[:0]),
}
for name, (prepare, act) in LEGAL.items():
    add("legal", name, prepare, act, None)
for name, act in LEGAL_CALLS.items():
    add("legal calls", name, nothing, act, None)


# --- what the watch must notice --------------------------------------------------------------------------------------


def hang(folder: Path) -> None:
    """Never ends."""
    while True:
        time.sleep(1)


def hoard(folder: Path) -> None:
    """Takes 150 MB before it refuses."""
    _ = bytearray(b"x") * 150_000_000
    raise ConfigError("too late")


def dawdle(folder: Path) -> None:
    """Takes three times what it may before it refuses."""
    end = 3 * most_seconds() + time.process_time()
    sum(1 for _ in itertools.takewhile(lambda _: time.process_time() < end, itertools.count()))
    raise ConfigError("too late")


META: dict[str, tuple[Callable[[Path], Any], str]] = {
    "hangs": (hang, "killed by signal 9"),
    "takes memory": (hoard, "bytes"),
    "takes time": (dawdle, "seconds"),
    "reads elsewhere": (lambda folder: Path("/etc/passwd").read_bytes(), "opened /etc/passwd"),
    "starts a program": (lambda folder: os.system("true"), "os.system"),
    "loads a pickle": (lambda folder: pickle.loads(pickle.dumps(Gadget())), "pickle.find_class"),
    "connects": (lambda folder: socket.create_connection(("127.0.0.1", 9)), "socket.connect"),
    "leaves a canary": (lambda folder: (folder / CANARY).touch(), CANARY),
    "crashes": (lambda folder: os.kill(os.getpid(), 11), "killed by signal 11"),
}
for name, (act, _) in META.items():
    add("meta", name, nothing, act, "ConfigError")
CASES["meta: hangs"] = CASES["meta: hangs"]._replace(patience=2)
CASES["meta: takes time"] = CASES["meta: takes time"]._replace(patience=200)  # it is not to hang, on no machine
