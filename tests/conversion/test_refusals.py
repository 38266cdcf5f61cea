"""What looks like a ViT and is none, what looks broken and is not: by name, by shape, by what is missing."""

import numpy as np
import pytest
from checkpoints import make_config, make_tensors, write

import conversion
from conversion.marks import marks
from vit_core.errors import CheckpointError
from vit_core.files.containers import open_any
from vit_core.files.safetensors import serialised
from vit_core.files.saving import write_pieces

MARKS = marks()

HEADS = {"num_attention_heads": 3}


def save(path, tensors):
    path.unlink(missing_ok=True)
    write_pieces(path, serialised(tensors, lambda size: None, metadata=None))
    return path


@pytest.fixture
def timm(tmp_path):
    """timm(change, **fields) -> a file with timm's names, changed, and the tensors as we call them."""

    def make(change=lambda tensors: None, cls="ViTForImageClassification", **fields):
        config = make_config(cls, **{"image_size": 12, "layer_norm_eps": 1e-6, **fields})
        options = {"add_pooling_layer": False} if cls == "ViTModel" else {}
        canonical = make_tensors(cls, config, **options)
        write(tmp_path / "start", config, canonical)
        conversion.convert(tmp_path / "start", tmp_path / "timm", to="timm", cls=cls, **options)
        stored = open_any(tmp_path / "timm" / "model.safetensors").tensors
        tensors = {name: tensor.read().copy() for name, tensor in stored.items()}
        change(tensors)
        return save(tmp_path / "changed.safetensors", tensors), canonical

    return make


def refused(path, match, **options):
    with pytest.raises(CheckpointError, match=match) as caught:
        conversion.load(path, **{**HEADS, **options})
    assert str(path) in str(caught.value) and str(caught.value).count("\n") < 3


@pytest.mark.parametrize("mark", MARKS)
def test_every_mark_of_another_model_is_refused_by_name(timm, mark):
    path, _ = timm(lambda tensors: tensors.update({f"blocks.0.{mark}.weight": np.ones(3, np.float32)}))
    refused(path, MARKS[mark].replace("(", r"\(").replace(")", r"\)"))


def without(*ends):
    def change(tensors):
        for name in [name for name in tensors if name.endswith(ends)]:
            del tensors[name]

    return change


def scaled(width):
    """A LayerScale on every branch."""
    names = [f"blocks.{i}.ls{k}.gamma" for i in range(2) for k in (1, 2)]
    return lambda tensors: tensors.update({name: np.ones(width, np.float32) for name in names})


def grown(name, shape):
    return lambda tensors: tensors.update({name: np.ones(shape, np.float32)})


REFUSED = {
    "no class token": (without("cls_token"), "10 positions make no square"),
    "norms without bias": (without("norm1.bias", "norm2.bias"), "missing: vit.encoder.layer.0.layernorm_before.bias"),
    "no final norm": (without("norm.weight", "norm.bias"), "missing|no sense|not there"),
    "a layer that is missing": (
        lambda t: [
            t.update({n.replace("blocks.1.", "blocks.2."): t.pop(n)}) for n in [*t] if n.startswith("blocks.1.")
        ],
        "encoder.layer.1 is missing",
    ),
    "a bias missing in one layer only": (without("blocks.1.attn.proj.bias"), "missing: vit.encoder.layer.1.attention"),
    "positions of no square": (grown("pos_embed", (1, 12, 12)), "positions make no square"),
    "positions on a plane": (grown("pos_embed", (1, 3, 3, 12)), "expected 3 axes"),
    "patches as a matrix": (grown("patch_embed.proj.weight", (12, 48)), "expected 4 axes"),
    "queries, keys and values that are not three": (grown("blocks.0.attn.qkv.weight", (35, 12)), "in a row"),
    "a scale of another width": (scaled(5), "does not fit a scale"),
    "a scale of one branch": (grown("blocks.0.ls1.gamma", (12,)), "LayerScale of 1 branches, expected 4 or none"),
    "registers of another width": (grown("reg_token", (1, 2, 5)), "register_tokens \\(1, 2, 5\\) instead of"),
    "a norm of the mean beside one of all": (grown("fc_norm.weight", (12,)), "unexpected: .*layernorm.weight"),
    "integers": (lambda t: t.update({"norm.weight": np.ones(12, np.int64)}), "no floating dtype"),
    "something else": (grown("blocks.0.unknown.weight", (3,)), "1 unexpected: blocks.0.unknown.weight"),
    "two names": (grown("blocks.0.1.norm1.bias", (12,)), "two names for the same parameter"),
    "a name behind a prefix": (grown("module.cls_token", (1, 1, 12)), "1 unexpected: module.cls_token"),
    "not finite": (lambda t: t["norm.weight"].fill(np.nan), "NaN or infinite"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_no_vit_is(timm, case):
    change, match = REFUSED[case]
    refused(timm(change)[0], match)


def test_heads_of_an_unknown_size_are_asked_for_and_never_guessed(timm):
    path, _ = timm()
    refused(
        path,
        "num_attention_heads is not in the file.*\n.*--heads on the .* vitriad convert --heads writes a folder",
        num_attention_heads=None,
    )
    assert conversion.load(path, num_attention_heads=4)[0].num_attention_heads == 4


def test_timm_s_first_small_model_is_refused(timm):
    sizes = {"hidden_size": 768, "num_hidden_layers": 8, "intermediate_size": 2304, "num_attention_heads": 8}
    path, _ = timm(cls="ViTModel", qkv_bias=False, **sizes)
    refused(path, "first vit_small_patch16_224")


def test_norms_after_blocks_are_refused_by_the_architecture(timm, tmp_path):
    timm()
    config = tmp_path / "timm" / "config.json"
    config.write_text(config.read_text().replace("vit_base_patch16_224", "vit_small_patch16_rpn_224"))
    refused(tmp_path / "timm", "rpn", num_attention_heads=None)
    config.write_text(config.read_text().replace("rpn_", "").replace('"depth"', '"qk_norm": true, "depth"'))
    refused(tmp_path / "timm", "qk_norm: expected False", num_attention_heads=None)


def load(path, **options):
    return conversion.load(path, **{**HEADS, **options})


def test_a_dead_head_is_left_out_and_said(timm):
    path, canonical = timm(lambda t: t["head.weight"].fill(0))
    _, tensors, report = load(path)
    assert report.model == "ViTModel" and any("all zero" in note for note in report.notes)
    np.testing.assert_array_equal(tensors["layernorm.weight"], canonical["vit.layernorm.weight"])


def test_biases_that_a_model_was_built_without_are_zero(timm):
    path, canonical = timm(without("attn.proj.bias", "patch_embed.proj.bias"))
    _, tensors, report = load(path)
    assert any(note.startswith("zero, since the model was built without") for note in report.notes)
    for name, tensor in tensors.items():
        is_zero = name.endswith(("attention.output.dense.bias", "projection.bias"))
        np.testing.assert_array_equal(tensor, 0 * tensor if is_zero else canonical[name], err_msg=name)


def test_keys_without_a_bias_of_their_own(timm):
    def change(tensors):
        for i in range(2):
            query, _, value = np.split(tensors.pop(f"blocks.{i}.attn.qkv.bias"), 3)
            tensors |= {f"blocks.{i}.attn.q_bias": query.copy(), f"blocks.{i}.attn.v_bias": value.copy()}

    path, canonical = timm(change)
    _, tensors, _ = load(path)
    for name, tensor in tensors.items():
        np.testing.assert_array_equal(
            tensor, 0 * tensor if name.endswith("key.bias") else canonical[name], err_msg=name
        )


def test_positions_without_a_class_row_get_a_row_of_zeros(timm):
    path, canonical = timm(lambda t: t.update({"pos_embed": t["pos_embed"][:, 1:].copy()}))
    _, tensors, _ = load(path)
    name = "vit.embeddings.position_embeddings"
    np.testing.assert_array_equal(tensors[name][:, 1:], canonical[name][:, 1:])
    np.testing.assert_array_equal(tensors[name][:, 0], 0)


def test_a_half_precision_scale_is_folded_in_float32(timm):
    def change(tensors):
        for name in tensors:
            tensors[name] = tensors[name].astype(np.float16)
        for i in range(2):
            tensors |= {f"blocks.{i}.ls{k}.gamma": np.full(12, 1e-5, np.float16) for k in (1, 2)}

    path, canonical = timm(change)
    _, tensors, _ = load(path)
    name = "vit.encoder.layer.0.output.dense.weight"
    expected = canonical[name].astype(np.float16).astype(np.float32) * np.float32(np.float16(1e-5))
    assert tensors[name].dtype == np.float32
    np.testing.assert_array_equal(tensors[name], expected)


def test_what_may_be_given_up_is_given_up_only_if_asked_for(timm):
    def distilled(tensors):
        tensors["dist_token"] = tensors["cls_token"].copy()
        tensors["head_dist.weight"], tensors["head_dist.bias"] = tensors["head.weight"], tensors["head.bias"]
        table = tensors["pos_embed"]
        tensors["pos_embed"] = np.concatenate([table[:, :1], 9 + table[:, :1], table[:, 1:]], axis=1)

    path, canonical = timm(distilled)
    refused(path, "distillation token.*\n.*--allow distillation")
    _, tensors, report = load(path, allow=("distillation",))
    assert any("left out, as allowed" in note for note in report.notes)
    for name, tensor in canonical.items():
        np.testing.assert_array_equal(tensors[name], tensor, err_msg=name)


def test_positions_are_resized_only_if_asked_for(timm):
    path, _ = timm()
    found = conversion.load_pretrained(path, "ViTForImageClassification", {**HEADS, "image_size": 20})
    assert found.tensors["vit.embeddings.position_embeddings"].shape == (1, 26, 12)
    assert any("resized to 5 x 5" in note for note in found.report.notes)
