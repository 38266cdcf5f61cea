"""What grows: batch, depth, memory, size of images, number of tensors in a file; each beside a floor that grows too.

A ratio to the floor that rises from case to case is time that grows faster than the arithmetic.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Any

from benchmarks.contenders import Contender, Group
from benchmarks.contenders.forward import Calls, sizes
from benchmarks.contenders.preprocessing import photographs
from benchmarks.contenders.products import Product, floor, of_layers

BATCHES, DEPTHS, SIDES, TENSORS = (1, 4, 16, 64), (2, 6, 12, 24), (256, 512, 1024, 2048), (100, 1_000, 10_000)
Sized = Callable[[bool], dict[str, tuple[int, int]]]  # whether sizes are tiny -> case -> batch and layers


def batches(tiny: bool) -> dict[str, tuple[int, int]]:
    return {f"batch {batch}": (batch, 2) for batch in BATCHES[: 2 if tiny else None]}


def depths(tiny: bool) -> dict[str, tuple[int, int]]:
    return {f"{layers} layers": (1, layers) for layers in DEPTHS[: 2 if tiny else None]}


def small(tiny: bool) -> dict[str, int]:
    """ViT-S, so that many layers and large batches fit."""
    return sizes(tiny) | ({} if tiny else {"hidden_size": 384, "num_attention_heads": 6, "intermediate_size": 1536})


def products(cases: Sized, tiny: bool) -> dict[str, list[Product]]:
    hidden, _, heads, mlp, side, patch = small(tiny).values()
    tokens = (side // patch) ** 2 + 1
    return {case: of_layers(batch, tokens, hidden, mlp, heads, layers) for case, (batch, layers) in cases(tiny).items()}


def forward(package: str, prefix: str, cases: Sized, folder: Path, tiny: bool) -> Calls:
    import numpy as np

    module, calls, side = import_module(package), {}, sizes(tiny)["image_size"]
    for case, (batch, layers) in cases(tiny).items():
        model = getattr(module, f"{prefix}ViTModel")(module.ViTConfig(**{**small(tiny), "num_hidden_layers": layers}))
        if package == "vit_torch":
            model.eval().requires_grad_(False)
        images = np.ones((batch, 3, side, side), np.float32)
        calls[case] = lambda model=model, images=images: np.asarray(model(images)[0])
    return calls


def tokens(tiny: bool) -> dict[str, int]:
    """Case -> side of an image."""
    sides = (32, 64) if tiny else (224, 448, 640, 1024)
    return {f"{(side // sizes(tiny)['patch_size']) ** 2 + 1:,} tokens, memory": side for side in sides}


def activations(folder: Path, tiny: bool) -> Calls:
    """The floor: what a layer has to hold at a time, bytes: what enters, its norm, query, key, value, and the MLP's."""
    hidden, _, _, mlp, _, patch = small(tiny).values()
    each = 4 * (5 * hidden + mlp)
    return {case: lambda side=side: ((side // patch) ** 2 + 1) * each for case, side in tokens(tiny).items()}


def holding(package: str, prefix: str, folder: Path, tiny: bool) -> Calls:
    """The most that the process took until a call was done, beyond what it held before its first one, bytes.

    Cases rise. Frameworks keep what they have once taken, so that calls cannot be told apart in another order.
    """
    import numpy as np

    module, calls = import_module(package), {}

    def run(model: Any, images: Any) -> int:
        np.asarray(model(images)[0])
        return memory("VmHWM") - before

    for case, side in tokens(tiny).items():
        fields = {**small(tiny), "num_hidden_layers": 2, "image_size": side, "attn_implementation": "sdpa"}
        model = getattr(module, f"{prefix}ViTModel")(module.ViTConfig(**fields))
        if package == "vit_torch":
            model.eval().requires_grad_(False)
        calls[case] = partial(run, model, np.ones((1, 3, side, side), np.float32))
    Path("/proc/self/clear_refs").write_text("5")  # the peak is what is held now
    before = memory("VmRSS")
    return calls


def memory(field: str) -> int:
    """Bytes, of this process."""
    return 1024 * int(Path("/proc/self/status").read_text().partition(f"{field}:")[2].split()[0])


def pictures(tiny: bool) -> dict[str, Any]:
    return {f"{side} x {side}": photographs(1, side, side)[0] for side in SIDES[: 2 if tiny else None]}


def resizing(folder: Path, tiny: bool) -> Calls:
    from PIL import Image

    filtered = Image.Resampling.BILINEAR
    return {case: partial(image.resize, (224, 224), filtered) for case, image in pictures(tiny).items()}


def processing(folder: Path, tiny: bool) -> Calls:
    process = import_module("vit_core").ViTImageProcessor()
    return {case: partial(process, image, return_tensors="np") for case, image in pictures(tiny).items()}


def prepare(folder: Path, tiny: bool) -> None:
    import numpy as np
    from safetensors.numpy import save_file

    for count in TENSORS[: 2 if tiny else None]:
        each = {f"layer.{i}.weight": np.ones(2**24 // count, np.float32) for i in range(count)}
        save_file(each, folder / f"{count}.safetensors")


def files(folder: Path, tiny: bool) -> dict[str, Path]:
    return {f"{count:,} tensors": folder / f"{count}.safetensors" for count in TENSORS[: 2 if tiny else None]}


def reading(folder: Path, tiny: bool) -> Calls:
    return {case: path.read_bytes for case, path in files(folder, tiny).items()}


def opening(folder: Path, tiny: bool) -> Calls:
    """Every tensor, copied."""
    open_any = import_module("vit_core.files.containers").open_any

    def run(path: Path) -> None:
        for tensor in open_any(path).tensors.values():
            tensor.read().copy()

    return {case: partial(run, path) for case, path in files(folder, tiny).items()}


PACKAGES = {"vit_torch": "", "vit_tf": "TF", "vit_flax": "Flax"}


def of_models(title: str, cases: Sized) -> Group:
    ours = {name: Contender(partial(forward, name, prefix, cases), "ours") for name, prefix in PACKAGES.items()}
    by_torch = Contender(floor("torch", partial(products, cases)), "floor")
    return Group(title, {"matrix products, torch": by_torch, **ours}, is_asked_for=True)


GROUPS = {
    "growth-batch": of_models("Two layers of ViT-S over larger batches, float32", batches),
    "growth-depth": of_models("More layers of ViT-S, batch 1, float32", depths),
    "growth-memory": Group(
        "Memory of a call with two layers of ViT-S over more tokens, sdpa",
        {
            "activations of a layer, by arithmetic": Contender(activations, "floor"),
            **{name: Contender(partial(holding, name, prefix), "ours") for name, prefix in PACKAGES.items()},
        },
        is_fresh=True,
        is_asked_for=True,
    ),
    "growth-images": Group(
        "The image processor on larger images",
        {
            "Pillow's bare resize": Contender(resizing, "floor"),
            "ViTImageProcessor": Contender(processing, "ours"),
        },
        is_asked_for=True,
    ),
    "growth-tensors": Group(
        "64 MB in a safetensors file, in more tensors",
        {"reading the file": Contender(reading, "floor"), "vit_core": Contender(opening, "ours")},
        prepare,
        is_asked_for=True,
    ),
}
