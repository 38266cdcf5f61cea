"""The types of keywords and the tables that the code reads say the same, and help() names every keyword."""

import ast
import inspect
import re
import typing
from pathlib import Path

import pytest
from backends import INSTALLED
from bad_calls import VIT

import vitriad
from conversion import keywords
from conversion.keywords import (
    ASSERTIONS,
    LOADING,
    MODEL_OPTIONS,
    SAVING,
    AutoKeywords,
    FamiliarLoading,
    LoadingKeywords,
    SavingKeywords,
    is_option,
)
from vit_core import ViTConfig, ViTImageProcessor, ViTMAEConfig
from vit_core.images.options import CHECKS
from vit_core.keywords import (
    PREPROCESSING,
    ConfigFields,
    ConfigKeywords,
    FamiliarPreprocessing,
    HubKeywords,
    PreprocessKeywords,
    ProcessorKeywords,
    ProcessorOptions,
)
from vitriad.auto import model_class

WRITTEN_BY_US = {"transformers_version", "name_or_path", "hub_commit"}  # fields that nobody passes


def names(typed: type) -> set[str]:
    return {*typed.__annotations__}


def values(hint: object) -> set[object]:
    """What a Literal, or bool, allows beside None."""
    parts = [part for part in typing.get_args(hint) if part is not type(None)]
    assert len(parts) == 1
    return {True, False} if parts == [bool] else {*typing.get_args(parts[0])}


def check_values(typed: type, table: dict) -> None:
    hints = typing.get_type_hints(typed)
    assert {name: values(hint) for name, hint in hints.items()} == {name: {*table[name].passes} for name in hints}


def arguments(function: object) -> tuple[set[str], type | None]:
    """Names of the arguments, and the type of the other keywords."""
    parameters = inspect.signature(function).parameters
    unpacked = re.fullmatch(r"Unpack\[(\w+)\]", str(parameters["kwargs"].annotation))
    of_module = vars(inspect.getmodule(inspect.unwrap(getattr(function, "__func__", function))))
    return {*parameters} - {"kwargs", "self"}, of_module[unpacked[1]] if unpacked else None


def test_familiar_keywords_of_loading_have_the_values_that_pass():
    assert names(FamiliarLoading) == {name for name, rule in LOADING.items() if rule.passes}
    check_values(FamiliarLoading, LOADING)


def test_the_values_of_a_table_can_differ():
    """The comparison sees a wrong value."""
    with pytest.raises(AssertionError):
        check_values(FamiliarLoading, {**LOADING, "weights_only": keywords.Rule("", (False,))})


@pytest.mark.parametrize("backend", INSTALLED)
def test_familiar_keywords_of_saving_have_the_values_that_pass(backend):
    named, others = arguments(model_class(VIT, backend).save_pretrained)
    check_values(others, SAVING)
    assert not named & names(others) and names(SavingKeywords) <= names(others)
    assert {name for name, rule in SAVING.items() if rule.passes} <= named | names(others)


def test_keywords_of_loading_are_those_that_somebody_takes():
    own = {name for name in names(LoadingKeywords) if not is_option(name)}
    assert own == names(ConfigFields) | {*MODEL_OPTIONS[VIT]}
    assert names(keywords.Asserting) == {*ASSERTIONS} and names(keywords.Parts) == {*MODEL_OPTIONS[VIT]}


@pytest.mark.parametrize("backend", INSTALLED)
def test_help_names_every_keyword_of_loading_and_shows_an_example(backend):
    load = model_class(VIT, backend).from_pretrained
    named, others = arguments(load)
    assert not named & names(others) and names(LoadingKeywords) <= names(others)
    assert {"output_loading_info", "dtype"} <= named | names(others) <= names(AutoKeywords) | named
    text = inspect.getdoc(load)
    words = {*re.findall(r"\w+", text)}
    familiar = names(FamiliarLoading) | names(ConfigFields)  # of which the text says where they are
    assert (named | names(others)) - familiar - words == set()
    assert "Example:" in text and "from_pretrained(" in text


def test_fields_of_configurations_are_all_there():
    fields = {*ViTConfig._rules, *ViTMAEConfig._rules, "num_labels"} - WRITTEN_BY_US
    assert names(ConfigFields) == fields - {"dtype"}
    assert names(ConfigKeywords) == fields | names(HubKeywords) | {"torch_dtype", "limits"}


def test_options_of_processors_are_all_there():
    assert names(ProcessorOptions) == {*CHECKS}
    assert names(ProcessorKeywords) == {*CHECKS, *names(HubKeywords), "limits"}
    own = {*inspect.signature(ViTImageProcessor.preprocess).parameters} - {"self", "images", "kwargs"}
    assert names(PreprocessKeywords) == own | names(FamiliarPreprocessing) and own & {*PREPROCESSING} == set()
    assert names(FamiliarPreprocessing) == {name for name, rule in PREPROCESSING.items() if rule.passes}
    check_values(FamiliarPreprocessing, PREPROCESSING)
    assert arguments(ViTImageProcessor.__call__) == ({"images"}, PreprocessKeywords)


@pytest.mark.parametrize("function", [ViTConfig.from_pretrained, ViTImageProcessor.from_pretrained])
def test_help_names_the_keywords_of_the_hub(function):
    assert names(HubKeywords) <= {*re.findall(r"\w+", inspect.getdoc(function))}


def test_type_checkers_see_the_names_of_the_front_door():
    (block,) = [node for node in ast.parse(Path(vitriad.__file__).read_text()).body if isinstance(node, ast.If)]
    seen = {alias.asname: node.module for node in block.body for alias in node.names}
    assert seen == vitriad._PUBLIC
