"""Decoding beside a model: the order, how far ahead, and what cannot be used; `embed` and `classify` have this one."""

import threading

import numpy as np
import pytest

from vit_core.errors import ImageError
from vit_core.images import decoding
from vit_core.images.decoding import decoded
from vit_core.images.sources import ImageSource
from vitriad import models
from vitriad.cli import main

DIGITS = [ImageSource(str(path)) for path in models.digit_files()]


def test_images_come_in_order_and_bad_ones_with_the_reason(monkeypatch):
    monkeypatch.setattr(decoding, "_cores", lambda: 4)
    later = threading.Event()

    def read(path):
        if path == DIGITS[0].name:
            assert later.wait(30)  # done after those behind it
        if path == DIGITS[3].name:
            later.set()
        if path == DIGITS[5].name:
            raise ImageError(f"{path}: bad.")
        return np.array([int(path.rpartition("-")[2].removesuffix(".png"))])

    found = [*decoded(DIGITS, read, 8)]
    assert [source for source, _ in found] == DIGITS
    assert str(found.pop(5)[1]) == f"{DIGITS[5].name}: bad."
    assert all(int(source.name.rpartition("-")[2].removesuffix(".png")) == number[0] for source, number in found)


def test_no_more_images_are_decoded_than_asked_for():
    read = []
    images = decoded(DIGITS, lambda path: read.append(path) or np.zeros(1), 3)
    next(images)
    next(images)
    images.close()  # waits for those in work
    assert 2 <= len(read) <= 4


def test_a_member_of_an_archive_is_named_with_it(tmp_path):
    (tmp_path / "a.tar").write_bytes(b"short")
    member = ImageSource(f"{tmp_path}/a.tar::b.png", f"{tmp_path}/a.tar", 0, 100)
    ((_, problem),) = decoded([member], lambda _: np.zeros(1), 2)
    assert isinstance(problem, ImageError) and str(problem).startswith(f"{member.name}: ")


def test_what_else_goes_wrong_is_raised():
    with pytest.raises(ZeroDivisionError):
        [*decoded(DIGITS[:2], lambda _: 1 / 0, 2)]


@pytest.mark.parametrize("command", ["embed", "classify"])
def test_commands_decode_here_and_nowhere_else(command, monkeypatch, tmp_path):
    def none(*_):
        raise ImageError("no decoder.")

    monkeypatch.setattr(f"vitriad.{command}.decoded", none)
    options = ["--out", str(tmp_path / "out.npz"), "--batch-size", "2"] if command == "embed" else []
    assert main([command, DIGITS[0].name, *options]) == 1
