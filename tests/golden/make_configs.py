"""Writes tests/golden/configs: config.json files and parameter shapes of transformers' own ViT and ViTMAE.

Run it in an environment of its own, from the root of the repository:

    pip install transformers==4.57.6 torch==2.13.0
    python tests/golden/make_configs.py

Files:

    <case>.json      what `save_pretrained` of a configuration writes
    index.json       case -> class and constructor arguments
    parameters.json  class, constructor arguments -> shape of every tensor in the model's state dict, and the names of
                     those that are not trained
    names.txt        every field that a configuration in transformers has
"""

from __future__ import annotations

import ast
import json
import tempfile
from pathlib import Path
from typing import Any

import transformers
from transformers import (
    PretrainedConfig,
    ViTConfig,
    ViTForImageClassification,
    ViTForMaskedImageModeling,
    ViTMAEConfig,
    ViTMAEForPreTraining,
    ViTMAEModel,
    ViTModel,
)

FOLDER = Path(__file__).parent / "configs"
VERSION = "4.57.6"

LABELS = dict(enumerate(["tench", "gold\u00e9n", "shark", "ray", "hen", "ox", "emu", "kite", "newt", "toad", "asp"]))
CONFIGS: dict[str, dict[str, Any]] = {
    "vit_default": {},
    "vit_positional": {
        "args": [24, 2, 3, 40, "quick_gelu", 0.1, 0, 0.5, 1e-6, [20, 30], [4, 5], 1, False, 7, 12, "relu"]
    },
    "vit_labels": {"id2label": LABELS, "label2id": {label: index for index, label in LABELS.items()}},
    "vit_nothing": {
        **dict.fromkeys(["torch_dtype", "dtype", "id2label", "label2id", "num_labels", "problem_type", "pruned_heads"]),
        **dict.fromkeys(["architectures", "attn_implementation", "transformers_version", "pooler_output_size"]),
    },
    "vit_text_indices": {"id2label": {"0": "no", "1": "yes"}, "label2id": {"no": "0", "yes": "1"}},
    "vit_id2label": {"id2label": {2: "c", 0: "a", 1: "b"}},
    "vit_num_labels_0": {"num_labels": 0},
    "vit_num_labels_1": {"num_labels": 1, "problem_type": "regression"},
    "vit_num_labels_2": {"num_labels": 2, "problem_type": "single_label_classification"},
    "vit_num_labels_12": {"num_labels": 12, "problem_type": "multi_label_classification"},
    "vit_pruned": {"pruned_heads": {10: [3], 2: [11, 0, 5]}, "num_hidden_layers": 11},
    "vit_flags": {"output_attentions": True, "output_hidden_states": True, "return_dict": False},
    "vit_dtype": {"dtype": "float16", "architectures": ["ViTForImageClassification"]},
    "vit_torch_dtype": {"torch_dtype": "bfloat16", "attn_implementation": "eager", "name_or_path": "some/where"},
    "vit_extra": {
        "crop_pct": 0.9,
        "nested": {"b": [1, None, {"c": 1e-30}], "a": "\u00fc\U0001f600"},
        "empty": None,
        "Zulu": 1e16,
        "_private": False,
        "finetuning_task": "pets",
        "gradient_checkpointing": False,
    },
    "mae_default": {},
    "mae_positional": {
        "args": [24, 2, 3, 40, "gelu_new", 0, 0.25, 1, 1e-5, [20, 30], 5, 4, False, 2, 16, 3, 31, 0.5, True]
    },
    "mae_sizes": {"image_size": [24, 40], "patch_size": [8, 4], "mask_ratio": 0, "decoder_num_hidden_layers": 0},
    "mae_shared": {
        "num_labels": 3,
        "dtype": "float64",
        "architectures": ["ViTMAEForPreTraining"],
        "pruned_heads": {0: [1]},
        "return_dict": False,
        "encoder_stride": 16,
    },
}

TINY = {
    "hidden_size": 24,
    "num_hidden_layers": 2,
    "num_attention_heads": 3,
    "intermediate_size": 20,
    "image_size": 12,
    "patch_size": 4,
}
DECODER = {
    "decoder_hidden_size": 8,
    "decoder_num_hidden_layers": 2,
    "decoder_num_attention_heads": 2,
    "decoder_intermediate_size": 12,
}
ODD = {"image_size": [13, 21], "patch_size": [4, 5], "num_channels": 2}
PRUNED = {"pruned_heads": {0: [1], 1: [0, 2]}}
MODELS: list[tuple[type, dict[str, Any], dict[str, bool]]] = [
    (ViTModel, TINY, {}),
    (ViTModel, TINY | PRUNED | {"pooler_output_size": 7, "qkv_bias": False}, {"use_mask_token": True}),
    (ViTModel, TINY | ODD | {"num_hidden_layers": 0}, {"add_pooling_layer": False}),
    (ViTModel, TINY | {"hidden_act": "prelu", "pooler_act": "xielu"}, {}),
    (ViTForImageClassification, TINY | ODD | {"num_labels": 5, "hidden_act": "xielu"}, {}),
    (ViTForImageClassification, TINY | PRUNED | {"num_labels": 0}, {}),
    (ViTForMaskedImageModeling, TINY | {"encoder_stride": 3, "num_channels": 1, "pooler_act": "prelu"}, {}),
    (ViTMAEModel, TINY | {"qkv_bias": False, "num_channels": 1}, {}),
    (ViTMAEForPreTraining, TINY | DECODER | {"image_size": 15}, {}),
    (ViTMAEForPreTraining, TINY | DECODER | PRUNED | {"hidden_act": "prelu", "qkv_bias": False}, {}),
]


def saved(config: Any) -> str:
    with tempfile.TemporaryDirectory() as folder:
        config.save_pretrained(folder)
        return (Path(folder) / "config.json").read_text(encoding="utf-8")


def built(config_class: type, arguments: dict[str, Any]) -> Any:
    keywords = {name: value for name, value in arguments.items() if name != "args"}
    return config_class(*arguments.get("args", []), **keywords)


def parameters() -> list[dict[str, Any]]:
    rows = []
    for model_class, arguments, options in MODELS:
        model = model_class(model_class.config_class(**arguments), **options)
        tensors = model.state_dict(keep_vars=True)
        row = {"class": model_class.__name__, "config": arguments, "options": options}
        row["shapes"] = {name: list(tensor.shape) for name, tensor in tensors.items()}
        row["fixed"] = [name for name, tensor in tensors.items() if not tensor.requires_grad]
        rows.append(row)
    return rows


def names() -> list[str]:
    """The parameters of every configuration's constructor, and the attributes of the base class."""
    found = {name for name in vars(PretrainedConfig()) if not name.startswith("_")}
    for path in Path(transformers.__file__).parent.rglob("configuration_*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.FunctionDef) and node.name == "__init__":
                found |= {argument.arg for argument in [*node.args.args, *node.args.kwonlyargs]}
    return sorted(found - {"self"})


def main() -> None:
    if transformers.__version__ != VERSION:
        raise SystemExit(f"expected transformers {VERSION}, got {transformers.__version__}")
    FOLDER.mkdir(exist_ok=True)
    index = {}
    for case, arguments in CONFIGS.items():
        config_class = ViTConfig if case.startswith("vit") else ViTMAEConfig
        (FOLDER / f"{case}.json").write_text(saved(built(config_class, arguments)), encoding="utf-8")
        index[case] = {"class": config_class.__name__, "arguments": arguments}
    (FOLDER / "index.json").write_text(json.dumps(index, indent=1) + "\n", encoding="utf-8")
    (FOLDER / "names.txt").write_text("\n".join(names()) + "\n", encoding="utf-8")
    rows = ",\n".join(json.dumps(row) for row in parameters())
    (FOLDER / "parameters.json").write_text(f"[\n{rows}\n]\n", encoding="utf-8")


if __name__ == "__main__":
    main()
