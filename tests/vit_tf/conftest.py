"""What the tests of this backend share."""

import pytest
from tf_models import FIELDS


@pytest.fixture(params=FIELDS)
def name(request) -> str:
    return request.param
