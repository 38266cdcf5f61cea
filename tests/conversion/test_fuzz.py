"""Thousands of damaged files of every container: each one loads or is a CheckpointError, and nothing else happens."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from conversion_fuzzing import EACH, KINDS, SEEDS

SCRIPT = Path(__file__).parents[1] / "conversion_fuzzing.py"


def test_there_are_enough():
    assert len(SEEDS) * len(KINDS) * EACH >= 5000 and len(KINDS) >= 8


@pytest.mark.every_day("[torch]", "npz", "safetensors")
@pytest.mark.parametrize("seed", SEEDS)
def test_every_mutant_loads_or_is_refused(seed):
    done = subprocess.run([sys.executable, SCRIPT, seed], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]  # negative: the process was killed by a signal
    found = json.loads(done.stdout)
    assert found["sound"] == "loaded" and found["wrong"] == [] and found["forbidden"] == []
    assert found["loaded"] + found["refused"] == len(KINDS) * EACH
    assert found["refused"] > EACH and found["peak_kb"] < 150_000


FAULTS = {  # planted in a reader -> what the harness reports
    "raise KeyError('x')": "KeyError",
    "bytearray(10**7)": "bytes of memory",
    "import numpy; numpy.empty(10**7, bool)": "bytes of memory",  # which is never touched
    "import os; os.system('true')": "os.system",
}


@pytest.mark.parametrize("fault", FAULTS)
def test_the_harness_can_fail(fault):
    code = (
        "import sys; sys.path.insert(0, sys.argv[1])\n"
        "import conversion_fuzzing as fuzzing\n"
        "from vit_core.files import msgpack\n"
        "sound = msgpack.read\n"
        f"def read(path, content, limits):\n    {fault}\n    return sound(path, content, limits)\n"
        "msgpack.read = read\n"
        "fuzzing.EACH = 1\n"
        "fuzzing.main('msgpack')\n"
    )
    done = subprocess.run([sys.executable, "-c", code, SCRIPT.parent], capture_output=True, text=True, check=True)
    found = json.loads(done.stdout)
    assert FAULTS[fault] in found["sound"] or FAULTS[fault] in found["forbidden"]
