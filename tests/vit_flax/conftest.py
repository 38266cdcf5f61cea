"""What the tests of this backend share: JAX as strict as it can be."""

import os

# Most of the time goes into compiling, of which most goes into optimising.
os.environ["XLA_FLAGS"] = (
    f"{os.environ.get('XLA_FLAGS', '')} --xla_backend_optimization_level=0 --xla_llvm_disable_expensive_passes=true"
)

import jax
import pytest
from flax_models import FIELDS


@pytest.fixture(autouse=True)
def strict():
    """Nothing is promoted silently, in rank or in dtype."""
    with jax.numpy_rank_promotion("raise"), jax.numpy_dtype_promotion("strict"):
        yield


@pytest.fixture(params=FIELDS)
def name(request) -> str:
    return request.param


@pytest.fixture(autouse=True, scope="module")
def tidy():
    """Compiled code is dropped after each file: it takes gigabytes."""
    yield
    jax.clear_caches()
