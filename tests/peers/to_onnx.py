"""Runs inside an environment that has jax2onnx: writes FOLDER/model.onnx from the model itself.

to_onnx.py FOLDER CLASS     load FOLDER, trace the model with any number of images, run the program on FOLDER/inputs.npz
"""

import sys
from pathlib import Path

import numpy as np
import onnxruntime
from jax2onnx import to_onnx

import vit_flax


def main(folder: Path, class_name: str) -> None:
    """Writes FOLDER/peer.npz: the outputs of the program, in their order."""
    model = getattr(vit_flax, class_name).from_pretrained(folder)
    images = np.load(folder / "inputs.npz")["pixel_values"]
    program = to_onnx(model, inputs=[("B", *images.shape[1:])])
    session = onnxruntime.InferenceSession(program.SerializeToString(), providers=["CPUExecutionProvider"])
    (name,) = [tensor.name for tensor in session.get_inputs()]
    np.savez(folder / "peer.npz", *session.run(None, {name: images}))


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2])
