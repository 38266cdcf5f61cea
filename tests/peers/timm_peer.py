"""Runs inside an environment that has timm (and not vitriad): loads or writes one folder as timm's users do.

timm_peer.py load FOLDER    load FOLDER, run it on FOLDER/inputs.npz, write FOLDER/peer.npz and FOLDER/peer.json
timm_peer.py save FOLDER    write a model by FOLDER/arguments.json, every parameter random, then as load
"""

import json
import sys
from pathlib import Path

import numpy as np
import timm
import torch
from timm.models import save_for_hf


def save(folder: Path) -> None:
    """Writes config.json and model.safetensors."""
    arguments = json.loads((folder / "arguments.json").read_text())
    model = timm.create_model(arguments.pop("architecture", "vit_tiny_patch16_224"), **arguments)
    generator = torch.Generator().manual_seed(7)
    for parameter in model.parameters():
        parameter.data.copy_(0.3 * torch.randn(parameter.shape, generator=generator))
    save_for_hf(model, folder, model_config=None, model_args=arguments, safe_serialization=True)


def main(verb: str, folder: Path) -> None:
    """Does one of the two verbs."""
    if verb == "save":
        save(folder)
    model = timm.create_model(f"local-dir:{folder}", pretrained=True).eval()
    images = torch.from_numpy(np.load(folder / "inputs.npz")["pixel_values"])
    with torch.no_grad():
        tokens = model.forward_features(images)
        found = {"tokens": tokens.numpy(), "logits": model.forward_head(tokens).numpy()}
    np.savez(folder / "peer.npz", **found)
    (folder / "peer.json").write_text(json.dumps({"labels": model.pretrained_cfg.get("label_names")}))


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))
