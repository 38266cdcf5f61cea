"""A published DINOv2 ViT-S/14, taken out of an ONNX file: its weights, and what its own graph computes with them.

The file was exported from transformers' Dinov2Model. Biases, norms, scales and tokens kept their names there, matrices
hang on the MatMul nodes of their layers, transposed, and the position table is cut into the class token's row and the
rest.
onnx and onnxruntime are imported where they are used, so that this module can be collected without them.
"""

import json
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np
from real.fetching import PHOTOGRAPHS, WEIGHTS, fetched
from safetensors.numpy import save_file

from vit_core import ViTImageProcessor
from vit_core.images.files import open_image
from vit_core.tensors import Array

LAYERS, HIDDEN, PATCHES = 12, 384, 37 * 37
EMBEDDINGS, FINAL = "/backbone/embeddings/Add_output_0", "/backbone/layernorm/Add_1_output_0"
HIDDEN_STATES = (EMBEDDINGS, *(f"/backbone/encoder/layer.{i}/Add_1_output_0" for i in range(LAYERS)))
PROCESSOR = ViTImageProcessor(size=224, image_mean=(0.485, 0.456, 0.406), image_std=(0.229, 0.224, 0.225))

# DINOv2's name of a module -> transformers' of it, in a layer.
_ENCODER = ("embeddings.", "encoder.", "layernorm.")  # in front of the names of transformers' Dinov2Model
_MATRICES = {"attn.proj": "attention.output.dense", "mlp.fc1": "mlp.fc1", "mlp.fc2": "mlp.fc2"}


@cache
def graph() -> Any:
    """The ONNX model."""
    import onnx

    return onnx.load(fetched(WEIGHTS)[0])


@cache
def stored() -> dict[str, Array]:
    """Name of an initialiser, or for a matrix of its layer in transformers, and `.weight` -> array as torch has it."""
    from onnx.numpy_helper import to_array

    found = {tensor.name: to_array(tensor) for tensor in graph().graph.initializer}
    for node in graph().graph.node:
        if node.op_type == "MatMul" and node.input[1] in found:
            module = node.name.removeprefix("/").removesuffix("/MatMul").replace("/", ".")
            found[f"{module}.weight"] = np.ascontiguousarray(found[node.input[1]].T)
    return {name.removeprefix("backbone."): array for name, array in found.items()}


def positions() -> Array:
    """(1, 1 + patches, hidden): the class token's row is the second tensor of one row, the token itself the first."""
    rows = [array for array in stored().values() if array.shape == (1, 1, HIDDEN)]
    (patches,) = (array for array in stored().values() if array.shape == (1, PATCHES, HIDDEN))
    _, class_row = rows
    return np.concatenate([class_row, patches], axis=1)


def published() -> dict[str, Array]:
    """The tensors under the names of dinov2_vits14_pretrain.pth, whose mask token the graph does not hold."""
    found, tensors = stored(), {"cls_token": stored()["embeddings.cls_token"], "pos_embed": positions()}
    for tensor in ("weight", "bias"):
        tensors[f"patch_embed.proj.{tensor}"] = found[f"embeddings.patch_embeddings.projection.{tensor}"]
        tensors[f"norm.{tensor}"] = found[f"layernorm.{tensor}"]
        for i in range(LAYERS):
            theirs, ours = f"encoder.layer.{i}", f"blocks.{i}"
            thirds = [found[f"{theirs}.attention.attention.{name}.{tensor}"] for name in ("query", "key", "value")]
            tensors[f"{ours}.attn.qkv.{tensor}"] = np.concatenate(thirds)
            for short, long in _MATRICES.items():
                tensors[f"{ours}.{short}.{tensor}"] = found[f"{theirs}.{long}.{tensor}"]
            for norm in ("norm1", "norm2"):
                tensors[f"{ours}.{norm}.{tensor}"] = found[f"{theirs}.{norm}.{tensor}"]
    for i in range(LAYERS):
        for number in (1, 2):
            tensors[f"blocks.{i}.ls{number}.gamma"] = found[f"encoder.layer.{i}.layer_scale{number}.lambda1"]
    return tensors


def write(path: Path) -> Path:
    """A weight file as DINOv2 publishes it, without a configuration; loading folds its LayerScales."""
    save_file(published(), path)
    return path


def write_folder(folder: Path) -> Path:
    """A folder as transformers' Dinov2Model is stored, under the names that it left in the graph."""
    tensors = {name: array for name, array in stored().items() if name.startswith(_ENCODER)}
    tensors["embeddings.position_embeddings"] = positions()
    tensors["embeddings.mask_token"] = np.zeros((1, HIDDEN), np.float32)  # which the graph does not hold
    sizes = {"hidden_size": HIDDEN, "num_hidden_layers": LAYERS, "num_attention_heads": 6, "mlp_ratio": 4}
    sizes |= {"image_size": 518, "patch_size": 14, "layer_norm_eps": 1e-6}
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps({"model_type": "dinov2", "architectures": ["Dinov2Model"], **sizes}))
    save_file(tensors, folder / "model.safetensors", {"format": "pt"})
    return folder


def photographs() -> list[Any]:
    """Two that scikit-learn brings, and four of scikit-image's."""
    return [open_image(path) for path in (*sklearn_s(), *fetched(PHOTOGRAPHS))]


def sklearn_s() -> list[Path]:
    """The two photographs that scikit-learn brings."""
    images = Path(str(files("sklearn.datasets"))) / "images"
    return [images / "china.jpg", images / "flower.jpg"]


def pixel_values(size: Any = 224) -> Array:
    """(6, 3, height, width) of the photographs, as the model's users resize and normalise them."""
    return PROCESSOR(photographs(), size=size, return_tensors="np")["pixel_values"]


def reference(pixel_values: Array) -> list[Array]:
    """What onnxruntime computes: every hidden state, embeddings first, then the final norm. 224 x 224 only."""
    import onnx
    import onnxruntime

    wanted, model = [*HIDDEN_STATES, FINAL], onnx.ModelProto()
    model.CopyFrom(graph())
    model.graph.output.extend(onnx.ValueInfoProto(name=name) for name in wanted)
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    return list(session.run(wanted, {"input_image": pixel_values}))
