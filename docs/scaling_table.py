"""Writes the table of docs/guides/scaling.md: what published sizes take on each device, as `--dry-run` reckons it.

python docs/scaling_table.py
"""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np

from vit_core import ViTConfig, ViTMAEConfig
from vit_core.config.presets import PRESETS
from vit_core.parameters import parameter_table
from vit_core.training.recipe import recipe_of
from vitriad.training.memory import sizes_of

PAGE = Path(__file__).parent / "guides" / "scaling.md"
START, END = "<!-- table: written by docs/scaling_table.py -->\n", "<!-- end of table -->\n"
MODELS = {
    "ViT-B/16": ("classification", "vit-base-patch16-224"),
    "ViT-L/16": ("classification", "vit-large-patch16-224"),
    "ViT-H/14": ("classification", "vit-huge-patch14-224"),
    "MAE ViT-L/16": ("mae", "vit-mae-large"),
    "MAE ViT-H/14": ("mae", "vit-mae-huge"),
}
DEVICES, IMAGES = 8, 64  # images of each device


def sizes(objective: str, name: str, devices: int, *, is_sharded: bool = False, **fields: Any) -> Any:
    """What a preset takes on each device, by the sizes of its parameters alone."""
    kind = ViTMAEConfig if objective == "mae" else ViTConfig
    labels = {} if objective == "mae" else {"num_labels": 1000}
    config = kind(**PRESETS[kind.model_type][name], **labels)
    cls = "ViTMAEForPreTraining" if objective == "mae" else "ViTForImageClassification"
    tensors = {key: np.broadcast_to(np.float32(0), row.shape) for key, row in parameter_table(config, cls).items()}
    given = {"objective": objective, "data": "", "backend": "torch", "epochs": 1, "rate": 1.0, "config": name}
    recipe = recipe_of({**given, "batch_size": IMAGES * devices, "precision": "bfloat16", **fields})
    setup: Any = SimpleNamespace(recipe=recipe, config=config, tensors=tensors)
    return sizes_of(
        setup,
        {key for key, row in parameter_table(config, cls).items() if row.trainable},
        devices,
        is_sharded=is_sharded,
    )


def table() -> str:
    """The table, in Markdown."""
    lines = ["| | parameters | one device | DDP on 8 | FSDP on 8 | FSDP, recomputed | of an image | work of an image |"]
    lines.append("| --- | --- | --- | --- | --- | --- | --- | --- |")
    for title, (objective, name) in MODELS.items():
        one, copies = (sizes(objective, name, count) for count in (1, DEVICES))
        shares = sizes(objective, name, DEVICES, is_sharded=True)
        least = sizes(objective, name, DEVICES, is_sharded=True, recompute=True)
        memory = [f"{each.bytes() / 1e9:.1f} GB" for each in (one, copies, shares, least)]
        ends = [f"{one.of_image / 1e6:.0f} MB", f"{one.work / 1e9:,.0f} GFLOP"]
        lines.append(f"| {' | '.join([title, f'{one.parameters / 1e6:.0f} M', *memory, *ends])} |")
    return "\n".join(lines) + "\n"


def page() -> str:
    """The page with the table as it is now."""
    before, _, rest = PAGE.read_text(encoding="utf-8").partition(START)
    return before + START + table() + END + rest.partition(END)[2]


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
