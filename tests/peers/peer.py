"""Runs inside an environment that has transformers (and not vitriad): loads or writes one checkpoint folder.

peer.py load FOLDER CLASS     load FOLDER, run it on FOLDER/inputs.npz, write FOLDER/peer.npz and FOLDER/peer.json
peer.py save FOLDER CLASS     write a checkpoint with every parameter random, then as load
peer.py refuse FOLDER CLASS   write into FOLDER/peer.json what AutoModel and CLASS say against FOLDER, "" for nothing

CLASS may be one of torch, of TensorFlow (TF...) or of Flax (Flax...).
"""

import json
import logging
import os
import sys
from pathlib import Path

os.environ |= {"TF_CPP_MIN_LOG_LEVEL": "3", "HF_HUB_OFFLINE": "1"}

import numpy as np
import transformers

SCALE = 0.3


def framework_of(cls: type) -> str:
    """ "torch", "tf" or "flax"."""
    return {"TF": "tf", "Fl": "flax"}.get(cls.__name__[:2], "torch")


def load(cls: type, folder: Path) -> tuple[object, dict[str, list[str]]]:
    """A model, and the names of what its file lacks and of what the model has no place for."""
    if framework_of(cls) == "flax":  # which counts only what is missing, and says the rest in warnings
        said: list[str] = []
        handler = logging.Handler(logging.WARNING)
        handler.emit = lambda record: said.append(record.getMessage())
        logging.getLogger("transformers").addHandler(handler)
        model = cls.from_pretrained(folder)
        unexpected = [text for text in said if text.startswith("Some weights")]
        return model, {"missing_keys": sorted(map(str, model._missing_keys)), "unexpected_keys": unexpected}
    options = {"attn_implementation": "eager"} if framework_of(cls) == "torch" else {}
    model, info = cls.from_pretrained(folder, output_loading_info=True, **options)
    return model, {name: sorted(map(str, keys)) for name, keys in info.items() if name.endswith("_keys")}


def randomised(cls: type, fields: dict) -> object:
    """A model of `cls` with every parameter random."""
    config, random = cls.config_class(**fields), np.random.default_rng(7)

    def drawn(shape: tuple[int, ...]) -> np.ndarray:
        return SCALE * random.standard_normal(shape).astype(np.float32)

    model = cls(config)
    if framework_of(cls) == "torch":
        for parameter in model.parameters():
            parameter.data.copy_(parameter.data.new_tensor(drawn(tuple(parameter.shape))))
    elif framework_of(cls) == "tf":
        model(model.dummy_inputs)  # makes the weights
        for weight in model.weights:
            weight.assign(drawn(tuple(weight.shape)))
    else:
        import jax

        model.params = jax.tree.map(lambda value: drawn(value.shape), model.params)
    return model


def outputs(model: object, inputs: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Every tensor that a call gives, by name."""
    if framework_of(type(model)) != "torch":
        return {name: np.asarray(value) for name, value in model(**inputs, return_dict=True).items()}
    import torch

    with torch.no_grad():
        found = model.eval()(**{name: torch.from_numpy(array) for name, array in inputs.items()}, return_dict=True)
    return {name: value.numpy() for name, value in found.items() if isinstance(value, torch.Tensor)}


def objection(load: object) -> str:
    """The error of a load, or the names that its file lacks or the model has no place for; "" for none."""
    try:
        _, info = load()
    except Exception as error:
        return f"{type(error).__name__}: {error}"
    return " ".join(sorted(str(key) for name, keys in info.items() if name.endswith("_keys") for key in keys))


def main(verb: str, folder: Path, class_name: str) -> None:
    """Does one of the three verbs."""
    cls = getattr(transformers, class_name)
    if verb == "refuse":
        classes = {"auto": transformers.AutoModel, "direct": cls}
        said = {
            name: objection(lambda each=each: each.from_pretrained(folder, output_loading_info=True))
            for name, each in classes.items()
        }
        (folder / "peer.json").write_text(json.dumps(said))
        return
    if verb == "save":
        randomised(cls, json.loads((folder / "fields.json").read_text())).save_pretrained(folder)
    model, report = load(cls, folder)
    np.savez(folder / "peer.npz", **outputs(model, dict(np.load(folder / "inputs.npz"))))
    (folder / "peer.json").write_text(json.dumps(report))


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]), sys.argv[3])
