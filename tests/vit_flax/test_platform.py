"""A platform that is not there: one line, in Python and on the command line."""

import os
import subprocess
import sys

import pytest

from vitriad import models

CODE = """
from vit_core import BackendError, ViTConfig
from vit_flax import FlaxViTModel
sizes = dict(hidden_size=8, num_hidden_layers=1, num_attention_heads=2, intermediate_size=8, image_size=8, patch_size=4)
for options in ({}, {"_do_init": False}):
    try:
        FlaxViTModel(ViTConfig(**sizes), **options)
    except BackendError as error:
        print(error)
"""
LINE = "backend='flax': JAX has no device to run on: Unable to initialize backend 'nowhere'"


@pytest.mark.parametrize(
    "words",
    [["-c", CODE], ["-m", "vitriad", "classify", "--backend", "flax", str(models.digit_files()[0])]],
    ids=["python", "command"],
)
def test_a_platform_that_is_not_there(words):
    environment = {**os.environ, "JAX_PLATFORMS": "nowhere"}
    done = subprocess.run([sys.executable, *words], env=environment, capture_output=True, text=True, check=False)
    said = [line for line in (done.stdout + done.stderr).splitlines() if "nowhere" in line]
    assert len(said) == (2 if "-c" in words else 1) and all(LINE in line for line in said)
    assert "Traceback" not in done.stderr
