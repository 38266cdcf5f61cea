"""`vitriad verify`: what it compares, what it refuses to compare, and what it says of differences to expect."""

import json
import re

import numpy as np
import pytest
from backends import INSTALLED
from checkpoints import make_config, make_tensors, write
from foreign import ENTRIES, source

import conversion
import vitriad
from vit_core.reference import forward
from vitriad import models, verify
from vitriad.cli import main


def path(name):
    return str(source(next(entry for entry in ENTRIES if entry["name"] == name)))


@pytest.fixture
def made(tmp_path):
    """made(name, cls, change, **fields) -> the path of a small checkpoint."""

    def make(name, cls="ViTForImageClassification", change=dict, options=None, **fields):
        config = make_config(cls, **fields)
        write(tmp_path / name, config, change(make_tensors(cls, config, **(options or {}))))
        return str(tmp_path / name)

    return make


def refused(capsys, *words):
    assert main(["verify", "--backend", INSTALLED[0], *words]) == 1
    text = capsys.readouterr().err
    assert text.startswith("vitriad: error: ") and text.count("\n") <= 3
    return text


def compared(capsys, *words, status=0):
    assert main(["verify", "--json", "--backend", INSTALLED[0], *words]) == status
    return json.loads(capsys.readouterr().out)


@pytest.mark.every_day("torch")
@pytest.mark.parametrize("backend", INSTALLED)
def test_a_head_with_two_rows_exchanged_shows_in_the_class_and_not_in_the_cosine(backend, made, capsys):
    def lifted(tensors):  # all classes alike, so that the cosine sees little of what parts them
        return {**tensors, "classifier.bias": tensors["classifier.bias"] + 50}

    start = made("start", change=lifted, num_labels=7)
    config, tensors, _ = conversion.load(start, cls="ViTForImageClassification")
    logits = forward("ViTForImageClassification", config, tensors, verify._noise(config))["logits"][0]
    first, second = np.argsort(-logits)[:2]
    turn = np.arange(7)
    turn[[first, second]] = second, first

    def exchanged(tensors):
        return {n: array[turn] if n.startswith("classifier.") else array for n, array in lifted(tensors).items()}

    found = compared(capsys, start, made("turned", change=exchanged, num_labels=7), "--backend", backend, status=1)
    (row,) = found["outputs"]
    assert row["cosine"] > 0.99 and (row["top1"], row["top5"]) == (0, 1)
    shares = np.exp(logits) / np.exp(logits).sum()
    apart = (shares[first] - shares[second]) * (logits[first] - logits[second])
    np.testing.assert_allclose(row["kl"], apart, rtol=1e-3)
    assert main(["verify", start, start, "--backend", backend]) == 0
    assert re.search(r"logits +0\.00e\+00 +\S+ +1\.0000000 +100\.0% +100\.0% +0\.0e\+00\n", capsys.readouterr().out)


def test_images_of_the_user_are_what_is_compared_on(capsys):
    files = [str(file) for file in models.digit_files()[:3]]
    found = compared(capsys, "digits-vit", "digits-vit", "--images", *files)
    assert found["images"] == 3 and [(row["output"], row["top1"]) for row in found["outputs"]] == [("logits", 1)]
    assert compared(capsys, "digits-vit", "digits-vit", "--image", str(models.digit_files()[0].parent))["images"] == 20
    encoder = compared(capsys, "digits-vit", "digits-vit", "--images", *files, "--class", "ViTModel")["outputs"]
    assert [(row["top1"], row["kl"]) for row in encoder] == [(None, None)]
    masked = compared(capsys, "digits-vit-mae", "digits-vit-mae", "--images", *files)
    near = {row["output"]: row["cosine"] for row in masked["outputs"]}
    assert near.pop("loss") is None and len(near) == 3  # which is of no one image
    np.testing.assert_allclose([*near.values()], 1, rtol=1e-12)


def test_images_that_cannot_be_used_and_processors_for_nothing_are_refused(made, tmp_path, capsys):
    same = ["digits-vit", "digits-vit"]
    (tmp_path / "text.png").write_text("no image")
    assert "text.png" in refused(capsys, *same, "--images", str(tmp_path / "text.png"))
    assert "--images names some" in refused(capsys, *same, "--processor", "digits-vit")
    plain, file = made("plain"), str(models.digit_files()[0])
    assert "Pass --processor" in refused(capsys, plain, plain, "--images", file)


def without(*starts):
    return lambda tensors: {name: tensor for name, tensor in tensors.items() if not name.startswith(starts)}


def test_a_head_that_one_of_them_lacks_is_never_drawn(made, capsys):
    whole, headless = made("whole"), made("headless", change=without("classifier."))
    assert f"{headless}: as ViTForImageClassification, it lacks classifier.weight" in refused(capsys, whole, headless)
    found = compared(capsys, whole, headless, "--class", "ViTModel")
    assert [row["output"] for row in found["outputs"]] == ["last_hidden_state"] and found["same"]


def test_a_pooler_that_one_of_them_lacks_is_never_drawn(made, capsys):
    pooled, plain = made("pooled", "ViTModel"), made("plain", "ViTModel", options={"add_pooling_layer": False})
    assert f"{pooled} has a pooler and {plain} has none" in refused(capsys, pooled, plain)
    for words in ((pooled, plain, "--class", "ViTModel"), (pooled, pooled, "--set", "add_pooling_layer=false")):
        assert [row["output"] for row in compared(capsys, *words)["outputs"]] == ["last_hidden_state"]


SIZES = {
    "num_labels": {"num_labels": 3},
    "image_size": {"image_size": (8, 8)},
    "num_channels": {"num_channels": 1},
}


@pytest.mark.parametrize("field", SIZES)
def test_other_sizes_are_refused_by_name(field, made, capsys):
    one, two = made("one"), made("two", **SIZES[field])
    assert f"verify: {field} " in (text := refused(capsys, one, two))
    assert f" in {one} and " in text and f" in {two}: nothing to compare" in text


def test_outputs_of_other_shapes_are_refused_by_name(made, capsys):
    one, two = (made(name, "ViTModel", hidden_size=width) for name, width in (("one", 12), ("two", 15)))
    assert "verify: last_hidden_state: (1, 7, 12) of " in refused(capsys, one, two)


@pytest.mark.every_day("torch")
@pytest.mark.parametrize("backend", INSTALLED)
def test_a_difference_that_was_allowed_is_named_and_measured(backend, made, tmp_path, capsys):
    start, target = made("start", hidden_act="gelu", layer_norm_eps=1e-2, image_size=8), str(tmp_path / "new.npz")
    vitriad.convert(start, target, to="google", allow=["numerics"])
    found = compared(capsys, start, target, "--backend", backend, "--heads", "3", status=1)
    (note,), (row,) = found["notes"], found["outputs"]
    assert f"layer_norm_eps 0.01 in {start} and 1e-06 in {target}" in note
    assert f"hidden_act 'gelu' in {start} and 'gelu_pytorch_tanh' in {target}" in note
    np.testing.assert_allclose(row["expected"], row["difference"], rtol=1e-3)
    np.testing.assert_array_less([row["rest"], 1e-3 * row["scale"]], [1e-5 * row["scale"], row["expected"]])
    assert f"makes {row['expected'] / row['scale']:.2e} of the largest value of logits" in note


def test_what_was_left_out_as_allowed_is_named(tmp_path, capsys):
    start, target = path("google_vit_representation"), str(tmp_path / "new")
    words = ["--class", "ViTForImageClassification", "--allow", "pre_logits"]
    assert main(["convert", start, target, "--to", "hf", *words]) == 0
    capsys.readouterr()
    text = refused(capsys, start, target)
    assert "a layer with tanh (pre_logits) stands between" in text and "written without it" in text
    found = compared(capsys, start, target, *words)
    assert found["same"] and len(found["notes"]) == 1
    assert f"{start}: left out, as allowed: a layer with tanh (pre_logits)" in found["notes"][0]
