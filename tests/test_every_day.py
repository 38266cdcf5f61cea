"""The tests of every day are those that are named, and what names none is found."""

from types import SimpleNamespace

import pytest
from every_day import mark_what_is_long


def case(identifier, *named):
    """A test's case, as pytest has it."""
    marks = [pytest.mark.every_day(*named)] if named else []
    item = SimpleNamespace(nodeid=f"test_file.py::test_it[{identifier}]", callspec=SimpleNamespace(id=identifier))
    item.get_closest_marker = lambda name: next((mark.mark for mark in marks if mark.name == name), None)
    item.add_marker = marks.append
    item.is_long = lambda: "long" in marks
    return item


def long_of(*named):
    cases = ("torch-ViTModel", "tf-ViTModel", "tf-ViTMAEModel", "masks", "masks by xla")
    items = [case(identifier, *named) for identifier in cases]
    return mark_what_is_long(items), [item.callspec.id for item in items if item.is_long()]


def test_cases_that_are_not_named_are_long():
    assert long_of() == ({}, [])
    assert long_of("[torch", "tf ViTMAE", "[masks]") == ({}, ["tf-ViTModel", "masks by xla"])


def test_what_names_no_case_is_told():
    unknown, _ = long_of("ViTModel", "jax")
    assert unknown == {"test_file.py::test_it": ["jax"]}
