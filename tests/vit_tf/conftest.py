"""What the tests of this backend share."""

import os
import tempfile

os.environ.setdefault("KERAS_HOME", tempfile.mkdtemp())  # Keras reads its settings from there, and writes them

import pytest
from tf_models import FIELDS


@pytest.fixture(params=FIELDS)
def name(request) -> str:
    return request.param
