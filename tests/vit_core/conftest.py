"""What the tests of the core share."""

import pytest

from vit_core.config import ViTConfig, ViTMAEConfig


@pytest.fixture(params=[ViTConfig, ViTMAEConfig], ids=lambda config_class: config_class.__name__)
def config_class(request):
    return request.param
