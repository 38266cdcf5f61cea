"""The picture of the page on architecture and the map of CONTRIBUTING.md are made from the source as it is now."""

import importlib.util
import re
from pathlib import Path

import pytest

DOCS = Path(__file__).parent.parent / "docs"
SPEC = importlib.util.spec_from_file_location("architecture", DOCS / "architecture.py")
architecture = importlib.util.module_from_spec(SPEC)
SPEC.loader.exec_module(architecture)


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_the_committed_picture_is_the_one_that_the_script_draws(theme):
    committed = (DOCS / "pictures" / f"architecture-{theme}.svg").read_text(encoding="utf-8")
    drawn = architecture.picture(architecture.THEMES[theme])
    assert committed == drawn, "make pictures: the imports or the first sentence of a package have changed"


def test_the_map_of_the_house_has_every_source_file_and_no_other():
    page = (DOCS.parent / "CONTRIBUTING.md").read_text(encoding="utf-8")
    written = page.partition(architecture.START)[2].partition(architecture.END)[0].strip()
    assert written == architecture.house_map(), "make pictures: a file, or the first sentence of one, has changed"
    named = set(re.findall(r"^- \[[^]]+\]\(([^)]+)\): .{20,}", written, flags=re.MULTILINE))
    files = {file for package in architecture.PACKAGES for file in (DOCS.parent / package).rglob("*.py")}
    assert named == {f.relative_to(DOCS.parent).as_posix() for f in files if f.name != "__init__.py"}


def test_every_package_is_a_room_and_every_arrow_goes_down():
    edges, _ = architecture.rooms()
    floor = {room: number for number, row in enumerate(architecture.floors(edges)) for room in row}
    assert {*architecture.PACKAGES} <= {*floor} == {*edges}
    assert [(room, t) for room, targets in edges.items() for t in targets if floor[room] >= floor[t]] == []


def test_frameworks_stand_where_they_are_imported():
    _, frameworks = architecture.rooms()
    assert {room: found for room, found in frameworks.items() if found} == {
        "vit_torch": {"torch"},
        "vit_tf": {"tensorflow", "keras"},
        "vit_flax": {"jax", "flax"},
        "vitriad.engines": {"torch", "tensorflow", "jax"},
    }


def test_implied_arrows_are_left_out_and_circles_are_refused():
    assert architecture.needed({"a": {"b", "c"}, "b": {"c"}, "c": set()}) == {"a": {"b"}, "b": {"c"}, "c": set()}
    with pytest.raises(SystemExit, match="circle"):
        architecture.needed({"a": {"b"}, "b": {"a"}})


def test_a_module_that_uses_an_inner_room_stands_above_it():
    uses = {"p": {"p.in"}, "p.in": {"p.low"}, "p.low": {"p.data"}, "p.data": set(), "p.top": {"p"}}
    place = {"p": "p", "p.in": "p.in", "p.low": "p", "p.data": "p.data", "p.top": "p"}
    reaching = [module for module in ("p", "p.low", "p.top") if architecture.reaches(module, {"p.in"}, uses, place)]
    assert reaching == ["p", "p.top"]
