"""`vitriad search` and `vitriad probe`: what features of many images tell."""

import json
import shutil

import numpy as np
import pytest
from backends import INSTALLED
from PIL import Image

from vit_core.errors import InputError
from vit_core.images.sources import image_sources, source_of
from vit_core.training.data import split
from vitriad import embed, models, probe
from vitriad.cli import main
from vitriad.feature_files import read_features
from vitriad.features import Embedder
from vitriad.search import nearest

DIGITS = list(map(str, models.digit_files()))


@pytest.fixture(scope="module")
def features(tmp_path_factory):
    """The digits, in a folder for each class, and their features."""
    folder = tmp_path_factory.mktemp("classes")
    for path in models.digit_files():
        (folder / path.name[0]).mkdir(exist_ok=True)
        for copy in range(3):
            shutil.copy(path, folder / path.name[0] / f"{copy}-{path.name}")
    embedder = Embedder("digits-vit", INSTALLED[0], features=("class_token", "patch_tokens"), layers=(-1, 1))
    embed.embed(embedder, image_sources([str(folder)]), folder / "features.npz", batch_size=8)
    return folder / "features.npz"


def drawn(file):
    with Image.open(file) as picture:
        return np.asarray(picture)


# --- search ----------------------------------------------------------------------------------------------------------


def test_nearest_is_the_order_of_cosines(monkeypatch):
    random = np.random.default_rng(0)
    asked, rows = random.standard_normal((3, 8)), random.standard_normal((50, 8))
    rows[7] = rows[3] = 2 * asked[1]
    monkeypatch.setattr("vitriad.search._ROWS", 13)
    found, scores = nearest(asked, rows, 6)
    cosines = (asked @ rows.T) / np.linalg.norm(asked, axis=1)[:, None] / np.linalg.norm(rows, axis=1)
    np.testing.assert_array_equal(found, np.argsort(-cosines.round(12), axis=1, kind="stable")[:, :6])
    np.testing.assert_allclose(scores, -np.sort(-cosines, axis=1)[:, :6], rtol=1e-12)
    assert found[1, :2].tolist() == [3, 7]
    assert nearest(asked, rows, 99)[0].shape == (3, 50)
    np.testing.assert_array_equal(nearest(asked, np.zeros((2, 8)), 2)[1], np.zeros((3, 2)))


@pytest.mark.parametrize("column", ["class_token", "layer_1.class_token"])
def test_search_finds_the_picture_itself_first(features, column, tmp_path, capsys):
    out = tmp_path / "sheet.png"
    command = ["search", str(features), DIGITS[0], DIGITS[9], "--column", column, "--json", "--out", str(out)]
    assert main([*command, "--top-k", "4"]) == 0
    for path, line in zip((DIGITS[0], DIGITS[9]), capsys.readouterr().out.splitlines(), strict=True):
        found = json.loads(line)
        assert found["path"] == path and len(found["nearest"]) == 4
        assert [each["name"].endswith(path.rpartition("/")[2]) for each in found["nearest"]] == [True] * 3 + [False]
        np.testing.assert_allclose([each["cosine"] for each in found["nearest"][:3]], 1, atol=1e-6)
    assert len(np.unique(drawn(out).reshape(-1, 3), axis=0)) > 50
    assert main(["search", str(features), DIGITS[0]]) == 0
    assert "1.0000" in capsys.readouterr().out


def test_search_refuses_what_does_not_fit(features, tmp_path, capsys):
    for options, message in (
        (["--column", "patch_tokens"], "--column: expected one of class_token, layer_1.class_token"),
        (["--model", "digits-vit-mae", "--column", "class_token"], "--model digits-vit"),
        (["--out", str(tmp_path / "x.jpg")], "a .png file"),
    ):
        assert main(["search", str(features), DIGITS[0], *options]) == 1
        assert message in capsys.readouterr().err
    np.savez(tmp_path / "other.npz", name=np.array(["a"]), class_token=np.zeros((1, 7)))
    assert main(["search", str(tmp_path / "other.npz"), DIGITS[0]]) == 1
    assert "rows of (7,), and the model gives" in capsys.readouterr().err
    np.save(tmp_path / "plain.npy", np.zeros((1, 48)))
    (tmp_path / "plain.names.txt").write_text("a\n")
    assert main(["search", str(tmp_path / "plain.npy"), DIGITS[0]]) == 1
    assert "does not say which feature" in capsys.readouterr().err
    (tmp_path / "bad.png").write_bytes(b"bad")
    assert main(["search", str(features), DIGITS[0], str(tmp_path / "bad.png")]) == 3


def test_the_images_of_results_are_found_again(tmp_path):
    assert source_of("photo.png").open() == "photo.png"
    with pytest.raises(InputError):
        source_of(f"{tmp_path}/none.tar::a.png")


# --- probe -----------------------------------------------------------------------------------------------------------


def test_probes_tell_digits_apart(features, tmp_path, capsys):
    out = tmp_path / "confusion.png"
    assert main(["probe", str(features), "--out", str(out), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["train"], found["test"], len(found["classes"])) == (50, 10, 10)
    for each in found["probes"]:
        low, high = each["interval"]
        assert each["accuracy"] >= 0.9 and 0 < low < each["accuracy"] <= high + 1e-12 <= 1 + 1e-12
    assert drawn(out).shape[1] > 500
    assert main(["probe", str(features), "--column", "layer_1.class_token", "--neighbours", "1"]) == 0
    assert "k-NN (k=1)" in capsys.readouterr().out


def test_random_features_are_told_apart_by_chance_only():
    random = np.random.default_rng(0)
    rows, true = random.standard_normal((400, 16)), random.integers(0, 4, 400)
    train, test = split(true, 400, 0.5, 0)
    for found in (probe.nearest_neighbours(rows, true, train, test, 5), probe.linear(rows, true, train, test, 0)):
        assert found.interval[0] < 0.25 < found.interval[1] + 0.1


@pytest.mark.parametrize(
    ("labels", "options", "message"),
    [
        (None, ["--test-share", "1"], "between 0 and 1"),
        ({}, [], "no label for"),
        ({"one": 1}, [], "no label for"),
        ("same", [], "all 60 images are of one class"),
        ("alone", [], "'alone' has one image"),
    ],
)
def test_labels_that_do_not_fit_are_refused(features, labels, options, message, tmp_path, capsys):
    names = read_features(features)[0]
    if labels == "same":
        labels = dict.fromkeys(names, "cat")
    elif labels == "alone":
        labels = {name: "alone" if i == 0 else f"class {i % 2}" for i, name in enumerate(names)}
    if labels is not None:
        (tmp_path / "labels.json").write_text(json.dumps(labels))
        options = ["--labels", str(tmp_path / "labels.json")]
    assert main(["probe", str(features), *options]) == 1
    assert message in capsys.readouterr().err


def test_labels_come_from_a_file_by_path_or_by_name(features, tmp_path, capsys):
    names = read_features(features)[0]
    for known in (names, [name.rpartition("/")[2] for name in names]):
        labels = {name: f"digit {name.rpartition('-scan')[0][-1]}" for name in known}
        (tmp_path / "labels.json").write_text(json.dumps(labels))
        assert main(["probe", str(features), "--labels", str(tmp_path / "labels.json"), "--json"]) == 0
        assert json.loads(capsys.readouterr().out)["classes"] == [f"digit {i}" for i in range(10)]


def test_probe_says_what_to_install(features, monkeypatch, capsys):
    monkeypatch.setattr(probe, "find_spec", lambda name: None)
    assert main(["probe", str(features)]) == 1
    assert "needs scikit-learn" in capsys.readouterr().err
