"""Data sets of every kind, their split, and how good a classifier is: the same on every machine, and clear refusals."""

import io
import json
import tarfile

import numpy as np
import pyarrow
import pytest
from PIL import Image
from pyarrow import parquet

from vit_core import InputError
from vit_core.errors import MissingFileError
from vit_core.training.data import check_classes, class_weights, split
from vit_core.training.data_files import read_data
from vit_core.training.metrics import Tally, wilson

LEVELS = np.random.default_rng(5).integers(0, 256, (6, 5, 7), np.uint8)
LABELS = ["cat", "dog", "cat", "eel", "dog", "cat"]


def png(row):
    stream = io.BytesIO()
    Image.fromarray(LEVELS[row]).save(stream, "PNG")
    return stream.getvalue()


def folder(path):
    for row, label in enumerate(LABELS):
        place = path / label / ("deep" if row % 2 else "")
        place.mkdir(parents=True, exist_ok=True)
        (place / f"{row}.png").write_bytes(png(row))
    return path


def listed(path):
    for row in range(6):
        (path / f"{row}.png").write_bytes(png(row))
    (path / "list.csv").write_text("path,label\n" + "".join(f"{row}.png,{LABELS[row]}\n" for row in range(6)))
    return path / "list.csv"


def tars(path):
    for half in range(2):
        with tarfile.open(path / f"{half}.tar", "w") as archive:
            for row in range(3 * half, 3 * half + 3):
                said = ("cls", LABELS[row].encode()) if half else ("json", json.dumps({"label": LABELS[row]}).encode())
                for kind, content in (("png", png(row)), said):
                    member = tarfile.TarInfo(f"some.day/{row}.{kind}")
                    member.size = len(content)
                    archive.addfile(member, io.BytesIO(content))
    return path


def parquets(path):
    names = ["ape", "cat", "dog", "eel"]  # as the hub has them: numbers, and what they stand for in the metadata
    said = {"info": {"features": {"label": {"names": names}}}}
    images = [{"bytes": png(row), "path": None} for row in range(6)]
    table = pyarrow.table({"image": images, "label": [names.index(label) for label in LABELS]})
    parquet.write_table(table.replace_schema_metadata({"huggingface": json.dumps(said)}), path / "part.parquet")
    return path


def arrays(path):
    np.savez(path / "all.npz", images=LEVELS, labels=np.array(LABELS))
    return path / "all.npz"


KINDS = {"folder": folder, "list": listed, "tar": tars, "parquet": parquets, "arrays": arrays}


def levels(opened):
    if isinstance(opened, np.ndarray):
        return opened
    return np.asarray(Image.open(io.BytesIO(opened) if isinstance(opened, bytes) else opened))


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_gives_the_same_images_and_labels(kind, tmp_path):
    data = read_data(KINDS[kind](tmp_path))
    assert data.classes == ("cat", "dog", "eel")
    found = {
        (data.classes[label], levels(data.opened(row)).tobytes()) for row, label in enumerate(data.labels.tolist())
    }
    assert found == {(label, LEVELS[row].tobytes()) for row, label in enumerate(LABELS)}
    without = read_data(KINDS[kind](tmp_path), with_labels=False)
    assert (len(without), without.labels, without.classes) == (6, None, ())
    assert {levels(without.opened(row)).tobytes() for row in range(6)} == {each.tobytes() for each in LEVELS}


@pytest.mark.parametrize("kind", KINDS)
def test_a_digest_changes_with_the_data(kind, tmp_path):
    one = read_data(KINDS[kind](tmp_path))
    assert one.digest() == read_data(one.where).digest()
    assert one.with_classes(("dog", "cat", "eel")).digest() != one.digest()


def test_classes_that_are_numbers_are_counted_as_such(tmp_path):
    np.savez(tmp_path / "a.npz", images=LEVELS, labels=np.array([10, 2, 10, 1, 2, 1]))
    assert read_data(tmp_path / "a.npz").classes == ("1", "2", "10")
    data = read_data(tmp_path / "a.npz").with_classes(["10", "7", "2", "1"])
    np.testing.assert_array_equal(data.labels, [0, 2, 0, 3, 2, 3])


def put(path, name, content=b"x"):
    (path / name).parent.mkdir(parents=True, exist_ok=True)
    (path / name).write_bytes(content)


def without(suffix):
    def make(path):
        with tarfile.open(path / "a.tar", "w") as archive:
            archive.addfile(tarfile.TarInfo("a.png"))
            if suffix:
                archive.addfile(tarfile.TarInfo(f"a.{suffix}"))
        return path / "a.tar"

    return make


def wrong(name, content):
    def make(path):
        put(path, name, content)
        return path / name

    return make


def saved(**given):
    def make(path):
        np.savez(path / "a.npz", **given)
        return path / "a.npz"

    return make


def columns(**given):
    def make(path):
        parquet.write_table(pyarrow.table(given), path / "a.parquet")
        return path / "a.parquet"

    return make


def tree(*names):
    def make(path):
        for name in names:
            put(path, name)
        return path

    return make


BAD = {
    "nothing there": (lambda path: path / "none", "no such file or folder"),
    "an empty folder": (tree("readme.md"), "no image file in this folder"),
    "another file": (wrong("a.txt", b"hello"), "expected a folder of images, or a file that ends in .csv"),
    "an image of no class": (tree("cat/1.png", "dog/2.png", "3.png"), "3.png is in no folder of a class"),
    "parts that are no classes": (tree("train/cat/1.png", "val/cat/2.png"), "train, val, which are no classes"),
    "a list without a head": (wrong("a.csv", b"1.png,cat\n"), "no column path; its first line has to be: path,label"),
    "a list with a gap": (wrong("a.csv", b"path,label\n1.png,\n"), "line 2: expected path and label"),
    "an image twice": (wrong("a.csv", b"path,label\n1.png,a\n1.png,b\n"), "1.png is there 2 times"),
    "an empty list": (wrong("a.csv", b"path,label\n"), "there is no image"),
    "no label in a tar": (without(None), "a.png: no .cls or .json beside it"),
    "no label in JSON": (without("json"), "a.json: no label in it"),
    "a broken tar": (wrong("a.tar", b"hello" * 200), "not a sound, uncompressed tar file"),
    "a broken npz": (wrong("a.npz", b"PK\x03\x04hello"), "a.npz"),
    "floats": (saved(images=LEVELS / 255, labels=np.arange(6)), "images: expected"),
    "too few labels": (saved(images=LEVELS, labels=np.arange(5)), "labels: expected (6,)"),
    "labels of no class": (saved(images=LEVELS, labels=np.arange(6), classes=["a"]), "expected 0 to 0, got 0 to 5"),
    "another column": (columns(picture=[b"x"], label=[1]), "no column image; there are picture, label"),
    "no label in a row": (columns(image=[b"x", b"y"], label=[1, None]), "a.parquet::1: no label"),
    "a broken Parquet": (wrong("a.parquet", b"PAR1 no"), "not a sound Parquet file"),
}


@pytest.mark.parametrize("case", BAD)
def test_data_that_cannot_be_used_are_refused(case, tmp_path):
    make, message = BAD[case]
    with pytest.raises((InputError, MissingFileError)) as caught:
        read_data(make(tmp_path))
    assert message in str(caught.value)


# --- split and classes -----------------------------------------------------------------------------------------------


def test_a_split_holds_out_of_every_class_what_a_seed_says():
    true = np.repeat(np.arange(4), [2, 5, 10, 30])
    train, held_out = split(true, 47, 0.2, 7)
    np.testing.assert_array_equal(np.sort(np.concatenate([train, held_out])), np.arange(47))
    np.testing.assert_array_equal(np.bincount(true[held_out]), [1, 1, 2, 6])
    np.testing.assert_array_equal(held_out, [0, 2, 15, 16, 18, 26, 27, 30, 40, 44])  # written down once
    assert split(true, 47, 0.2, 8)[1].tolist() != held_out.tolist()
    train, held_out = split(None, 10, 0.3, 7)
    np.testing.assert_array_equal(np.sort(np.concatenate([train, held_out])), np.arange(10))
    assert len(held_out) == 3


@pytest.mark.parametrize(
    ("labels", "share", "message"),
    [
        ([0, 0, 1], 0.5, "the class 'b' has one image"),
        ([0, 0], 1, "between 0 and 1"),
        (None, 0.5, "there is one image"),
    ],
)
def test_a_split_that_there_is_not_is_refused(labels, share, message):
    with pytest.raises(InputError, match=message):
        split(None if labels is None else np.array(labels), 1, share, 0, ["a", "b"])


@pytest.mark.parametrize(
    ("held_out", "message"),
    [
        (["cat", "dog", "eel", "fox"], "the class 'fox' is held out, but is not in"),
        (["cat", "eel"], "no image of 'dog' .1 such classes., which is in"),
    ],
)
def test_classes_of_one_side_only_are_refused(held_out, message, tmp_path):
    train = read_data(folder(tmp_path / "train"))
    check_classes(train, train)
    (tmp_path / "held").mkdir()
    np.savez(tmp_path / "held" / "a.npz", images=LEVELS[: len(held_out)], labels=np.array(held_out))
    with pytest.raises(InputError, match=message):
        check_classes(train, read_data(tmp_path / "held" / "a.npz"))
    with pytest.raises(InputError, match="its images have no classes"):
        check_classes(train, read_data(tmp_path / "train", with_labels=False))


def test_one_class_is_refused(tmp_path):
    np.savez(tmp_path / "a.npz", images=LEVELS, labels=np.array(["cat"] * 6))
    data = read_data(tmp_path / "a.npz")
    with pytest.raises(InputError, match="all images are of one class, 'cat'"):
        check_classes(data, data)


def test_weights_make_every_class_count_the_same():
    labels = np.array([0, 0, 0, 2, 2, 1])
    weights = class_weights(labels, 3)
    np.testing.assert_allclose([weights[labels][labels == place].sum() for place in range(3)], 2, rtol=1e-6)
    np.testing.assert_allclose(weights[labels].mean(), 1, rtol=1e-6)


# --- metrics ---------------------------------------------------------------------------------------------------------


def test_a_tally_counts_what_numpy_counts():
    random = np.random.default_rng(3)
    logits, labels = random.standard_normal((50, 8)).astype(np.float32), random.integers(0, 8, 50)
    tally = Tally(8)
    for start in range(0, 50, 17):
        tally.add(logits[start : start + 17], labels[start : start + 17])
    shares = np.exp(logits.astype(np.float64))
    shares /= shares.sum(axis=1, keepdims=True)
    ranks = (logits > logits[np.arange(50), labels][:, None]).sum(axis=1)
    np.testing.assert_allclose(tally.accuracy, (ranks == 0).mean())
    np.testing.assert_allclose(tally.accuracy_of_five, (ranks < 5).mean())
    np.testing.assert_allclose(tally.cross_entropy, -np.log(shares[np.arange(50), labels]).mean(), rtol=1e-9)
    np.testing.assert_array_equal(tally.confusion.sum(axis=1), np.bincount(labels, minlength=8))
    np.testing.assert_array_equal(tally.confusion.sum(axis=0), np.bincount(logits.argmax(axis=1), minlength=8))
    with pytest.raises(InputError, match=r"expected \(batch, 8\)"):
        tally.add(logits[:, :5], labels)
    assert np.isnan(Tally(8).accuracy)


def test_an_interval_is_wilsons():
    np.testing.assert_allclose((wilson(0, 10)[0], wilson(10, 10)[1]), (0, 1), atol=1e-12)
    np.testing.assert_allclose(wilson(50, 100), (0.4038, 0.5962), atol=1e-4)
