"""From every dialect that is written to every other one and back: the same bits, or a refusal that says why."""

from itertools import permutations
from pathlib import Path

import numpy as np
import pytest
from checkpoints import make_config, make_tensors, write
from foreign import ENTRIES, keywords, source

import conversion
from conversion.dialects import targets, written
from vit_core.errors import CheckpointError
from vit_core.files.containers import open_any
from vit_core.parameters import MODEL_CLASSES

TARGETS = targets()

PAIRS = [
    (first, second, cls)
    for first, second in permutations(TARGETS, 2)
    for cls in TARGETS[first].classes
    if cls in TARGETS[second].classes
]
# What the files of a dialect do not tell.
UNTOLD = {
    "torchvision": ("num_attention_heads",),
    "mae": ("num_attention_heads", "decoder_num_attention_heads", "norm_pix_loss"),
}


def small(cls, **fields):
    return make_config(
        cls, **{"image_size": 12, "layer_norm_eps": 1e-6, "hidden_size": 20, "num_attention_heads": 5, **fields}
    )


def options_of(cls):
    return {"add_pooling_layer": False} if cls == "ViTModel" else {}


def checkpoint(folder, cls, config=None, **options):
    config = config or small(cls)
    tensors = make_tensors(cls, config, **{**options_of(cls), **options})
    write(folder, config, tensors)
    return config, tensors


def path_of(folder, dialect, name):
    return folder / f"{name}{TARGETS[dialect].suffix if TARGETS[dialect].file is None else ''}"


def told(dialect, config, cls):
    """The keywords that a user must give to read a file of a dialect."""
    fields = {name: getattr(config, name) for name in UNTOLD.get(dialect, ()) if hasattr(config, name)}
    return {"cls": cls, **fields, **options_of(cls)}


def step(src, dst, to, cls, config, dialect):
    return conversion.convert(src, dst, to=to, allow=("numerics",), **told(dialect, config, cls))


@pytest.mark.parametrize(("first", "second", "cls"), PAIRS)
def test_every_pair_gives_the_same_bits(tmp_path, first, second, cls):
    config, tensors = checkpoint(tmp_path / "start", cls)
    paths = [tmp_path / "start"]
    for at, to in zip(("hf", first, second), (first, second, "hf"), strict=True):
        paths.append(path_of(tmp_path, to, f"{len(paths)}-{to}"))
        step(paths[-2], paths[-1], to, cls, config, at)
    found, again, report = conversion.load(paths[-1], cls=cls, **options_of(cls))
    assert report.model == cls and again.keys() == tensors.keys()
    for name, tensor in tensors.items():
        assert again[name].dtype == tensor.dtype and again[name].tobytes() == tensor.tobytes(), name
    for field in ("hidden_size", "num_attention_heads", "image_size", "patch_size", "num_labels", "qkv_bias"):
        assert getattr(found, field) == getattr(config, field), field


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float64"])
@pytest.mark.parametrize("to", TARGETS)
def test_dtypes_are_kept(saved, tmp_path, to, dtype):
    cls = TARGETS[to].classes[1]
    folder, _ = saved(cls, lambda t: {n: a.astype(dtype) for n, a in t.items()}, layer_norm_eps=1e-6, image_size=12)
    before = conversion.load(folder)
    target = path_of(tmp_path, to, "new")
    report = step(folder, target, to, cls, before[0], "hf")
    _, tensors, _ = conversion.load(target, **told(to, before[0], cls))
    widened = to == "hf_tf" and dtype == "bfloat16"
    assert any("bfloat16 is stored as float32" in note for note in report.notes) == widened
    for name, tensor in before[1].items():
        assert tensors[name].dtype == (np.float32 if widened else tensor.dtype)
        np.testing.assert_array_equal(tensors[name].astype("f8"), tensor.astype("f8"), err_msg=name)


PLAIN = [  # whose names are those that we write
    *("flax_vit_cls", "flax_vit_cls_no_qkv_bias", "flax_vit_model", "flax_vit_model_bf16", "flax_vit_model_deep"),
    *("google_vit_deep", "google_vit_prelinen", "hf4_vit_cls", "hf4_vit_cls_bf16", "hf4_vit_mim", "hf4_vitmae_model"),
    *("hf4_vitmae_pretraining", "deit_plain", "dino_backbone", "mae_finetuned_cls_token", "mae_full_normpix_false"),
    *(
        "tf_vit_cls",
        "tf_vit_cls_build_only",
        "tf_vit_model",
        "tf_vitmae_pretraining",
        "timm_hub_folder",
        "timm_vit_pth",
    ),
    *("timm_vit_no_qkv_bias", "timm_vit_nohead", "timm_vit_safetensors", "torchvision_vit"),
]


def weight_file(path):
    return next(p for p in path.iterdir() if p.suffix in {".h5", ".msgpack", ".safetensors"}) if path.is_dir() else path


@pytest.mark.parametrize("name", PLAIN)
def test_a_library_s_file_written_again_is_the_same(tmp_path, name):
    (entry,) = (entry for entry in ENTRIES if entry["name"] == name)
    dialect = conversion.detect(source(entry))
    target = path_of(tmp_path, dialect, "again")
    conversion.convert(source(entry), target, to=dialect, cls=entry["target"], **keywords(entry))
    ours, theirs = (open_any(weight_file(path)).tensors for path in (target, source(entry)))
    assert ours.keys() == theirs.keys()
    for key, tensor in theirs.items():
        assert (ours[key].dtype, ours[key].shape) == (tensor.dtype, tensor.shape)
        assert ours[key].read().tobytes() == tensor.read().tobytes(), key


@pytest.mark.parametrize("name", ["hf4_vit_cls", "hf4_vitmae_pretraining", "hf4_vit_cls_bf16", "flax_vit_cls"])
def test_and_byte_for_byte(tmp_path, name):
    (entry,) = (entry for entry in ENTRIES if entry["name"] == name)
    conversion.convert(source(entry), tmp_path / "again", to=conversion.detect(source(entry)))
    theirs, ours = (weight_file(path).read_bytes() for path in (source(entry), tmp_path / "again"))
    assert len(theirs) == len(ours)
    assert theirs == ours or "flax" in name  # whose order is that of a dictionary


# --- what cannot be said ---------------------------------------------------------------------------------------------

REFUSALS = [
    ("hf_tf", "ViTForMaskedImageModeling", {}, {}, "it has ViTModel, .* only"),
    ("hf_tf", "ViTModel", {"qkv_bias": False}, {}, "always have biases"),
    ("hf_tf", "ViTModel", {"hidden_act": "mish"}, {"use_mask_token": True}, "no mask token"),
    ("hf_tf", "ViTModel", {"hidden_act": "laplace"}, {}, "does not know the activation 'laplace'"),
    ("hf_tf", "ViTModel", {"hidden_act": "prelu"}, {}, "activation"),
    ("hf_flax", "ViTMAEModel", {}, {}, "it has ViTModel, ViTForImageClassification only"),
    ("hf_flax", "ViTModel", {"hidden_act": "xielu"}, {}, "no activation with parameters"),
    ("timm", "ViTModel", {}, {"add_pooling_layer": True}, "no pooler"),
    ("timm", "ViTModel", {"hidden_act": "relu"}, {}, "does not know the activation 'relu'"),
    ("timm", "ViTModel", {"pruned_heads": {0: [1]}}, {}, "no pruned heads"),
    ("mae", "ViTModel", {}, {}, "it has ViTMAEModel, ViTMAEForPreTraining only"),
    ("mae", "ViTMAEForPreTraining", {"qkv_bias": False}, {}, "always have biases"),
    ("google", "ViTModel", {"qkv_bias": False}, {}, "always have biases"),
    ("google", "ViTModel", {}, {"use_mask_token": True}, "no mask token"),
    ("torchvision", "ViTForMaskedImageModeling", {}, {}, "it has ViTModel, ViTForImageClassification only"),
    ("torchvision", "ViTModel", {}, {"add_pooling_layer": True}, "no pooler"),
]


@pytest.mark.parametrize(("to", "cls", "fields", "options", "reason"), REFUSALS)
def test_what_a_dialect_cannot_say_is_refused_by_name(tmp_path, to, cls, fields, options, reason):
    checkpoint(tmp_path / "model", cls, small(cls, **fields), **options)
    target = path_of(tmp_path, to, "new")
    with pytest.raises(CheckpointError, match=f"{cls} as '{to}': .*{reason}"):
        conversion.convert(
            tmp_path / "model", target, to=to, cls=cls, allow=("numerics",), **{**options_of(cls), **options}
        )
    assert [path.name for path in tmp_path.iterdir()] == ["model"]


@pytest.mark.parametrize(
    ("to", "field", "value"),
    [
        ("google", "layer_norm_eps", 1e-12),
        ("google", "hidden_act", "gelu"),
        ("torchvision", "layer_norm_eps", 1e-12),
        ("timm", "layer_norm_eps", 1e-12),
    ],
)
def test_other_constants_are_written_only_if_allowed(tmp_path, to, field, value):
    exact = {"hidden_act": "gelu_pytorch_tanh" if to == "google" else "gelu", "layer_norm_eps": 1e-6}
    config, _ = checkpoint(
        tmp_path / "model", "ViTForImageClassification", small("ViTForImageClassification", **{**exact, field: value})
    )
    target = path_of(tmp_path, to, "new")
    with pytest.raises(CheckpointError, match=f"{field} {value!r} becomes .*\n.*numerics"):
        conversion.convert(tmp_path / "model", target, to=to)
    report = conversion.convert(tmp_path / "model", target, to=to, allow=("numerics",))
    assert any(note.startswith(f"{field} {value!r} becomes") for note in report.notes)
    found = conversion.load(target, **told(to, config, None))[0]
    assert getattr(found, field) == {**exact}[field]


def test_the_table_in_the_documentation_is_true():
    text = (Path(__file__).parents[2] / "docs" / "reference" / "conversion.md").read_text()
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in text.splitlines() if "| yes |" in line]
    assert [row[0].strip("`") for row in rows] == [*TARGETS]
    for row in rows:
        target = TARGETS[row[0].strip("`")]
        assert [cell == "yes" for cell in row[2:7]] == [cls in target.classes for cls in MODEL_CLASSES]
        assert ("folder" in row[1]) == (target.file is not None)
        assert ("no qkv bias" in row[7]) == target.needs_qkv_bias
        assert ("pooler" in row[7]) == any(name.startswith("pooler.") for name in target.lacks)
        assert ("mask token" in row[7]) == ("embeddings.mask_token" in target.lacks)
        assert ("epsilon" in row[7]) == (written()[row[0].strip("`")].numerics is not None)
