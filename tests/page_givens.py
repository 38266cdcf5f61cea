"""What pages of the book take as given: values by name, and files that lie where their commands run. All are small."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
from safetensors.numpy import load_file
from weight_files import torch_tree

import conversion
import vitriad
from vit_core import ViTConfig, ViTImageProcessor
from vit_core.files.saving import save_folder
from vit_core.parameters import draw
from vitriad.models import digit_files, find

ROOT = Path(__file__).parent.parent
GOLDEN = ROOT / "tests" / "golden" / "foreign"


def published_size(cls: str) -> tuple[ViTConfig, dict[str, np.ndarray]]:
    """A random model of a size that the table of heads knows: ViT-Ti, for small images."""
    config = ViTConfig.preset("vit-tiny-patch16-224", image_size=32, layer_norm_eps=1e-6, num_labels=3)
    return config, draw(config, cls, seed=0)


def as_written_by(dialect: str) -> Callable[[Path], None]:
    """A maker of a file in other names, in the container that its suffix says."""

    def make(path: Path) -> None:
        config, tensors = published_size("ViTForImageClassification")
        save_folder(Path("made"), files={"config.json": config.to_json_string()}, tensors=tensors)
        written = Path("made", {"google": "weights.npz", "torchvision": "weights.safetensors"}.get(dialect, "weights"))
        conversion.convert("made", written, to=dialect, allow=("numerics",))
        found = next(written.glob("*.safetensors")) if written.is_dir() else written
        if path.suffix == ".pth":
            torch_tree(path, {name: np.array(array) for name, array in load_file(found).items()})
        else:
            shutil.copy(found, path)
        shutil.rmtree("made")

    return make


def copy_of(source: str | Path) -> Callable[[Path], None]:
    """A maker of a copy of a file or a folder."""

    def make(path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        if Path(source).is_dir():
            shutil.copytree(source, path, ignore=shutil.ignore_patterns("io.npz"))
        else:
            shutil.copy(source, path)

    return make


def scans_by_class(path: Path) -> None:
    """Twenty scans of digits, those of each digit in a folder of their own."""
    for file in digit_files():
        copy_of(file)(path / file.name[0] / file.name)


FILES: dict[str, Callable[[Path], None]] = {
    "photo.jpg": copy_of(ROOT / "docs" / "pictures" / "coffee.jpg"),
    "vitriad/models/digits": copy_of(ROOT / "vitriad" / "models" / "digits"),
    "photos": copy_of(ROOT / "vitriad" / "models" / "digits"),
    "scans": scans_by_class,
    "my-vit": copy_of(find("digits-vit")),
    "my-mae": copy_of(find("digits-vit-mae")),
    "owner/name": copy_of(find("digits-vit")),
    "ViT-B_16.npz": as_written_by("google"),
    "dino_deitsmall16_pretrain.pth": as_written_by("timm"),
    "vit_b_16.pth": as_written_by("torchvision"),
    "timm-folder": copy_of(GOLDEN / "timm_hub_folder"),
    "tf-folder": copy_of(GOLDEN / "tf_vit_cls"),
    "flax-folder": copy_of(GOLDEN / "flax_vit_cls"),
    "hf5-folder": copy_of(GOLDEN / "hf5_vit_cls_native_names"),
    "keras-hub-preset": copy_of(GOLDEN / "keras_hub_preset_cls"),
    "checkpoint-399.pth": copy_of(GOLDEN / "mae_full_normpix_true_train_checkpoint" / "checkpoint-399.pth"),
    "dinov2_vits14_pretrain.pth": copy_of(GOLDEN / "dinov2_small" / "dinov2_vits14_pretrain.pth"),
}


def files(names: list[str]) -> None:
    """Makes files in the current folder."""
    for name in names:
        FILES[name](Path(name))


def given(names: list[str]) -> list[Any]:
    """Values by name, as the digits-vit that comes along takes them."""
    random = np.random.default_rng(0)
    values: dict[str, Callable[[], Any]] = {
        "images": lambda: random.standard_normal((8, 1, 16, 16), np.float32),
        "labels": lambda: np.arange(8) % 3,
        "classes": lambda: np.arange(8) % 3,
        "model": lambda: vitriad.load("digits-vit", backend="torch"),
        "arguments": lambda: SimpleNamespace(output_dir="out"),
        "Trainer": lambda: lambda model, arguments, **others: SimpleNamespace(model=model, args=arguments, **others),
        "processor": lambda: ViTImageProcessor.from_pretrained(find("digits-vit")),
    }
    return [values[name]() for name in names]


FUNCTIONS = {"files": files, "given": given}
