"""Trains a small ViT and a small ViTMAE from scratch: on handwritten digits, or on a folder of your own pictures.

    pip install -e '.[torch]' scikit-learn
    python docs/examples/train_digits.py --output out
    python docs/examples/train_digits.py --output out --images photos --image-size 64 --patch-size 8

`photos` has one sub-folder of pictures per class. The results, OUTPUT/vit and OUTPUT/vit-mae, load with from_pretrained
in every backend, and `vitriad classify --model OUTPUT/vit` uses the first.

One image in five is held out and looked at once, after training; split.json beside the weights says which. Ctrl-C is
safe: every finished epoch is on disk, and --resume goes on from it to the very weights of a run that was never stopped.
"""

import argparse
import json
import math
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor
from tqdm import tqdm

from vit_core import ViTConfig, ViTImageProcessor, ViTMAEConfig, open_image
from vit_core.masking import noise
from vit_core.parameters import draw
from vit_torch import ViTForImageClassification, ViTMAEForPreTraining

SPLIT_RULE = "Held out: the fifth of the images with the least vit_core.masking.noise(seed=0, batch=1, patches=images)."
BICUBIC = 3
BATCH, RATE, WEIGHT_DECAY, WARMUP, CLIP = 64, 3e-3, 0.05, 0.05, 1.0  # WARMUP: share of the steps; CLIP: gradient norm
TURN, SHIFT, ZOOM = 6.0, 0.06, 0.06  # largest augmentation: degrees, share of the side, share of the size
ENCODER = {"hidden_size": 48, "num_hidden_layers": 3, "num_attention_heads": 4, "intermediate_size": 96}
DECODER = {f"decoder_{name}": size for name, size in ENCODER.items()} | {"decoder_num_hidden_layers": 2}
INIT = 0.1  # the usual 0.02 suits widths near 768; models this narrow learn faster from larger weights


class Data(NamedTuple):
    """Processed images, and which of them to learn from."""

    pixel_values: Tensor  # (images, channels, height, width)
    labels: Tensor  # (images,)
    classes: list[str]
    names: list[Any]  # of the images: a scan's index, a picture's path
    processor: ViTImageProcessor

    def split(self) -> dict[str, list[int]]:
        """Indices of the images by side: those with the least noise are held out."""
        order = np.argsort(noise(0, 1, len(self.names))[0], kind="stable")
        held_out = len(order) // 5
        return {"train": sorted(order[held_out:].tolist()), "held_out": sorted(order[:held_out].tolist())}


def read_digits(size: int) -> Data:
    """scikit-learn's scans of 8x8 pixels, whose values 0..16 become 0..255."""
    from sklearn.datasets import load_digits

    digits = load_digits()
    scans = np.rint(digits.images * (255 / 16)).astype(np.uint8)
    processor = ViTImageProcessor(size=size, resample=BICUBIC, image_mean=[0.5], image_std=[0.5])
    pixels = processor(list(scans), input_data_format="none", return_tensors="pt")["pixel_values"]
    return Data(pixels, torch.tensor(digits.target), list("0123456789"), list(range(len(scans))), processor)


def read_folder(folder: Path, size: int) -> Data:
    """Pictures sorted into one sub-folder per class."""
    files = sorted(path for path in folder.glob("*/*") if path.is_file())
    classes = sorted({path.parent.name for path in files})
    if len(classes) < 2:
        sys.exit(f"{folder}: expected a sub-folder of pictures for each of at least two classes")
    processor = ViTImageProcessor(size=size, resample=BICUBIC, do_convert_rgb=True)
    pixels = [processor(open_image(path), return_tensors="pt")["pixel_values"] for path in tqdm(files, "reading")]
    labels = torch.tensor([classes.index(path.parent.name) for path in files])
    return Data(torch.cat(pixels), labels, classes, [path.relative_to(folder).as_posix() for path in files], processor)


def make_classifier(data: Data, patch_size: int, seed: int) -> ViTForImageClassification:
    """A fresh ViT for these classes."""
    channels, size = data.pixel_values.shape[1:3]
    sizes = {"image_size": size, "patch_size": patch_size, "num_channels": channels, "encoder_stride": patch_size}
    config = ViTConfig(**ENCODER, **sizes, initializer_range=INIT, id2label=dict(enumerate(data.classes)))
    return ViTForImageClassification.from_tensors(config, draw(config, ViTForImageClassification, seed))


def make_mae(data: Data, patch_size: int, seed: int) -> ViTMAEForPreTraining:
    """A fresh ViTMAE for these images."""
    channels, size = data.pixel_values.shape[1:3]
    sizes = {"image_size": size, "patch_size": patch_size, "num_channels": channels}
    config = ViTMAEConfig(**ENCODER, **DECODER, **sizes, initializer_range=INIT)
    return ViTMAEForPreTraining.from_tensors(config, draw(config, ViTMAEForPreTraining, seed))


def classifier_loss(model: ViTForImageClassification, pixels: Tensor, labels: Tensor, seed: int, step: int) -> Tensor:
    """Cross entropy on slightly turned, moved and zoomed images."""
    return model(augment(pixels, torch.Generator().manual_seed(seed + step)), labels=labels).loss


def mae_loss(model: ViTMAEForPreTraining, pixels: Tensor, labels: Tensor, seed: int, step: int) -> Tensor:
    """Error on the removed patches, under masks that are new at every step and the same in every framework."""
    return model(pixels, noise=noise(seed, len(pixels), num_patches(model), step)).loss


def num_patches(model: Any) -> int:
    """How many patches cover one image."""
    return (model.config.image_size // model.config.patch_size) ** 2


def augment(pixels: Tensor, generator: torch.Generator) -> Tensor:
    """Every image turned, moved and zoomed a little; what comes in from outside is -1 (black)."""
    turn, right, down, zoom = 2 * torch.rand(4, len(pixels), generator=generator) - 1
    turn, right, down, zoom = torch.deg2rad(TURN * turn), 2 * SHIFT * right, 2 * SHIFT * down, 1 + ZOOM * zoom
    rows = (zoom * turn.cos(), -zoom * turn.sin(), right, zoom * turn.sin(), zoom * turn.cos(), down)
    grid = F.affine_grid(torch.stack(rows, dim=1).unflatten(1, (2, 3)), list(pixels.shape), align_corners=False)
    return F.grid_sample(pixels + 1, grid, align_corners=False) - 1


def train(model: Any, loss_of: Callable[..., Tensor], data: Data, epochs: int, seed: int, state: Path) -> None:
    """AdamW under a cosine schedule; every epoch is saved to `state`, and a file found there is continued."""
    weights = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(weights, weight_decay=WEIGHT_DECAY, fused=True)
    chosen = torch.tensor(data.split()["train"])
    steps = epochs * math.ceil(len(chosen) / BATCH)
    done = load_state(state, model, optimizer) if state.exists() else 0
    progress = tqdm(range(done, epochs), model.config.model_type, epochs, initial=done)
    model.train()
    for epoch in progress:
        order = chosen[torch.randperm(len(chosen), generator=torch.Generator().manual_seed(seed + epoch))]
        for step, batch in enumerate(order.split(BATCH), epoch * steps // epochs):
            warmup, cosine = min(1, (step + 1) / (WARMUP * steps)), (1 + math.cos(math.pi * step / steps)) / 2
            optimizer.param_groups[0]["lr"] = RATE * warmup * cosine
            loss = loss_of(model, data.pixel_values[batch], data.labels[batch], seed, step)
            optimizer.zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(weights, CLIP)
            optimizer.step()
        save_state(state, model, optimizer, epoch + 1)
        progress.set_postfix(loss=f"{loss.item():.4f}")
    model.eval()


def save_state(path: Path, model: Any, optimizer: torch.optim.Optimizer, epochs: int) -> None:
    """Writes the weights and what AdamW remembers of each, whole or not at all."""
    groups = optimizer.state_dict()["state"].items()
    memory = {f"{i}/{name}": tensor for i, group in groups for name, tensor in group.items()}
    save_file({**model.state_dict(), **memory}, path.with_suffix(".part"), metadata={"epochs": str(epochs)})
    path.with_suffix(".part").replace(path)


def load_state(path: Path, model: Any, optimizer: torch.optim.Optimizer) -> int:
    """Restores what `save_state` wrote; returns the number of finished epochs."""
    with safe_open(path, "pt") as file:
        tensors, epochs = {name: file.get_tensor(name) for name in file.keys()}, int(file.metadata()["epochs"])  # noqa: SIM118
    model.load_state_dict({name: tensors.pop(name) for name in model.state_dict()})
    memory: dict[int, dict[str, Tensor]] = {}
    for key, tensor in tensors.items():
        i, name = key.split("/")
        memory.setdefault(int(i), {})[name] = tensor
    optimizer.load_state_dict({"state": memory, "param_groups": optimizer.state_dict()["param_groups"]})
    return epochs


@torch.no_grad()
def score(model: Any, data: Data) -> str:
    """How well the model does on the held-out images, in words."""
    held_out = data.split()["held_out"]
    pixels, labels = data.pixel_values[held_out], data.labels[held_out]
    if model.config.model_type == "vit":
        right = (model(pixels).logits.argmax(dim=1) == labels).float().mean().item()
        return f"{right:.2%} of {len(held_out)} held-out images classified correctly"
    output = model(pixels, noise=noise(1, len(held_out), num_patches(model)))
    mean = data.pixel_values[data.split()["train"]].mean(dim=0).expand_as(pixels)
    baseline = model.forward_loss(pixels, model.patchify(mean), output.mask)
    return f"error {output.loss:.4f} on removed patches of held-out images (filling in the mean image: {baseline:.4f})"


def main() -> None:
    """Trains, saves and scores both models."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--images", type=Path, help="folder of pictures (default: the digits)")
    parser.add_argument("--image-size", type=int, default=16)
    parser.add_argument("--patch-size", type=int, default=4)
    parser.add_argument("--epochs", type=int, nargs=2, default=(60, 200), help="for ViT and ViTMAE (default: 60 200)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--resume", action="store_true", help="go on where a stopped run of the same options was")
    options = parser.parse_args()

    if not options.images:
        torch.set_num_threads(1)  # faster on pictures this small, and the order of every sum is the same
    data = read_folder(options.images, options.image_size) if options.images else read_digits(options.image_size)
    recipes = {"vit": (make_classifier, classifier_loss), "vit-mae": (make_mae, mae_loss)}
    options.output.mkdir(parents=True, exist_ok=True)
    for (name, (make, loss_of)), epochs in zip(recipes.items(), options.epochs, strict=True):
        state = options.output / f"{name}.training.safetensors"
        if not options.resume:
            state.unlink(missing_ok=True)
        model = make(data, options.patch_size, options.seed)
        try:
            train(model, loss_of, data, epochs, options.seed, state)
        except KeyboardInterrupt:
            sys.exit(f"\nStopped. {state} holds the finished epochs: go on with --resume.")
        model.save_pretrained(options.output / name)
        data.processor.save_pretrained(options.output / name)
        sides = {side: [data.names[i] for i in indices] for side, indices in data.split().items()}
        split = json.dumps({"rule": SPLIT_RULE, **sides})
        (options.output / name / "split.json").write_text(split + "\n", encoding="utf-8")
        print(f"{options.output / name}: {score(model, data)}")


if __name__ == "__main__":
    main()
