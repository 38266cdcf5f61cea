"""What is chosen or said does not depend on the seed of Python's hashes, in which sets of strings are ordered."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from safetensors.numpy import load_file, save_file

ROOT = Path(__file__).parents[2]
SEEDS = range(4)
PROGRAM = """
import logging, sys
logging.basicConfig(format="%(message)s", stream=sys.stdout, level="INFO")
import conversion
from vit_core.config import AutoConfig, ViTConfig, ViTMAEConfig
from vit_core.images.processor import ViTImageProcessor
from vit_core.errors import VitError

folder = sys.argv[1]

def said(call):
    try:
        return call()
    except VitError as error:
        return f"{type(error).__name__}: {error}"

"""
SAYINGS = {
    "notes of a load": 'conversion.load(f"{folder}/timm.safetensors", num_attention_heads=3)[2]',
    "keywords refused": 'conversion.load_pretrained(folder, "ViTModel", dict(device_map=1, mirror=1, proxies=1))',
    "keywords unknown": 'conversion.load_pretrained(folder, "ViTModel", dict(fooo=1, barr=2, hidden_sise=3))',
    "options refused": "conversion.load(folder, device_map=1, strict=1, proxies=1, dtype=2)",
    "fields refused": 'ViTConfig(hidden_size="a", qkv_bias=2, image_size=-1, dtype="int8", hidden_sise=1)',
    "keys of others": 'ViTConfig(layerdrop=0.5, pool="mean", reg_tokens=4, use_rope=True, hidden_droput=1)',
    "keys of a file": "ViTConfig.from_dict(dict(hidden_droput=1, image_sise=2, num_atention_heads=3)).extra",
    "labels": 'ViTConfig(id2label={"0": "a", "2": "b", "3": "c"}, label2id={"a": 1, "b": 9})',
    "overrides unknown": "ViTConfig.from_dict({}, fooo=1, barr=2, bazz=3)",
    "a class of several": 'ViTMAEConfig(hidden_size=18, decoder_hidden_size=40, architectures=["ViTModel"])',
    "options of a processor": "ViTImageProcessor(do_pad=True, do_flip=True, do_thumbnail=True)",
}  # fmt: skip


@pytest.fixture
def folder(tmp_path):
    """A folder with a checkpoint of timm that holds parts to leave out for several reasons."""
    tensors = load_file(ROOT / "tests/golden/foreign/timm_vit_safetensors/model.safetensors")
    left_out = {"head.0.num_batches_tracked": 1, "head.mlp.0.weight": 2, "dino_head.mlp.0.bias": 3}
    some = next(iter(tensors.values()))
    save_file({**tensors, **{name: some[:1].copy() for name in left_out}}, tmp_path / "timm.safetensors")
    return tmp_path


def run(program, folder, seed):
    environment = {**os.environ, "PYTHONHASHSEED": str(seed), "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-c", PROGRAM + program, str(folder)]
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout


def test_what_is_said_is_the_same_for_every_seed(folder):
    program = "\n".join(f"print({what!r}, said(lambda: {call}), sep=': ')" for what, call in SAYINGS.items())
    first, *others = (run(program, folder, seed) for seed in SEEDS)
    assert others == [first] * len(others)
    for part in (*SAYINGS, "a counter of training", "a projection head of training", "delete mirror=", "'barr'"):
        assert part in first


def test_the_seeds_do_order_sets_differently(folder):
    assert len({run("print([*{'a', 'b', 'c', 'd', 'e', 'f'}])", folder, seed) for seed in SEEDS}) > 1
