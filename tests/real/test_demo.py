"""`make demo` with a real model finds the halves of each photograph."""

import numpy as np
import pytest
from PIL import Image
from real import demo

from vitriad.features import Embedder
from vitriad.search import nearest

pytestmark = pytest.mark.real


def test_the_halves_nearest_to_a_photograph_are_its_own(tmp_path):
    assert demo.main(tmp_path) == 0
    photographs = demo.fetched(demo.PHOTOGRAPHS)
    halves = sorted((tmp_path / "halves").iterdir())
    embedder = Embedder(demo.model(), "torch")
    asked, known = (embedder({"path": list(map(str, paths))})["class_token"] for paths in (photographs, halves))
    for path, rows in zip(photographs, nearest(asked, known, 2)[0], strict=True):
        assert {halves[row].name.rpartition("-")[0] for row in rows} == {path.stem}
    for name in demo.NAMES:
        with Image.open(tmp_path / name) as picture:
            assert len(np.unique(np.asarray(picture).reshape(-1, 3), axis=0)) > 1000
