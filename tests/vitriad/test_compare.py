"""`vitriad compare`: where two models part, on the same images."""

import json

import numpy as np
import pytest
from backends import INSTALLED
from PIL import Image

import vitriad
from vit_core.parameters import draw
from vitriad import compare, models
from vitriad.cli import main
from vitriad.compare import Seen

DIGITS = list(map(str, models.digit_files()[::3]))


def asked(capsys, *arguments):
    assert main(["compare", *arguments, "--json"]) == 0
    return json.loads(capsys.readouterr().out)


@pytest.mark.parametrize("backend", INSTALLED)
def test_one_model_in_two_backends_is_the_same(backend, capsys):
    found = asked(capsys, f"digits-vit@{INSTALLED[0]}", f"digits-vit@{backend}", *DIGITS)
    np.testing.assert_allclose(found["curve"], 1, atol=1e-9)
    assert (found["top1"], found["top5"], found["parts_at"]) == (1, 1, None)
    assert abs(found["kl"]) < 1e-9 and found["images"] == len(DIGITS)


def test_two_models_part_where_their_weights_differ(tmp_path, capsys):
    model = vitriad.load("digits-vit", INSTALLED[0])
    tensors = {name: array.copy() for name, array in model.canonical_tensors().items()}
    other = draw(model.config, "ViTForImageClassification", 1)
    last = f"vit.encoder.layer.{model.config.num_hidden_layers - 1}."
    tensors |= {name: 3 * other[name] for name in tensors if name.startswith(last) and "dense" in name}
    type(model).from_tensors(model.config, tensors).save_pretrained(tmp_path / "other")
    vitriad.AutoImageProcessor.from_pretrained(models.find("digits-vit")).save_pretrained(tmp_path / "other")
    out = tmp_path / "curve.png"
    found = asked(capsys, "digits-vit", str(tmp_path / "other"), *DIGITS, "--out", str(out))
    depth = model.config.num_hidden_layers
    np.testing.assert_allclose(found["curve"][:depth], 1, atol=1e-9)
    assert found["curve"][depth] < 0.99 and found["parts_at"] == depth
    with Image.open(out) as drawn:
        assert drawn.size[0] > 600
    assert main(["compare", "digits-vit", str(tmp_path / "other"), *DIGITS]) == 0
    assert f"below 0.99 first after layer {depth}" in capsys.readouterr().out


def test_models_of_other_kinds_and_widths_are_compared(capsys):
    found = asked(capsys, "digits-vit", "digits-vit-mae", *DIGITS)
    assert "top1" not in found and found["measure"] in ("cosine", "similarity") and found["parts_at"] is not None
    random = np.random.default_rng(0)
    wide, turn = random.standard_normal((4, 30, 8)), np.linalg.qr(random.standard_normal((12, 12)))[0][:8]
    same = compare.compared(Seen(wide, None, []), Seen(wide @ turn, None, []))
    np.testing.assert_allclose(same["curve"], 1, rtol=1e-9)  # a rotation changes no distance
    apart = compare.compared(Seen(wide, None, []), Seen(random.standard_normal((4, 30, 12)), None, []))
    assert max(apart["curve"]) < 0.6


def test_agreement_is_of_labels():
    states, scores = np.ones((2, 2, 3)), np.array([[0.7, 0.2, 0.1], [0.1, 0.2, 0.7]])
    first = Seen(states, scores, ["cat", "dog", "cow"])
    turned = compare.compared(first, Seen(states, scores[:, ::-1], ["cow", "dog", "cat"]))
    assert (turned["top1"], turned["top5"]) == (1, 1) and "kl" not in turned
    other = compare.compared(first, Seen(states, scores[::-1], ["cat", "dog", "cow"]))
    assert other["top1"] == 0
    np.testing.assert_allclose(other["kl"], 0.6 * np.log(7))


def test_what_cannot_be_compared_is_refused(tmp_path, capsys):
    for arguments, message in (
        (["digits-vit@poetry", "digits-vit", *DIGITS], "poetry"),
        (["digits-vit", "digits-vit", *DIGITS, "--out", str(tmp_path / "x.gif")], "a .png file"),
        (["digits-vit", "digits-vit", str(tmp_path)], "no image file in this folder"),
    ):
        assert main(["compare", *arguments]) == 1
        assert message in capsys.readouterr().err
