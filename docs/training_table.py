"""Trains the models of docs/guides/training.md on real images, and writes its table and its picture.

    training_table.py FOLDER

FOLDER keeps the data and the runs, which go on where they were stopped; a run that is over is read. Images: the digits
that come with scikit-learn; Fashion-MNIST from the folder `VITRIAD_FASHION` (/usr/share/datasets/fashion-mnist, where
Debian's package dataset-fashion-mnist puts it); a published DINOv2, which `make test-real` fetches.
"""

from __future__ import annotations

import gzip
import json
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
from sklearn.datasets import load_digits

from vit_core.tensors import Array
from vit_core.training.metrics import wilson
from vitriad.cli import main
from vitriad.drawing import stacked
from vitriad.training.charts import Curve, charts
from vitriad.viewing import save_picture

DOCS = Path(__file__).parent
FASHION = Path(os.environ.get("VITRIAD_FASHION", "/usr/share/datasets/fashion-mnist"))
START, END = "<!-- results: written by `make training-table` -->", "<!-- end of results -->"
BACKENDS = {"torch": "PyTorch", "tf": "TensorFlow", "flax": "JAX"}
SEEDS = (0, 1)
FEW = {"fashion-6000": 600, "fashion-500": 50}  # images of each class
LEAST = 500  # images that the rows of ViT-S are judged by

# 140 thousand parameters, minutes on a CPU. Models this narrow learn faster from weights larger than usual.
SMALL = {"num_channels": 1, "hidden_size": 64, "num_hidden_layers": 4, "num_attention_heads": 4}
SMALL |= {"intermediate_size": 128, "initializer_range": 0.1}
DECODER = {"decoder_hidden_size": 64, "decoder_num_hidden_layers": 2, "decoder_num_attention_heads": 4}
DECODER |= {"decoder_intermediate_size": 128}
VIT_S = {"hidden_size": 384, "num_attention_heads": 6, "intermediate_size": 1536}
CONFIGS = {
    "digits": {"model_type": "vit", **SMALL, "image_size": 16, "patch_size": 4},
    "fashion": {"model_type": "vit", **SMALL, "image_size": 28, "patch_size": 7},
    "fashion-mae": {"model_type": "vit_mae", **SMALL, **DECODER, "image_size": 28, "patch_size": 7},
    "vit-s": {"model_type": "vit", **VIT_S, "image_size": 56, "patch_size": 14},
}
# Digits are not mirrored, and have no colours. Beside these stand the published settings that finetune takes.
PLAIN = "operations=0 erase=0 drop_path=0 clip=1.0 area=[0.7,1]"
MIXED = f"{PLAIN} mirror=0 smoothing=0.1 mixup=0.2 cutmix=1.0"
BRIEF = f"{PLAIN} mirror=0.5 smoothing=0.1 mixup=0 cutmix=0 average=0.99"  # too few epochs for mixed images


class Row(NamedTuple):
    """Runs that differ in backend and seed alone.

    Attributes:
        name: of their folders.
        what: for people; "" for runs that others begin with.
        words: of the command line in FOLDER, without backend, seed and --out; {backend} stands for the name of that.
        backends, seeds: of the runs.
    """

    name: str
    what: str
    words: str
    backends: tuple[str, ...] = ("torch",)
    seeds: tuple[int, ...] = SEEDS

    def runs(self) -> Iterator[tuple[str, list[str]]]:
        """The folder and the command line of each."""
        for seed in self.seeds:
            for backend in self.backends:
                out = f"runs/{self.name}-{backend}-{seed}"
                words = self.words.replace("{backend}", backend).split()
                yield out, [*words, "--backend", backend, "--seed", str(seed), "--out", out]


def recipe(epochs: int, batch: int, rate: float, fields: str) -> str:
    """The end of a command line."""
    numbers = f"--epochs {epochs} --batch-size {batch} --rate {rate}"
    return " ".join([numbers, *(f"--set {field}" for field in fields.split())])


def rows(dinov2: Path) -> list[Row]:
    """Every run, after those that it begins with."""
    few = f"--held-out fashion-test.npz {recipe(12, 64, 0.004, BRIEF)}"
    least = f"--held-out fashion-test-{LEAST}.npz {recipe(8, 50, 0.002, BRIEF)}"
    return [
        Row(
            "digits",
            "1,438 digits: from scratch",
            f"finetune digits.npz --config digits.json --held-out 0.2 {recipe(60, 64, 0.008, f'{MIXED} average=0.99')}",
            tuple(BACKENDS),
        ),
        Row(
            "fashion",
            "60,000 of Fashion-MNIST: from scratch",
            "finetune fashion.npz --config fashion.json --held-out fashion-test.npz " + recipe(3, 128, 0.004, BRIEF),
            tuple(BACKENDS),
            SEEDS[:1],
        ),
        Row(
            "mae",
            "",
            "pretrain fashion.npz --objective mae --config fashion-mae.json --held-out 0.02 "
            + recipe(3, 128, 0.004, "area=[0.5,1]"),
            tuple(BACKENDS),
            SEEDS[:1],
        ),
        Row(
            "scratch-6000",
            "6,000 of them: from scratch",
            f"finetune fashion-6000.npz --config fashion.json {few}",
            tuple(BACKENDS),
            SEEDS[:1],
        ),
        Row(
            "mae-6000",
            "6,000 of them: from an MAE of the 60,000 without labels",
            "finetune fashion-6000.npz --model runs/mae-{backend}-0/last " + f"{few} --set layer_decay=0.75",
            tuple(BACKENDS),
            SEEDS[:1],
        ),
        Row(
            "scratch-500",
            "500 of them: a ViT-S/14 from scratch",
            f"finetune fashion-500.npz --config vit-s.json {least}",
            seeds=SEEDS[:1],
        ),
        Row(
            "dinov2-500",
            "500 of them: from a published DINOv2 ViT-S/14",
            f"finetune fashion-500.npz --model {dinov2} --set image_size=56 {least}",
            seeds=SEEDS[:1],
        ),
    ]


def write_data(folder: Path) -> None:
    """The images and the configurations of all runs."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, fields in CONFIGS.items():
        (folder / f"{name}.json").write_text(json.dumps(fields, indent=2))
    if (folder / "digits.npz").is_file():
        return
    for name, part, count in (("fashion", "train", None), ("fashion-test", "t10k", None)):
        pixels, labels = (_idx(FASHION / f"{part}-{what}.gz") for what in ("images-idx3-ubyte", "labels-idx1-ubyte"))
        _save(folder / f"{name}.npz", pixels, labels, count)
        for few, each in FEW.items() if part == "train" else {f"fashion-test-{LEAST}": LEAST // 10}.items():
            _save(folder / f"{few}.npz", pixels, labels, each)
    digits = load_digits()
    _save(folder / "digits.npz", np.rint(digits.images * (255 / 16)).astype(np.uint8), digits.target, None)


def _idx(path: Path) -> Array:
    """The array in a file of Fashion-MNIST: 3 bytes of type, their number of axes, the sizes, the values."""
    data = gzip.decompress(path.read_bytes())
    axes = data[3]
    sizes = np.frombuffer(data, ">i4", axes, offset=4)
    return np.frombuffer(data, np.uint8, offset=4 + 4 * axes).reshape(sizes)


def _save(path: Path, pixels: Array, labels: Array, of_each: int | None) -> None:
    """Images with labels: all, or the first few of each class."""
    rows = np.sort(np.concatenate([np.flatnonzero(labels == label)[:of_each] for label in range(10)]))
    np.savez(path, images=pixels[rows], labels=labels[rows].astype(np.int64))


def measured(folder: Path) -> list[dict[str, float]]:
    """The lines of a run's metrics.jsonl."""
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def table(folder: Path, rows: list[Row]) -> str:
    """A line for each row: the accuracy after the last epoch of each backend, over all seeds."""
    lines = ["| learned from | judged by | " + " | ".join(BACKENDS.values()) + " |", "| --- " * 5 + "|"]
    for row in rows:
        if not row.what:
            continue
        last = {out: measured(folder / out)[-1] for out, _ in row.runs()}
        cells = [_cell([line for out, line in last.items() if f"-{backend}-" in out]) for backend in BACKENDS]
        lines.append(f"| {row.what} | {next(iter(last.values()))['held_out']:,} | {' | '.join(cells)} |")
    return "\n".join(lines)


def _cell(last: list[dict[str, float]]) -> str:
    """The share of all seeds, and the 95 % interval that the number of images leaves; or the least and the largest."""
    if not last:
        return ""
    shares = [line["accuracy"] for line in last]
    mean = f"{np.mean(shares):.2%}"
    if len(last) > 1:
        return f"{mean} ({min(shares):.2%} to {max(shares):.2%})"
    low, high = wilson(round(shares[0] * last[0]["held_out"]), int(last[0]["held_out"]))
    return f"{mean} ± {(high - low) / 2:.2%}"


def picture(folder: Path, rows: list[Row]) -> None:
    """The losses of the digits in the three backends, and the accuracies with few labels."""

    def curve(out: str, name: str) -> Curve:
        return [(line["epoch"], line[name]) for line in measured(folder / out) if "epoch" in line]

    held_out = {BACKENDS[backend]: curve(f"runs/digits-{backend}-0", "held_out_loss") for backend in BACKENDS}
    few = {
        name: curve(f"runs/{out}-6000-torch-0", "accuracy") for name, out in (("MAE", "mae"), ("scratch", "scratch"))
    }
    drawn = [
        charts({"Digits: loss on held-out scans; the curves lie on one another": held_out}, "epoch"),
        charts({"6,000 of Fashion-MNIST: accuracy on held-out images": few}, "epoch"),
    ]
    save_picture(stacked(drawn), DOCS / "pictures" / "training.png")


def run(folder: Path) -> int:
    """All runs, the table and the picture."""
    from real.demo import model  # tests/, which `make training-table` puts on the path

    write_data(folder)
    dinov2 = model().resolve()
    os.chdir(folder)
    every = rows(dinov2)
    for row in every:
        for _, words in row.runs():
            print("vitriad", *words, flush=True)
            if status := main(words):
                return status
    page = DOCS / "guides" / "training.md"
    before, _, rest = page.read_text(encoding="utf-8").partition(START)
    text = f"{before}{START}\n{table(Path(), every)}\n{END}{rest.partition(END)[2]}"
    page.write_text(text, encoding="utf-8")
    picture(Path(), every)
    return 0


if __name__ == "__main__":
    sys.exit(run(Path(sys.argv[1])))
