"""What the tests of this backend share: JAX as strict as it can be."""

import jax
import pytest
from flax_models import BACKEND, FIELDS


@pytest.fixture(autouse=True)
def strict():
    with BACKEND.strict():
        yield


@pytest.fixture(params=FIELDS)
def name(request) -> str:
    return request.param


@pytest.fixture(autouse=True, scope="module")
def tidy():
    """Compiled code is dropped after each file: it takes gigabytes."""
    yield
    jax.clear_caches()
