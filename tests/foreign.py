"""Checkpoints that other libraries wrote, with what those libraries computed: tests/golden/foreign."""

import json
from pathlib import Path

import numpy as np

FOLDER = Path(__file__).parent / "golden" / "foreign"
ENTRIES = json.loads((FOLDER / "manifest.json").read_text())["entries"]
CASES = [  # every checkpoint, and every set of weights in it
    (entry, choice) for entry in ENTRIES if entry["verdict"] == "convert" for choice in entry.get("choices", [None])
]
REFUSED = [entry for entry in ENTRIES if entry["verdict"] != "convert"]

# What no tensor tells; said only where the file does not.
_UNTOLD = ("num_attention_heads", "decoder_num_attention_heads", "norm_pix_loss")
_IN_FOLDERS = ("config.json", "task.json", "model.weights.h5")


def case_name(case):
    return case[0]["name"] + (f"-{case[1]}" if isinstance(case[1], str) else "")


def source(entry):
    """What a user would name: the folder, or the only file in it."""
    folder, files = FOLDER / entry["name"], entry["checkpoint_files"]
    weights = [name for name in files if not name.endswith(".json")]
    is_folder = len(weights) > 1 or (len(files) > 1 and weights[0] != "model.pt") or weights[0] in _IN_FOLDERS
    return folder if is_folder else folder / weights[0]


def keywords(entry, choice=None):
    """What a user must say: the set of weights, and what neither file nor table tells."""
    said = {} if choice is None else {"weights": choice}
    if source(entry).suffix == ".pt":
        return {"config": FOLDER / entry["name"] / "config.json"}
    if not entry["dialect"].startswith(("huggingface", "google", "keras-hub", "timm-hub")):
        said |= {name: entry["config"][name] for name in _UNTOLD if name in entry["config"]}
    return said


def inputs(entry):
    stored = np.load(FOLDER / entry["name"] / "io.npz")
    given = {name: stored[name] for name in entry["inputs"] if name != "raw_images"}
    return {name: array.astype(bool) if name == "bool_masked_pos" else array for name, array in given.items()}


def outputs(entry, choice=None):
    """name -> what the library computed."""
    stored, suffix = np.load(FOLDER / entry["name"] / "io.npz"), "" if choice is None else f"__{choice}"
    return {name.removesuffix(suffix): stored[name] for name in entry["outputs"] if name.endswith(suffix)}
