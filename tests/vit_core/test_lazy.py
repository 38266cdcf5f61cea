"""Packages whose names are imported on first use: what is offered, what a type checker sees, and what is not there."""

import ast
from importlib import import_module
from pathlib import Path

import pytest
from test_imports import child

PACKAGES = ("vit_core", "conversion", "vitriad")


@pytest.mark.parametrize("package", PACKAGES)
def test_every_name_is_there_and_completes(package):
    module = import_module(package)
    for name, home in module._PUBLIC.items():
        assert getattr(module, name) is getattr(import_module(home), name)
    assert {*module.__all__} <= {*dir(module)}


@pytest.mark.parametrize("package", PACKAGES)
def test_type_checkers_see_the_same_names_from_the_same_modules(package):
    module = import_module(package)
    block = next(node for node in ast.parse(Path(module.__file__).read_text()).body if isinstance(node, ast.If))
    imports = [node for node in block.body if isinstance(node, ast.ImportFrom)]
    assert {alias.asname: node.module for node in imports for alias in node.names} == module._PUBLIC


@pytest.mark.parametrize("package", PACKAGES)
def test_modules_are_found_as_attributes_and_other_names_are_not(package):
    inner = next(home for home in import_module(package)._PUBLIC.values() if home.startswith(package))
    assert child(f"import {package}\nprint({inner}.__name__)") == [inner]
    with pytest.raises(AttributeError, match=f"module '{package}' has no attribute 'Nothing'"):
        import_module(package).Nothing  # noqa: B018 - the access is what fails


@pytest.mark.parametrize("package", PACKAGES)
def test_the_package_alone_imports_no_array_and_no_picture(package):
    heavy = ("numpy", "PIL", "inspect", "json", "logging", "pathlib")
    assert child(f"import sys, {package}\nprint(*[name for name in {heavy!r} if name in sys.modules])") == []
