"""Marks: names in a file that show that it holds another kind of model, and which.

A mark is a run of whole words of a tensor's name, words being what stands between dots and slashes. Here are those of
programs without a dialect; the others stand with the dialect whose programs have such models too.

Source: timm 1.0.31, transformers 4.57.6, big_vision 0127fb6b, DeiT 7e160fe4, DINOv2 b8931f7b, keras-hub 0.32.0.
"""

from __future__ import annotations

import re
from collections.abc import Collection
from functools import cache

from conversion.dialect import Dialect
from conversion.dialects import DIALECTS
from conversion.naming import LONGEST
from vit_core.errors import CheckpointError
from vit_core.plain_values import name_list

_OF_OTHERS = {
    **dict.fromkeys(("resblocks", "vision_model"), "CLIP or SigLIP"),
    "visual.trunk": "OpenCLIP",
    "image_encoder": "Segment Anything",
    "to_patch_embedding": "the ViT of lucidrains' vit-pytorch",
    **dict.fromkeys(("predictor", "predictor_blocks"), "I-JEPA"),
    "pos_embeddings.cls_token": "a ViT of Bonsai (NNX), which loads safetensors of transformers: load those here",
    **dict.fromkeys(("lora_A", "lora_B"), "an adapter of PEFT (LoRA), to be merged first: merge_and_unload()"),
}


def marks() -> dict[str, str]:
    """Every mark, and the kind of model that it shows."""
    return {mark: what for dialect in DIALECTS for mark, what in dialect.marks.items()} | _OF_OTHERS


def refuse_marked(where: str, names: Collection[str], prefix: str = "") -> None:
    """Raises CheckpointError if a name behind the prefix shows another kind of model."""
    start, pattern = len(prefix), _pattern(tuple(DIALECTS))
    if not pattern.search("\n".join([f".{name[start:LONGEST]}." for name in names]).replace("/", ".")):
        return  # of 100,000 names that is much faster than to look at each
    for name in names:
        if mark := pattern.search(f".{name[start:LONGEST]}.".replace("/", ".")):
            what = marks()[mark[1]]
            raise CheckpointError(f"{where}: {name_list([name])}: {what}; no ViT or ViTMAE can hold it exactly.")


@cache
def _pattern(dialects: tuple[Dialect, ...]) -> re.Pattern[str]:
    return re.compile(rf"\.({'|'.join(map(re.escape, marks()))})\.")
