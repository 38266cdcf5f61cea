"""Forward passes of ViT-B/16: batches of 1 and 8, and encoders of two layers over growing numbers of tokens."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Any

from benchmarks.contenders import Contender, Group, without_other_frameworks
from benchmarks.contenders.products import Product, floor, of_layers

Calls = dict[str, Callable[[], Any]]
BATCHES = (1, 8)
SIDES = (224, 448, 640, 1024)  # pixels: 196, 784, 1,600 and 4,096 patches


def sizes(tiny: bool) -> dict[str, int]:
    """Fields of a configuration, as all programs that know one call them."""
    names = ("hidden_size", "num_hidden_layers", "num_attention_heads", "intermediate_size", "image_size", "patch_size")
    return dict(zip(names, (48, 2, 3, 96, 32, 16) if tiny else (768, 12, 12, 3072, 224, 16), strict=True))


def config(package: str, tiny: bool) -> Any:
    return import_module(package).ViTConfig(**sizes(tiny), num_labels=1000)


def shapes(tiny: bool) -> dict[str, tuple[int, int, int, int]]:
    side = sizes(tiny)["image_size"]
    return {f"batch {batch}": (batch, 3, side, side) for batch in BATCHES}


def products(tiny: bool) -> dict[str, list[Product]]:
    hidden, layers, heads, mlp, side, patch = sizes(tiny).values()
    patches, pixels = (side // patch) ** 2, 3 * patch**2
    return {
        f"batch {batch}": [
            (1, (batch * patches, pixels), (pixels, hidden)),
            *of_layers(batch, patches + 1, hidden, mlp, heads, layers),
        ]
        for batch in BATCHES
    }


def by_torch(package: str, folder: Path, tiny: bool) -> Calls:
    import torch

    without_other_frameworks()
    if package == "timm":
        from timm.models import VisionTransformer

        hidden, layers, heads, mlp, side, patch = sizes(tiny).values()
        widths = {"embed_dim": hidden, "depth": layers, "num_heads": heads, "mlp_ratio": mlp / hidden}
        model = VisionTransformer(img_size=side, patch_size=patch, **widths).eval()
    else:
        model = import_module(package).ViTForImageClassification(config(package, tiny)).eval()

    def run(images: Any) -> None:
        with torch.inference_mode():
            model(images)

    return {case: partial(run, torch.randn(shape)) for case, shape in shapes(tiny).items()}


def by_tensorflow(package: str, in_graph: bool, folder: Path, tiny: bool) -> Calls:
    import tensorflow as tf

    model = import_module(package).TFViTForImageClassification(config(package, tiny))
    call: Any = lambda images: model(images, training=False).logits  # noqa: E731 - a function either way
    run = tf.function(call) if in_graph else call
    return {case: partial(run, tf.random.normal(shape)) for case, shape in shapes(tiny).items()}


def by_flax(package: str, in_jit: bool, folder: Path, tiny: bool) -> Calls:
    import jax

    model = import_module(package).FlaxViTForImageClassification(config(package, tiny))
    compiled = jax.jit(lambda params, images: model(images, params=params).logits)

    def run(images: Any) -> None:
        (compiled(model.params, images) if in_jit else model(images).logits).block_until_ready()

    return {case: partial(run, jax.random.normal(jax.random.key(0), shape)) for case, shape in shapes(tiny).items()}


def by_engine(to: str, folder: Path, tiny: bool) -> Calls:
    """Our model as a program, in the engine; written without a certificate, since others test what it computes."""
    import numpy as np

    import vit_torch
    from vit_core.programs import settle
    from vit_torch.exporting import export_program
    from vitriad.engines import ENGINES, open_program

    ours, side = config("vit_torch", tiny), sizes(tiny)["image_size"]
    program = settle("ViTForImageClassification", ours, purpose="logits", size=(side, side))
    folder = folder / to
    folder.mkdir()
    export_program(vit_torch.ViTForImageClassification(ours), folder / ENGINES[to].file, to, program)
    run = open_program(folder, to, ["pixel_values"], ["logits"], None)
    return {case: partial(run, {"pixel_values": np.ones(shape, np.float32)}) for case, shape in shapes(tiny).items()}


def growing_products(tiny: bool) -> dict[str, list[Product]]:
    hidden, _, heads, mlp, _, patch = sizes(tiny).values()
    tokens = {side: (side // patch) ** 2 + 1 for side in SIDES}
    return {f"{count} tokens": of_layers(1, count, hidden, mlp, heads, 2) for count in tokens.values()}


def growing(package: str, prefix: str, folder: Path, tiny: bool) -> Calls:
    import numpy as np

    module, calls = import_module(package), {}
    for case, side in zip(growing_products(tiny), SIDES, strict=True):
        fields = {**sizes(tiny), "num_hidden_layers": 2, "image_size": side, "attn_implementation": "sdpa"}
        model = getattr(module, f"{prefix}ViTModel")(module.ViTConfig(**fields))
        if package == "vit_torch":
            model.eval().requires_grad_(False)
        images = np.ones((1, 3, side, side), np.float32)
        calls[case] = lambda model=model, images=images: np.asarray(model(images)[0])
    return calls


GROUPS = {
    "torch": Group(
        "Forward pass of ViT-B/16 in PyTorch, float32",
        {
            "matrix products, torch": Contender(floor("torch", products), "floor"),
            "vit_torch": Contender(partial(by_torch, "vit_torch"), "ours"),
            "transformers 4.57.6": Contender(partial(by_torch, "transformers"), "peer", "vit_torch", "hf4"),
            "transformers 5.24.0": Contender(partial(by_torch, "transformers"), "peer", "vit_torch", "hf5"),
            "timm 1.0.31": Contender(partial(by_torch, "timm"), "peer", "vit_torch", "timm"),
            "onnxruntime, our export": Contender(partial(by_engine, "onnx"), "peer", "vit_torch"),
            "OpenVINO, our export": Contender(partial(by_engine, "openvino"), "peer", "vit_torch"),
        },
    ),
    "tf": Group(
        "Forward pass of ViT-B/16 in TensorFlow, float32",
        {
            "matrix products, torch": Contender(floor("torch", products), "floor"),
            "matrix products, TensorFlow": Contender(floor("TensorFlow", products), "floor"),
            "vit_tf, a call": Contender(partial(by_tensorflow, "vit_tf", False), "ours"),
            "transformers 4.57.6, a call": Contender(
                partial(by_tensorflow, "transformers", False), "peer", "vit_tf, a call", "hf4"
            ),
            "transformers 4.57.6, in tf.function": Contender(
                partial(by_tensorflow, "transformers", True), "peer", "vit_tf, a call", "hf4"
            ),
        },
    ),
    "flax": Group(
        "Forward pass of ViT-B/16 in JAX, float32",
        {
            "matrix products, torch": Contender(floor("torch", products), "floor"),
            "matrix products, XLA": Contender(floor("XLA", products), "floor"),
            "vit_flax, a call": Contender(partial(by_flax, "vit_flax", False), "ours"),
            "transformers 4.57.6, a call": Contender(
                partial(by_flax, "transformers", False), "peer", "vit_flax, a call", "hf4"
            ),
            "transformers 4.57.6, in jax.jit": Contender(
                partial(by_flax, "transformers", True), "peer", "vit_flax, a call", "hf4"
            ),
        },
    ),
    "growth": Group(
        "Two layers of ViT-B over more tokens, batch 1, float32",
        {
            "matrix products, torch": Contender(floor("torch", growing_products), "floor"),
            "vit_torch": Contender(partial(growing, "vit_torch", ""), "ours"),
            "vit_tf": Contender(partial(growing, "vit_tf", "TF"), "ours"),
            "vit_flax": Contender(partial(growing, "vit_flax", "Flax"), "ours"),
        },
        is_asked_for=True,
    ),
}
