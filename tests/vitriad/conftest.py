"""Data of short runs of training."""

import json

import numpy as np
import pytest


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """60 digits as arrays, and the configurations of small models."""
    from small_models import DECODER  # now: environments without a framework load this file too
    from small_runs import DIGITS, LEVELS, SMALL

    folder = tmp_path_factory.mktemp("data")
    np.savez(folder / "digits.npz", images=LEVELS[:60], labels=DIGITS.target[:60] % 3)
    (folder / "vit.json").write_text(json.dumps({"model_type": "vit", **SMALL}))
    mae = {"model_type": "vit_mae", **SMALL, **DECODER}
    (folder / "mae.json").write_text(json.dumps(mae))
    return folder
