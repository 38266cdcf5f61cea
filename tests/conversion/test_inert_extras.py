"""What training programs keep beside weights: read past by name, never made, and never taken for weights."""

import datetime
import pathlib
import pickle
import random
from collections import Counter, OrderedDict, defaultdict

import numpy as np
import pytest
from checkpoints import make_config, make_tensors
from weight_files import Program, called, named, tensor, torch_tree, torch_zip

import conversion
from vit_core.errors import CheckpointError, UnsafeFileError
from vit_core.files.containers import open_any
from vit_core.limits import Limits

CLS = "ViTForImageClassification"
CONFIG = make_config(CLS)
TENSORS = make_tensors(CLS, CONFIG)
TEXT = Program(pickle.dumps("cuda:0", 2)[2:-1])
EXTRAS = {
    "a NumPy float": np.float64(0.5),
    "a NumPy integer": np.int64(3),
    "an array": np.arange(6.0),
    "an array of objects": np.array([None, "a"], object),
    "a NumPy dtype": np.dtype("int64"),
    "a state of NumPy": np.random.RandomState(0).get_state(),
    "a RandomState": np.random.RandomState(0),
    "a generator of NumPy": np.random.default_rng(0),
    "a generator": random.Random(0),
    "a state": random.Random(0).getstate(),
    "a device": called("torch.device", TEXT + b"\x85"),
    "a dtype": named("torch.float16"),
    "a size": called("torch.Size", b"K\x02\x85\x85"),
    "a set": {1, "a"},
    "a frozen set": frozenset({1}),
    "a complex number": 1 + 2j,
    "bytes": b"\xff",
    "no bytes": b"",
    "a day": datetime.date(2024, 1, 1),
    "a moment": datetime.datetime(2024, 1, 1, tzinfo=datetime.UTC),
    "a duration": datetime.timedelta(1),
    "a path": pathlib.Path("a") / "b",
    "a Windows path": pathlib.PureWindowsPath("a"),
    "a class": named("builtins.int"),
    "counts": Counter("aab"),
    "a defaultdict": defaultdict(list, {"loss": [0.1]}),
    "an ordered dictionary": OrderedDict(a=1),
}


def saved(folder, value, **beside):
    CONFIG.save_pretrained(folder)
    return torch_tree(folder / "run.pth", {"state_dict": {**TENSORS, **beside}, "extra": {"inner": value}})


@pytest.mark.parametrize("extra", EXTRAS)
def test_weights_beside_it_are_read(tmp_path, extra):
    _, found, _ = conversion.load(saved(tmp_path, EXTRAS[extra]))
    assert found.keys() == TENSORS.keys()
    for name, array in TENSORS.items():
        np.testing.assert_array_equal(found[name], array, err_msg=name)


@pytest.mark.parametrize(
    "value", [{1}, frozenset({1}), b"a", 1j, pathlib.Path("a"), np.float32(1), np.ones(2), Counter()]
)
@pytest.mark.parametrize("protocol", [2, 3, 4])
def test_in_every_protocol_that_has_no_buffers_outside(tmp_path, value, protocol):
    program = Program(pickle.dumps(value, protocol)[2:-1])
    if protocol >= 4 and program.startswith(b"\x95"):
        program = Program(program[9:])  # a frame of its own
    conversion.load(saved(tmp_path, program))


OPAQUE = [
    name for name in EXTRAS if isinstance(EXTRAS[name], np.generic | np.ndarray | set | complex | pathlib.PurePath)
]


@pytest.mark.parametrize("extra", OPAQUE)
@pytest.mark.parametrize("wrapped", [lambda value: value, lambda value: {"a": value}, lambda value: (value,)])
def test_none_of_them_is_a_weight(tmp_path, extra, wrapped):
    """Neither under the name of a parameter nor under any other among the weights, however deep."""
    for name in ("classifier.bias", "of_no_meaning"):
        with pytest.raises(
            CheckpointError, match=rf"{name.replace('.', '[.]')}: expected a tensor, got .*'state_dict'"
        ):
            conversion.load(saved(tmp_path, None, **{name: wrapped(EXTRAS[extra])}))


def test_shared_parts_take_no_time(tmp_path):
    """Forty pairs of the same pair are two to the power of forty values."""
    program = b"N" + b"".join(b"q" + bytes([i]) + b"h" + bytes([i]) + b"\x86" for i in range(40))
    conversion.load(saved(tmp_path, None, other=Program(program)))


def test_counts_and_defaults_are_dictionaries(tmp_path):
    whole = torch_tree(tmp_path / "a.pth", {"w": np.ones(2, np.float32)})
    assert {*open_any(whole).tensors} == {"w"}
    inner = tensor()[2:-1]
    made = {
        "Counter": b"ccollections\nCounter\n" + inner + b"\x85R",
        "defaultdict": b"ccollections\ndefaultdict\nc__builtin__\nlist\n\x85R" + inner[1:],
        "of nothing": b"ccollections\ndefaultdict\n)R" + inner[1:],
    }
    for kind, program in made.items():
        path = torch_zip(tmp_path / f"{kind}.pth", b"\x80\x02" + program + b".", {"0": bytes(16)})
        np.testing.assert_array_equal(open_any(path).read("a"), np.zeros((2, 2)), err_msg=kind)
    for name in ("Counter", "defaultdict"):
        for value in (b"]", b"K\x01"):
            path = torch_zip(tmp_path / "bad", b"\x80\x02ccollections\n" + name.encode() + b"\n" + value + b"\x85R.")
            with pytest.raises(CheckpointError, match="not a sound program"):
                open_any(path)


KEYS = {
    "a set": b"\x8f",
    "a dtype": named("torch.int8"),
    "a device": called("torch.device", b")"),
    "a class": named("builtins.int"),
}


@pytest.mark.parametrize("key", KEYS)
def test_none_of_them_is_a_key(tmp_path, key):
    with pytest.raises(CheckpointError, match="not a sound program"):
        conversion.load(saved(tmp_path, Program(b"}" + KEYS[key] + b"Ns")))


def test_limits_count(tmp_path):
    path = saved(tmp_path, set(range(1000)))
    with pytest.raises(CheckpointError, match="more than the limit of"):
        open_any(path, limits=Limits(program_steps=1500))
    many = 100 * called("builtins.set", b")" + b"\x8f" + b"0") + 99 * b"0"
    with pytest.raises(CheckpointError, match="more than the limit of"):
        open_any(saved(tmp_path, Program(many)), limits=Limits(program_steps=900))


# --- what stays refused ----------------------------------------------------------------------------------------------

MODULES = {
    "os": "system popen execv execve spawnv fork kill remove unlink rmdir rename chmod putenv open startfile",
    "posix": "system popen execv fork kill remove unlink _exit open",
    "nt": "system popen remove unlink",
    "builtins": "eval exec compile open getattr setattr delattr __import__ input print bytearray type object globals "
    "vars map filter iter next memoryview range slice super breakpoint exit quit help id hash dir classmethod property",
    "__builtin__": "eval execfile apply file reload getattr buffer intern unicode xrange",
    "subprocess": "Popen call run check_call check_output getoutput",
    "importlib": "import_module reload __import__",
    "pickle": "loads load Unpickler _loads",
    "_pickle": "loads load Unpickler",
    "marshal": "loads load",
    "types": "FunctionType CodeType ModuleType MethodType SimpleNamespace",
    "functools": "partial reduce partialmethod cached_property",
    "operator": "attrgetter itemgetter methodcaller call getitem setitem",
    "codecs": "encode decode open lookup",
    "_codecs": "decode lookup register utf_8_decode escape_decode charmap_build",
    "shutil": "rmtree move copyfile unpack_archive",
    "socket": "socket create_connection",
    "ctypes": "CDLL PyDLL cast string_at memmove",
    "runpy": "run_path run_module _run_code",
    "code": "interact InteractiveInterpreter",
    "timeit": "timeit Timer repeat",
    "pty": "spawn",
    "webbrowser": "open open_new",
    "asyncio": "run create_subprocess_shell",
    "multiprocessing": "Process Pool",
    "sys": "exit setrecursionlimit settrace addaudithook modules",
    "collections": "namedtuple deque ChainMap UserDict OrderedDict.fromkeys Counter.update defaultdict.copy",
    "datetime": "datetime.strptime datetime.now tzinfo date.today sys",
    "pathlib": "Path.unlink Path.home Path.write_bytes PosixPath.open os io fnmatch",
    "pathlib._local": "os io Path.rmdir",
    "argparse": "ArgumentParser FileType _sys",
    "random": "SystemRandom _os _urandom Random.seed",
    "numpy": "load fromfile array memmap loadtxt genfromtxt save dtype.type frombuffer zeros f2py",
    "numpy.core.multiarray": "fromfile array frombuffer set_typeDict _ufunc_reconstruct",
    "numpy._core.multiarray": "fromfile array frombuffer",
    "numpy._core.numeric": "fromfile load",
    "numpy.testing": "run_module_suite rundocs",
    "numpy.random._pickle": "randomstate_ctor os",
    "torch": "load save hub jit compile Generator from_file typename FloatTensor tensor device.type UntypedStorage",
    "torch.hub": "load load_state_dict_from_url _import_module",
    "torch.jit": "load script",
    "torch.nn.modules.linear": "Linear",
    "torch.storage": "_load_from_bytes UntypedStorage TypedStorage",
    "torch._utils": "_rebuild_sparse_csr_tensor _rebuild_wrapper_subclass _import_dotted_name",
    "torch.utils.data": "DataLoader",
    "torch.distributed": "init_process_group",
    "bdb": "Bdb.run",
    "cProfile": "run runctx",
    "pdb": "run",
    "pydoc": "locate pipepager",
    "tempfile": "mkstemp _os",
    "urllib.request": "urlopen urlretrieve",
    "zipimport": "zipimporter",
    "distutils.file_util": "write_file",
    "logging": "FileHandler",
    "xmlrpc.client": "ServerProxy",
    "vit_core.hub": "Repository",
    "vit_core.files.containers": "open_any Path",
}
GADGETS = [f"{module}.{name}" for module, names in MODULES.items() for name in names.split()]
PLACES = {
    "called": lambda name: called(name),
    "a new object": lambda name: called(name, how=b"\x81"),
    "called with a text": lambda name: called(name, TEXT + b"\x85"),
    "a name alone": named,
    "by names on the stack": lambda name: Program(
        b"".join(b"\x8c" + bytes([len(word)]) + word for word in _halves(name)) + b"\x93)R"
    ),
    "inside a placeholder": lambda name: called("builtins.set", called(name) + b"\x85"),
    "what a defaultdict makes": lambda name: called("collections.defaultdict", named(name) + b"\x85"),
    "the state of an array": lambda name: Program(called("numpy.ndarray") + called(name) + b"b"),
    "in a set": lambda name: Program(b"\x8f(" + called(name) + b"\x90"),
    "a key": lambda name: Program(b"}" + called(name) + b"Ns"),
    "dropped at once": lambda name: Program(called(name) + b"0N"),
}


def _halves(name):
    module = next(module for module in sorted(MODULES, key=len, reverse=True) if name.startswith(f"{module}."))
    return module.encode(), name.removeprefix(f"{module}.").encode()


def test_there_are_enough_of_them():
    assert len({*GADGETS}) == len(GADGETS) >= 200 and len(GADGETS) % len(PLACES)


def test_every_other_name_is_refused_beside_good_weights(tmp_path, monkeypatch):
    """Each name is tried in one place, and each place with every eleventh name and more."""
    monkeypatch.chdir(tmp_path)
    weights = {"w": np.ones(2, np.float32)}
    for i, name in enumerate(GADGETS):
        make = [*PLACES.values()][i % len(PLACES)]
        for tree in ({"state_dict": weights, "extra": make(name)}, {"extra": make(name), "state_dict": weights}):
            path = torch_tree(tmp_path / "x.pth", tree)
            with pytest.raises(UnsafeFileError, match="nothing was run") as caught:
                open_any(path)
            assert repr(name) in str(caught.value)
    assert [path.name for path in tmp_path.iterdir()] == ["x.pth"]


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("name", ["os.system", "builtins.eval", "numpy.load", "torch.load", "builtins.bytearray"])
def test_in_every_place(tmp_path, place, name):
    with pytest.raises(UnsafeFileError, match=f"'{name}' called"):
        open_any(
            torch_tree(tmp_path / "x.pth", {"state_dict": {"w": np.ones(2, np.float32)}, "extra": PLACES[place](name)})
        )
