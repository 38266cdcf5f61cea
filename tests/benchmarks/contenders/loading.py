"""Loading ViT-L/16 (304 million parameters) in a new process that has imported its framework: time, and peak memory."""

from __future__ import annotations

from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Any

from benchmarks.contenders import Contender, Group, without_other_frameworks
from benchmarks.contenders.forward import Calls, sizes

LARGE = {"hidden_size": 1024, "num_hidden_layers": 24, "num_attention_heads": 16, "intermediate_size": 4096}


def prepare(folder: Path, tiny: bool) -> None:
    import vit_torch

    config = vit_torch.ViTConfig(**{**sizes(tiny), **({} if tiny else LARGE)}, num_labels=1000)
    vit_torch.ViTForImageClassification(config).save_pretrained(folder / "model")


def peak() -> int:
    """Bytes: the most that this process has held so far."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return 1024 * int(next(line.split()[1] for line in lines if line.startswith("VmHWM")))


def reading(folder: Path, tiny: bool) -> Calls:
    """The floor: the bytes of the file, and memory for them alone."""
    file = folder / "model" / "model.safetensors"

    def read() -> None:
        file.read_bytes()

    return {"time": read, "peak memory": lambda: file.stat().st_size}


def loading(package: str, prefix: str, folder: Path, tiny: bool) -> Calls:
    if not prefix:
        without_other_frameworks()
    cls = getattr(import_module(package), f"{prefix}ViTForImageClassification")
    if prefix == "TF":
        import_module("tensorflow").constant(0.0)  # starts the runtime
    if prefix == "Flax":
        import_module("jax").numpy.zeros(1).block_until_ready()
    kept: list[Any] = []

    def load() -> None:
        kept.append(cls.from_pretrained(folder / "model"))
        if prefix == "Flax":
            import_module("jax").block_until_ready(kept[0].params)

    return {"time": load, "peak memory": peak}


GROUPS = {
    "loading": Group(
        "Loading ViT-L/16, float32, from safetensors; ours checks digests",
        {
            "reading the file": Contender(reading, "floor"),
            "vit_torch": Contender(partial(loading, "vit_torch", ""), "ours"),
            "vit_tf": Contender(partial(loading, "vit_tf", "TF"), "ours"),
            "vit_flax": Contender(partial(loading, "vit_flax", "Flax"), "ours"),
            "transformers 4.57.6, torch": Contender(partial(loading, "transformers", ""), "peer", "vit_torch", "hf4"),
            "transformers 5.24.0, torch": Contender(partial(loading, "transformers", ""), "peer", "vit_torch", "hf5"),
            "transformers 4.57.6, TF": Contender(partial(loading, "transformers", "TF"), "peer", "vit_tf", "hf4"),
            "transformers 4.57.6, Flax": Contender(partial(loading, "transformers", "Flax"), "peer", "vit_flax", "hf4"),
        },
        prepare,
        is_fresh=True,
    )
}
