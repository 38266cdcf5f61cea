"""What every backend promises is written once here, and run for each that is installed."""

import pytest
from backends import INSTALLED, adapters
from small_models import FIELDS


@pytest.fixture(params=adapters(), ids=INSTALLED, scope="module")
def backend(request):
    return request.param


@pytest.fixture(params=FIELDS)
def name(request) -> str:
    return request.param


@pytest.fixture(autouse=True)
def strict(request):
    if "backend" not in request.fixturenames:
        yield
        return
    with request.getfixturevalue("backend").strict():
        yield
