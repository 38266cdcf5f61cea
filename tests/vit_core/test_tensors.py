"""Arrays at the border: recognised without an import, copied without a change, refused by name."""

import enum
import subprocess
import sys

import ml_dtypes
import numpy as np
import pytest
import torch

from vit_core import tensors
from vit_core.errors import BackendError, InputError
from vit_core.installing import install_command
from vit_core.tensors import FLOAT_DTYPES, dtype_name, framework_of, from_numpy, missing_backend, to_numpy


class Tensors(enum.Enum):
    PYTORCH = "pt"
    NUMPY = "np"


def lookalike(module):
    return type("Tensor", (), {"__module__": module})()


@pytest.mark.parametrize(
    ("value", "name"),
    [
        (np.ones(2), "np"),
        (np.float32(1), "np"),
        (torch.ones(2), "pt"),
        (torch.nn.Parameter(torch.ones(2)), "pt"),
        (lookalike("tensorflow.python.framework.ops"), "tf"),
        (lookalike("jaxlib._jax"), "jax"),
        (lookalike("jax._src.core"), "jax"),
        (lookalike("torchvision.tv_tensors"), None),
        (lookalike("jaxtyping"), None),
        ([1.0], None),
        (None, None),
        (torch, None),
    ],
)
def test_tensors_are_recognised_by_the_module_of_their_type(value, name):
    assert framework_of(value) == name


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32", "float64", "int64", "uint8", "bool"])
def test_torch_tensors_come_out_with_their_values_and_dtype(dtype):
    values = torch.tensor([[0, 1], [1, 0]]).to(getattr(torch, dtype))
    for tensor in (values, values.T, torch.nn.Parameter(values) if values.is_floating_point() else values[:, :1]):
        array = to_numpy(tensor)
        assert array.dtype == np.dtype(FLOAT_DTYPES.get(dtype, dtype))
        np.testing.assert_array_equal(array.astype(np.float64), tensor.detach().double().numpy())
    assert np.shares_memory(to_numpy(values), to_numpy(values))


def test_tensorflow_and_jax_tensors_are_asked_for_their_array():
    array = np.ones(3, ml_dtypes.bfloat16)
    tensorflow, jax = lookalike("tensorflow.python.framework.ops"), lookalike("jaxlib._jax")
    tensorflow.numpy = lambda: array
    type(jax).__array__ = lambda self, dtype=None, copy=None: array
    assert to_numpy(tensorflow) is array
    assert to_numpy(jax) is array


def test_lists_and_arrays_come_out_as_arrays():
    array = np.ones(3, ml_dtypes.bfloat16)
    assert to_numpy(array) is array
    np.testing.assert_array_equal(to_numpy([[1, 2]]), [[1, 2]])


@pytest.mark.parametrize("name", ["pt", Tensors.PYTORCH])
def test_arrays_become_torch_tensors(name):
    array = np.arange(6, dtype=np.float32).reshape(2, 3)
    tensor = from_numpy(array, name)
    assert type(tensor) is torch.Tensor
    np.testing.assert_array_equal(tensor.numpy(), array)
    assert from_numpy(array, "np") is array is from_numpy(array, Tensors.NUMPY)


@pytest.mark.parametrize("name", ["mlx", "torch", "", None, 3, "PT"])
def test_names_of_frameworks_refused(name):
    with pytest.raises(InputError) as caught:
        from_numpy(np.ones(1), name)
    assert str(caught.value) == f"return_tensors: expected one of np, pt, tf, jax, got {name!r}."


@pytest.mark.parametrize(("name", "extra"), [("pt", "torch"), ("tf", "tf"), ("jax", "flax")])
def test_a_framework_that_is_missing_says_how_to_get_it(name, extra, monkeypatch):
    def absent(module):
        raise ModuleNotFoundError(f"No module named {module!r}")

    monkeypatch.setattr(tensors, "import_module", absent)
    with pytest.raises(BackendError) as caught:
        from_numpy(np.ones(1), name)
    assert isinstance(caught.value, ImportError)
    assert str(caught.value) == str(missing_backend(extra, f"return_tensors={name!r}"))
    assert str(caught.value).endswith(f"Install it with: {install_command(extra)}")


DTYPES = {
    "float16": ["float16", "half", "fp16", "torch.float16", torch.float16, torch.half, np.float16, np.dtype("<f2")],
    "bfloat16": ["bfloat16", "bf16", "torch.bfloat16", torch.bfloat16, ml_dtypes.bfloat16, FLOAT_DTYPES["bfloat16"]],
    "float32": ["float32", "float", "torch.float32", torch.float32, torch.float, np.float32, np.dtype("f4"), np.single],
    "float64": [
        "float64",
        "double",
        "torch.double",
        torch.float64,
        torch.double,
        np.float64,
        np.dtype(float),
        np.double,
    ],
}


@pytest.mark.parametrize("name", DTYPES)
def test_dtypes_have_one_name(name):
    assert {dtype_name(dtype) for dtype in DTYPES[name]} == {name}
    tensorflow = type("DType", (), {"__module__": "tensorflow.python.framework.dtypes", "name": name})()
    jax = type(name, (), {"__module__": "jax.numpy", "__name__": name})
    assert dtype_name(tensorflow) == dtype_name(jax) == name


@pytest.mark.parametrize(
    "dtype", ["int8", "float8_e4m3fn", "", "auto", torch.int64, np.int32, int, float, bool, None, 3]
)
def test_dtypes_refused(dtype):
    with pytest.raises(InputError) as caught:
        dtype_name(dtype)
    assert str(caught.value) == f"dtype: expected one of float16, bfloat16, float32, float64, got {dtype!r}."


def test_a_framework_is_imported_when_its_tensors_are_asked_for_and_not_before():
    code = (
        "import sys, numpy as np\n"
        "from vit_core.tensors import from_numpy, dtype_name\n"
        "from_numpy(np.ones(1), 'np'); dtype_name('torch.float16')\n"
        "before = 'torch' in sys.modules\n"
        "from_numpy(np.ones(1), 'pt')\n"
        "print(before, 'torch' in sys.modules)\n"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.split() == ["False", "True"]
