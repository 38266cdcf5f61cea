"""Files made to harm: each is refused by name, in every container, and nothing is run, opened or allocated for it."""

import ast
import io
import os
import pickle
import struct
import zipfile
from pathlib import Path

import h5py
import ml_dtypes
import numpy as np
import pytest
from foreign import FOLDER
from weight_files import packed, tensor, torch_zip

import conversion
from vit_core.errors import CheckpointError, UnsafeFileError
from vit_core.files.containers import open_any
from vit_core.limits import Limits


def refused(path, match, error=CheckpointError, **options):
    with pytest.raises(error, match=match) as caught:
        for tensor in open_any(path, **options).tensors.values():
            tensor.read()
    assert str(path) in str(caught.value) and str(caught.value).count("\n") < 3


# --- torch -----------------------------------------------------------------------------------------------------------


class Call:
    """Pickles as a call of a function."""

    def __init__(self, function, *arguments):
        self.call = (function, arguments)

    def __reduce__(self):
        return self.call


def test_a_sound_tensor_is_read(tmp_path):
    data = np.arange(4, dtype=np.float32)
    file = open_any(torch_zip(tmp_path / "a", tensor(), {"0": data.tobytes()}))
    np.testing.assert_array_equal(file.read("a"), data.reshape(2, 2))
    turned = open_any(torch_zip(tmp_path / "b", tensor(strides=(1, 2)), {"0": data.tobytes()}))
    np.testing.assert_array_equal(turned.read("a"), data.reshape(2, 2).T)


GADGETS = {
    "os.system": (os.system, "touch marker"),
    "eval": (eval, "open('marker', 'w')"),
    "exec": (exec, "open('marker', 'w')"),
    "open": (open, "marker", "w"),
    "getattr": (getattr, "x", "upper"),
    "remove": (os.remove, "marker"),
    "import": (__import__, "this"),
    "numpy array of objects": (np.array, [1]),
    "bytearray bomb": (bytearray, 10**9),
}


@pytest.mark.parametrize("protocol", [2, 4])
@pytest.mark.parametrize("gadget", GADGETS)
def test_a_call_is_refused_by_name_and_not_made(tmp_path, monkeypatch, gadget, protocol):
    monkeypatch.chdir(tmp_path)
    program = pickle.dumps({"a": Call(*GADGETS[gadget])}, protocol)
    module, name = GADGETS[gadget][0].__module__, GADGETS[gadget][0].__name__
    module = {"builtins": "__builtin__" if protocol == 2 else "builtins", "_io": "_?io"}.get(module, module)
    refused(torch_zip(tmp_path / "a.pth", program), f"'{module}.{name}' called.*nothing was run", UnsafeFileError)
    assert os.listdir(tmp_path) == ["a.pth"]


PROGRAMS = {
    "cut": (b"\x80\x02}", "ends in the middle"),
    "nothing on the stack": (b"\x80\x02.", "not a sound program"),
    "two values": (b"\x80\x02NN.", "not a sound program"),
    "a mark that is not there": (b"\x80\x02t.", "not a sound program"),
    "a tuple of too few": (b"\x80\x02\x87.", "not a sound program"),
    "an item of a number": (b"\x80\x02NNNs.", "not a sound program"),
    "a key that is a list": (b"\x80\x02}]Ns.", "not a sound program"),
    "memory that is empty": (b"\x80\x02h\x05.", "not a sound program"),
    "a text longer than the file": (b"\x80\x02X\xff\xff\xff\x7fa.", "ends in the middle"),
    "bytes of a negative length": (b"\x80\x02T\xff\xff\xff\xffa.", "ends in the middle"),
    "an extension": (b"\x80\x02\x82\x01.", "is not known here"),
    "an instance of old": (b"\x80\x02(ios\nsystem\n.", "is not known here"),
    "a state for a number": (b"\x80\x02N}b.", "not a sound program"),
    "a call of a number": (b"\x80\x02K\x01)R.", "not a sound program"),
    "a storage that is a text": (b"\x80\x02X\x01\x00\x00\x00aQ.", "not a sound program"),
    "no weights": (b"\x80\x02}.", "no weights in it"),
    "a name that is not text": (b"\x80\x02X\x02\x00\x00\x00\xff\xfeN.", "not a sound program"),
    "itself inside": (b"\x80\x02}q\x00X\x05\x00\x00\x00modelh\x00s.", "contains itself"),
    "too deep": (b"\x80\x02" + 40 * b"}X\x01\x00\x00\x00a" + b"}" + 40 * b"s" + b".", "nested deeper"),
}


@pytest.mark.parametrize("program", PROGRAMS)
def test_a_program_that_makes_no_sense(tmp_path, program):
    refused(torch_zip(tmp_path / "a.pth", PROGRAMS[program][0]), PROGRAMS[program][1])


TENSORS = {
    "stride 0": ({"shape": (2**31, 2), "strides": (0, 1)}, "in a storage of 4 numbers"),
    "beyond its storage": ({"start": 1}, "in a storage of 4 numbers"),
    "negative stride": ({"strides": (-2, 1)}, "not a sound program"),
    "negative start": ({"start": -1}, "not a sound program"),
    "other axes": ({"strides": (1,)}, "not a sound program"),
    "longer than its record": ({"count": 5}, "expected 20 bytes, found 16"),
    "huge": ({"count": 2**60}, "expected 4611686018427387904 bytes"),
    "no record": ({"key": "1"}, "found nothing"),
    "a record elsewhere": ({"key": "../data.pkl"}, "expected 16 bytes, found"),
    "complex": ({"kind": "ComplexFloatStorage"}, "'torch.ComplexFloatStorage' called"),
    "quantised": ({"rebuild": "_rebuild_qtensor"}, "'torch._utils._rebuild_qtensor' called"),
    "sparse": ({"rebuild": "_rebuild_sparse_tensor"}, "'torch._utils._rebuild_sparse_tensor' called"),
    "meta": ({"rebuild": "_rebuild_meta_tensor_no_storage"}, "_rebuild_meta_tensor_no_storage' called"),
}


@pytest.mark.parametrize("case", TENSORS)
def test_a_tensor_that_is_none(tmp_path, case):
    fields, match = TENSORS[case]
    refused(torch_zip(tmp_path / "a.pth", tensor(**fields), {"0": bytes(16)}), match)


def test_archives_of_torch_that_are_none(tmp_path):
    refused(torch_zip(tmp_path / "a", tensor(), {"0": bytes(16)}, byteorder=b"big"), "big-endian")
    refused(torch_zip(tmp_path / "b", tensor(), {"0": bytes(16)}, compression=zipfile.ZIP_DEFLATED), "compressed")
    path = torch_zip(tmp_path / "c", tensor(), {"0": bytes(16)})
    content = bytearray(path.read_bytes())
    content[content.index(b"x/data/0") + 8] ^= 1
    path.write_bytes(content)
    refused(path, "its checksum differs")
    with pytest.warns(UserWarning, match="Duplicate name"), zipfile.ZipFile(tmp_path / "d", "w") as archive:
        for _ in range(2):
            archive.writestr("x/data.pkl", tensor())
    refused(tmp_path / "d", "stands there twice")


def test_limits_of_programs(tmp_path):
    path = torch_zip(tmp_path / "a", b"\x80\x02" + 50 * b"N0" + b"}.")
    refused(path, "above|more than the limit of 20", limits=Limits(program_steps=20))
    refused(path, "no weights in it", limits=Limits(program_steps=102))
    refused(path, "above the limit of 50", limits=Limits(header_bytes=50))


def test_a_legacy_file_that_was_cut(tmp_path):
    content = (FOLDER.parent / "containers" / "legacy.pth").read_bytes()
    (tmp_path / "a").write_bytes(content)
    assert len(open_any(tmp_path / "a").tensors) == 20
    (tmp_path / "b").write_bytes(content[:-4])
    refused(tmp_path / "b", "the file was cut")
    (tmp_path / "c").write_bytes(content.replace(b"little_endian", b"little_endiax"))
    refused(tmp_path / "c", "little-endian")


# --- npz, h5, msgpack ------------------------------------------------------------------------------------------------


def npz(path, arrays=None, members=None, compression=zipfile.ZIP_STORED):
    with zipfile.ZipFile(path, "w", compression) as archive:
        for name, array in (arrays or {}).items():
            buffer = io.BytesIO()
            np.lib.format.write_array(buffer, array)
            archive.writestr(f"{name}.npy", buffer.getvalue())
        for name, data in (members or {}).items():
            archive.writestr(name, data)
    return path


def header(text):
    text = text.encode() + b"\n"
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(text)) + text


ARRAYS = {
    "objects": (header("{'descr': '|O', 'fortran_order': False, 'shape': (1,)}") + bytes(8), "objects"),
    "a call in the header": (header("{'descr': __import__('os').system('touch x')}"), "sound header"),
    "a huge shape": (header("{'descr': '<f4', 'fortran_order': False, 'shape': (2**40,)}"), "sound header"),
    "a large shape": (header(f"{{'descr': '<f4', 'fortran_order': False, 'shape': ({2**40},)}}"), "takes"),
    "a negative side": (header("{'descr': '<f4', 'fortran_order': False, 'shape': (-4,)}"), "shape|sound header"),
    "structured": (header("{'descr': [('a', '<f4')], 'fortran_order': False, 'shape': (1,)}") + bytes(4), "dtype"),
    "complex": (header("{'descr': '<c8', 'fortran_order': False, 'shape': (1,)}") + bytes(8), "dtype"),
    "big-endian": (header("{'descr': '>f4', 'fortran_order': False, 'shape': (1,)}") + bytes(4), "dtype"),
    "too many axes": (header(f"{{'descr': '<f4', 'fortran_order': False, 'shape': {(1,) * 9}}}") + bytes(4), "rank|8"),
    "bytes behind": (header("{'descr': '<f4', 'fortran_order': False, 'shape': (1,)}") + bytes(8), "takes 4"),
    "no array": (b"hello", "sound header"),
}


@pytest.mark.parametrize("case", ARRAYS)
def test_an_npz_member_that_is_no_array(tmp_path, case):
    data, match = ARRAYS[case]
    refused(npz(tmp_path / "a.npz", members={"a.npy": data}), match)


def test_npz_archives(tmp_path):
    array = np.asfortranarray(np.arange(6, dtype=np.float32).reshape(2, 3))
    bf16 = np.ones(3, ml_dtypes.bfloat16).view("V2")
    file = open_any(npz(tmp_path / "sound.npz", {"a": array, "b": bf16}))
    np.testing.assert_array_equal(file.read("a"), array)
    np.testing.assert_array_equal(file.read("b"), np.ones(3, ml_dtypes.bfloat16))
    refused(npz(tmp_path / "b.npz", {"a": np.zeros(10**6)}, compression=zipfile.ZIP_DEFLATED), "inflates from")
    refused(npz(tmp_path / "c.npz", members={"../../evil": b"x"}), "expected arrays")
    refused(npz(tmp_path / "d.npz", {"a": array}, compression=zipfile.ZIP_LZMA), "compressed in a way")


def outside(file, tmp_path):
    with h5py.File(tmp_path / "other.h5", "w") as other:
        other["secret"] = np.ones(3)
    return h5py.ExternalLink(str(tmp_path / "other.h5"), "secret")


H5 = {
    "external link": (lambda f, p: f.__setitem__("a", outside(f, p)), "is a link to elsewhere", UnsafeFileError),
    "soft link": (lambda f, p: f.__setitem__("a", h5py.SoftLink("/b")), "is a link to elsewhere", UnsafeFileError),
    "external storage": (
        lambda f, p: f.create_dataset("a", (4,), "f4", external=[("/etc/hostname", 0, 16)]),
        "in other files",
        UnsafeFileError,
    ),
    "virtual": (
        lambda f, p: f.create_virtual_dataset("a", _virtual(p)),
        "in other files",
        UnsafeFileError,
    ),
    "bomb": (lambda f, p: f.create_dataset("a", (10**9,), "f4", chunks=(1000,)), "would become", CheckpointError),
    "late bomb": (lambda f, p: f.create_dataset("a", (10**9,), "f4"), "would become", CheckpointError),
    "compound": (lambda f, p: f.create_dataset("a", (1,), np.dtype([("x", "f4")])), "dtype", CheckpointError),
    "text": (lambda f, p: f.create_dataset("a", data="text"), "dtype", CheckpointError),
    "references": (lambda f, p: f.create_dataset("a", (1,), h5py.ref_dtype), "dtype", CheckpointError),
    "big-endian": (lambda f, p: f.create_dataset("a", (1,), ">f4"), "dtype", CheckpointError),
    "axes": (lambda f, p: f.create_dataset("a", (1,) * 9, "f4"), "limit of 8", CheckpointError),
    "deep": (lambda f, p: f.create_dataset("/".join("a" * 40), (1,), "f4"), "nested deeper", CheckpointError),
}


def _virtual(folder):
    with h5py.File(folder / "other.h5", "w") as other:
        other["x"] = np.ones(4, np.float32)
    layout = h5py.VirtualLayout((4,), "f4")
    layout[:] = h5py.VirtualSource(str(folder / "other.h5"), "x", (4,))
    return layout


@pytest.mark.parametrize("case", H5)
def test_an_hdf5_file_that_leads_elsewhere_or_lies(tmp_path, case):
    fill, match, error = H5[case]
    with h5py.File(tmp_path / "a.h5", "w") as file:
        fill(file, tmp_path)
    refused(tmp_path / "a.h5", match, error)


def test_sound_hdf5_files_in_one_piece_and_in_many(tmp_path):
    array = np.random.default_rng(0).standard_normal((30, 20)).astype(np.float32)
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["one"] = array
        file.create_dataset("pieces", data=array, chunks=(7, 7), compression="gzip")
        file["twice"] = file["one"]
    refused(tmp_path / "a.h5", "under two names")
    with h5py.File(tmp_path / "a.h5", "a") as file:
        del file["twice"]
    found = open_any(tmp_path / "a.h5")
    for name in ("one", "pieces"):
        np.testing.assert_array_equal(found.read(name), array)
        assert found.read(name).flags.writeable


MSGPACK = {
    "another extension": (b"\x81\xa1a" + packed(extension=7), "extension type 7"),
    "objects": (b"\x81\xa1a" + packed(dtype="object"), "dtype: expected"),
    "too little data": (b"\x81\xa1a" + packed(shape=(3,)), "takes 12 bytes, there are 8"),
    "cut": (b"\x81\xa1a" + packed()[:-3], "the file ends in .a.: 8 bytes expected, 5 there"),
    "bytes behind": (b"\x81\xa1a" + packed() + b"x", "1 bytes behind"),
    "a key twice": (b"\x82\xa1a" + packed() + b"\xa1a" + packed(), "is there twice"),
    "a number": (b"\x81\xa1a\x05", "no arrays in it"),
    "only a list": (b"\x91" + packed() + bytes(90), "nested maps of arrays"),
    "a list that is cut": (b"\x82\xa1a" + packed() + b"\xa1b\xdd\xff\xff\xff\xff\xc0", "the file ends in 'b'"),
    "a state that is cut": (b"\x82\xa1a" + packed() + b"\xa9opt_state\x82\xa1m" + packed(), "the file ends in 'a'"),
    "one name by two ways": (b"\x82\xa3a.b" + packed() + b"\xa1a\x81\xa1b" + packed(), "there under two keys"),
    "more lists than there may be": (
        b"\x82\xa1a" + packed() + b"\xa1b\xdd" + (400_000).to_bytes(4, "big") + 400_000 * b"\x90",
        "more values than the limit of 100000",
    ),
    "more maps than there may be": (
        b"\x82\xa1a"
        + packed()
        + b"\xa1b\xdf"
        + (400_000).to_bytes(4, "big")
        + b"".join(b"\xa7%07d\x80" % i for i in range(400_000)),
        "more values than the limit of 100000",
    ),
    "a key that is a number": (b"\x81\x05" + packed(), "expected text"),
    "a float": (b"\x81\xa1a\xcb" + bytes(8), "no arrays in it"),
    "a byte that means nothing": (b"\x81\xa1a\xc1" + bytes(8), "a value of the kind 0xc1, which weights do not have"),
    "more keys than bytes": (b"\xdf\xff\xff\xff\xff\xa1a" + packed(), "the file ends in .*: 1 bytes expected, 0 there"),
    "pieces": (b"\x81\xa1a\x81\xb9__msgpack_chunked_array__" + packed(), "array in pieces"),
    "deep": (50 * b"\x81\xa1a" + packed(), "nested maps"),
    "a name that is not text": (b"\x81\xa1\xff" + packed(), "not UTF-8"),
    "axes": (b"\x81\xa1a" + packed(shape=(1,) * 9, data=bytes(4)), "limit of 8"),
}


@pytest.mark.parametrize("case", MSGPACK)
def test_a_msgpack_file_that_makes_no_sense(tmp_path, case):
    (tmp_path / "a.msgpack").write_bytes(MSGPACK[case][0])
    refused(tmp_path / "a.msgpack", MSGPACK[case][1])


def test_a_sound_msgpack_file(tmp_path):
    (tmp_path / "a.msgpack").write_bytes(b"\x82\xa1a\x81\xa1b" + packed() + b"\xa1c" + packed(shape=(1, 2)))
    found = open_any(tmp_path / "a.msgpack").tensors
    assert {name: tensor.shape for name, tensor in found.items()} == {"a.b": (2,), "c": (1, 2)}


def test_what_is_no_weight_file_at_all(tmp_path):
    for content, match in (
        (b"version https://git-lfs.github.com/spec/v1\n", "Git LFS pointer"),
        (b"", "an empty file"),
        (pickle.dumps([1]), "a pickle, but not of torch.save"),
        (b"hello world, no weights", "of no known kind: it starts with"),
        (b"PK\x03\x04" + bytes(100), "not a sound zip"),
        (b"\x89HDF\r\n\x1a\n" + bytes(100), "not a sound HDF5"),
    ):
        (tmp_path / "a").unlink(missing_ok=True)
        (tmp_path / "a").write_bytes(content)
        refused(tmp_path / "a", match)


def test_no_module_that_runs_programs_is_imported():
    for path in Path(conversion.__file__).parent.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import | ast.ImportFrom) else []
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            assert not any(word in name for name in names for word in ("pickle", "marshal", "dill", "shelve")), path
