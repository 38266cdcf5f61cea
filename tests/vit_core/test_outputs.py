"""Model outputs: one object that is a dataclass, an ordered dict and a tuple."""

import copy
import pickle
from dataclasses import fields, replace

import numpy as np
import pytest

from vit_core.errors import InputError
from vit_core.outputs import OUTPUTS, ImageClassifierOutput, ModelOutput

FIELDS = {
    "BaseModelOutput": ["last_hidden_state", "hidden_states", "attentions"],
    "BaseModelOutputWithPooling": ["last_hidden_state", "pooler_output", "hidden_states", "attentions"],
    "ImageClassifierOutput": ["loss", "logits", "hidden_states", "attentions"],
    "MaskedImageModelingOutput": ["loss", "reconstruction", "hidden_states", "attentions"],
    "ViTMAEModelOutput": ["last_hidden_state", "mask", "ids_restore", "hidden_states", "attentions"],
    "ViTMAEForPreTrainingOutput": ["loss", "logits", "mask", "ids_restore", "hidden_states", "attentions"],
}


def test_every_class_and_the_order_of_its_fields():
    assert {cls.__name__: [field.name for field in fields(cls)] for cls in OUTPUTS} == FIELDS


@pytest.mark.parametrize("cls", OUTPUTS)
@pytest.mark.parametrize("absent", range(5))
def test_every_way_in_shows_the_fields_that_are_present(cls, absent):
    names = [name for place, name in enumerate(FIELDS[cls.__name__]) if place != absent]
    values = [np.full((2, 3), place) for place in range(len(names))]
    output = cls(**dict(zip(names, values, strict=True)))
    for place, (name, value) in enumerate(zip(names, values, strict=True)):
        assert output[name] is value
        assert getattr(output, name) is value
        assert output[place] is value
        assert output[place - len(names)] is value
        assert name in output
    assert list(output) == list(output.keys()) == names
    assert all(a is b for a, b in zip(output.to_tuple(), values, strict=True))
    assert list(map(id, output.values())) == [id(value) for _, value in output.items()] == list(map(id, values))
    assert (output[:2], output[1:], output[::-1]) == (tuple(values[:2]), tuple(values[1:]), tuple(values[::-1]))
    assert len(output) == len(names)
    assert isinstance(output, ModelOutput) and isinstance(output, dict)
    for name in {*FIELDS[cls.__name__]} - {*names}:
        assert getattr(output, name) is None
        assert name not in output
        with pytest.raises(KeyError):
            output[name]
    with pytest.raises(IndexError):
        output[len(names)]


@pytest.fixture
def output():
    return ImageClassifierOutput(logits=np.arange(3.0), attentions=(np.ones(2),))


def test_an_empty_output():
    output = ImageClassifierOutput()
    assert (output.to_tuple(), list(output), len(output), bool(output), output[:]) == ((), [], 0, False, ())


@pytest.mark.parametrize(
    "again",
    [
        copy.copy,
        copy.deepcopy,
        lambda output: output.copy(),
        lambda output: pickle.loads(pickle.dumps(output)),
        lambda output: replace(output),
        lambda output: type(output)(**output),
        lambda output: type(output)(dict(output)),  # accelerate
        lambda output: type(output)((name, value) for name, value in output.items()),  # torch.nn.DataParallel, tf.nest
        lambda output: type(output)(None, *output.to_tuple()[:1], None, output[1]),
    ],
)
def test_copies(output, again):
    other = again(output)
    assert type(other) is ImageClassifierOutput
    assert other is not output
    assert list(other) == ["logits", "attentions"]
    assert other.loss is None and other.hidden_states is None
    np.testing.assert_array_equal(other.logits, output.logits)
    np.testing.assert_array_equal(other["attentions"][0], output.attentions[0])
    other.logits = None
    assert output.logits is not None


def test_a_mapping_beside_other_fields_is_a_value():
    output = ImageClassifierOutput({"a": 1}, 2)
    assert (output.loss, output.logits) == ({"a": 1}, 2)
    assert ImageClassifierOutput([("logits", 1)]).loss == [("logits", 1)]


def test_other_forms(output):
    assert list(dict(output)) == ["logits", "attentions"]
    assert type(dict(output)) is dict
    assert (lambda **given: list(given))(**output) == ["logits", "attentions"]
    assert "logits=array" in repr(output)


def test_setting_a_field_updates_every_way_in(output):
    output.logits = 1
    assert (output.logits, output["logits"], output[0]) == (1, 1, 1)
    output["logits"] = 2
    assert (output.logits, output["logits"], output[0]) == (2, 2, 2)
    output["loss"] = 3  # was absent; stands where the class has it
    assert (output.loss, output[0], list(output)) == (3, 3, ["loss", "logits", "attentions"])
    assert pickle.loads(pickle.dumps(output)).to_tuple()[:2] == (3, 2)
    output.logits = None  # as in transformers: the entry stays
    assert (output.logits, output["logits"]) == (None, 2)


REFUSED = {
    "del output[name]": lambda output: output.__delitem__("logits"),
    "pop()": lambda output: output.pop("logits"),
    "popitem()": lambda output: output.popitem(),
    "clear()": lambda output: output.clear(),
    "setdefault()": lambda output: output.setdefault("loss", 1),
    "update()": lambda output: output.update(logits=1),
}


@pytest.mark.parametrize("operation", REFUSED)
def test_nothing_can_be_removed(operation, output):
    with pytest.raises(InputError) as caught:
        REFUSED[operation](output)
    assert str(caught.value) == f"ImageClassifierOutput: an output has no {operation}; copy it with dict(output)."
    assert list(output) == ["logits", "attentions"]


def test_no_other_key_can_be_added(output):
    for key in ("reconstruction", 0, ""):
        with pytest.raises(InputError, match="expected one of the fields loss, logits, hidden_states, attentions, got"):
            output[key] = 1
    with pytest.raises(TypeError, match="reconstruction"):
        ImageClassifierOutput({"reconstruction": 1})
