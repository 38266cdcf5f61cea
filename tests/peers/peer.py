"""Runs inside an environment that has transformers (and not vitriad): loads or writes one checkpoint folder.

peer.py load FOLDER CLASS     load FOLDER, run it on FOLDER/inputs.npz, write FOLDER/peer.npz and FOLDER/peer.json
peer.py save FOLDER CLASS     write a checkpoint with every parameter random, then as load
"""

import json
import sys
from pathlib import Path

import numpy as np
import torch
import transformers


def randomised(cls: type, fields: dict) -> torch.nn.Module:
    """A model of `cls` with every parameter random."""
    model = cls(cls.config_class(**fields))
    generator = torch.Generator().manual_seed(7)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(0.3 * torch.randn(parameter.shape, generator=generator))
    return model


def main(verb: str, folder: Path, class_name: str) -> None:
    """Does one of the two verbs."""
    cls = getattr(transformers, class_name)
    if verb == "save":
        randomised(cls, json.loads((folder / "fields.json").read_text())).save_pretrained(folder)
    model, info = cls.from_pretrained(folder, output_loading_info=True, attn_implementation="eager")
    inputs = {name: torch.from_numpy(array) for name, array in np.load(folder / "inputs.npz").items()}
    with torch.no_grad():
        outputs = model.eval()(**inputs, return_dict=True)
    tensors = {name: value.numpy() for name, value in outputs.items() if isinstance(value, torch.Tensor)}
    np.savez(folder / "peer.npz", **tensors)
    report = {name: sorted(map(str, keys)) for name, keys in info.items() if name.endswith("_keys")}
    (folder / "peer.json").write_text(json.dumps(report))


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]), sys.argv[3])
