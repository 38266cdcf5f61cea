"""What a call holds at a time, and what it leaves to the next one."""

import subprocess
import sys

import numpy as np
import pytest
import torch
from live_memory import peak_of

from vit_core import ViTConfig
from vit_torch import ViTModel

SIZES = {"hidden_size": 64, "num_attention_heads": 2, "intermediate_size": 256, "image_size": 64, "patch_size": 8}
TOKENS, IMAGES = 65, 4


def peak_of_call(layers):
    config = ViTConfig(**SIZES, num_hidden_layers=layers)
    model = ViTModel(config).eval()
    with torch.inference_mode(), peak_of() as peak:
        model(np.zeros((IMAGES, 3, 64, 64), np.float32))
    return peak[0]


def test_memory_of_a_call_does_not_grow_with_the_layers():
    assert peak_of_call(9) == peak_of_call(3)


def test_a_layer_holds_its_widest_step_and_little_else():
    wide, narrow = SIZES["intermediate_size"], SIZES["hidden_size"]
    features = 2 * wide + 4 * narrow  # in front of the activation and behind it; residuals
    assert peak_of_call(3) <= 4 * IMAGES * (TOKENS * features + 3 * 64 * 64)


ASKED = """
import ctypes, torch
from vit_torch import ViTConfig, ViTModel

NAMES = "arena ordblks smblks hblks hblkhd usmblks fsmblks uordblks fordblks keepcost".split()

class Info(ctypes.Structure):
    _fields_ = [(name, ctypes.c_size_t) for name in NAMES]

mallinfo = ctypes.CDLL(None).mallinfo2
mallinfo.restype = Info

def from_the_system():
    before = mallinfo().hblks
    block = torch.empty(20_000_000, dtype=torch.uint8)
    return mallinfo().hblks - before

{first}
print(from_the_system())
"""


if sys.platform == "linux":  # whose glibc says where memory comes from

    @pytest.mark.parametrize(
        ("first", "blocks"), [("", 1), (f"ViTModel(ViTConfig(**{SIZES}, num_hidden_layers=1))", 0)]
    )
    def test_large_results_come_from_memory_that_is_kept(first, blocks):
        asked = [sys.executable, "-W", "ignore", "-c", ASKED.format(first=first)]
        assert int(subprocess.run(asked, capture_output=True, text=True, check=True).stdout) == blocks
