"""Files as training programs leave them: weights under a key, under a prefix, beside other weights."""

import numpy as np
import pytest
from checkpoints import make_config, make_tensors, write
from weight_files import packed, torch_tree

import conversion
from vit_core.errors import CheckpointError
from vit_core.files.containers import open_any

CLS = "ViTForImageClassification"
CONFIG = make_config(CLS)
TENSORS = make_tensors(CLS, CONFIG)


@pytest.fixture
def folder(tmp_path):
    CONFIG.save_pretrained(tmp_path)
    return tmp_path


def same(found):
    assert found.keys() == TENSORS.keys()
    for name, array in TENSORS.items():
        np.testing.assert_array_equal(found[name], array, err_msg=name)


KEYS = ("model_state_dict", "net_state_dict", "module", "network", "params", "weights", "model_weights")


@pytest.mark.parametrize("key", KEYS)
def test_weights_under_a_usual_key(folder, key):
    for tree in ({key: TENSORS}, {"epoch": 3, "model": {key: TENSORS}, "optimizer": {"state": {}}}):
        path = torch_tree(folder / "run.pth", tree)
        _, found, report = conversion.load(path)
        same(found)
        assert any(key in note and note.startswith("weights: ") for note in report.notes)


@pytest.mark.parametrize("key", KEYS)
def test_a_usual_key_without_weights_hides_none(folder, key):
    same(conversion.load(torch_tree(folder / "run.pth", {**TENSORS, key: {"lr": 0.1}}))[1])


def test_weights_under_a_key_of_ones_own(folder):
    path = torch_tree(folder / "run.pth", {"trainer": {"my.net": TENSORS}, "mine": TENSORS, "n": 1})
    with pytest.raises(CheckpointError, match=r"no weights in it, .*\nSay where they are: weights='mine'"):
        conversion.load(path)
    for weights in ("mine", "trainer.my.net"):
        same(conversion.load(path, weights=weights)[1])
    for weights in ("trainer", "trainer.my", "n", "mine.x", "trainer.my.nets", ".mine"):
        with pytest.raises(CheckpointError, match="no weights in it"):
            conversion.load(path, weights=weights)
    path = torch_tree(folder / "run.pth", {"model": TENSORS, "mine": {name: -array for name, array in TENSORS.items()}})
    np.testing.assert_array_equal(
        conversion.load(path, weights="mine")[1]["classifier.bias"], -TENSORS["classifier.bias"]
    )


def test_two_usual_keys_are_asked_about(folder):
    path = torch_tree(folder / "run.pth", {"model": TENSORS, "network": TENSORS})
    with pytest.raises(CheckpointError, match="several sets of weights: 'model', 'network'"):
        conversion.load(path)
    same(conversion.load(path, weights="network")[1])


# --- Flax ------------------------------------------------------------------------------------------------------------


@pytest.fixture
def parameters(folder):
    """What Flax's `to_bytes` writes of the parameters."""
    write(folder / "ours", CONFIG, TENSORS)
    conversion.convert(folder / "ours", folder / "flax", to="hf_flax")
    return (folder / "flax" / "flax_model.msgpack").read_bytes()


def packed_map(**values):
    return bytes([0x80 | len(values)]) + b"".join(
        bytes([0xA0 | len(key)]) + key.encode() + value for key, value in values.items()
    )


def saved(folder, content):
    (folder / "state.msgpack").write_bytes(content)
    return folder / "state.msgpack"


PLAIN = {  # as MessagePack and Flax write them
    **{"None": b"\xc0", "True": b"\xc3", "5": b"\x05", "-1": b"\xff", "-9": b"\xd1\xff\xf7", "1.5": b"\xcb" + bytes(8)},
    **{
        "10**5": b"\xce\0\1\x86\xa0",
        "text": b"\xa3abc",
        "bytes": b"\xc4\3abc",
        "(1, [2])": b"\x92\1\x91\2",
        "()": b"\x80",
    },
    **{
        "complex": b"\xc7\x12\2\x92\xcb" + bytes(8) + b"\xcb" + bytes(7),
        "np.int32(5)": packed((), "int32", bytes(4), 3),
    },
    **{"an array": packed((2,), "uint32"), "arrays": packed_map(mean=packed(), n=b"\1")},
}
COUNT = packed((), "int32", bytes(4))


@pytest.mark.parametrize("depth", [1, 2, 3])
def test_flax_variables_are_read_as_their_parameters(folder, parameters, depth):
    """{"params": parameters}, once or as a module's variables inside another's."""
    same(conversion.load(saved(folder, depth * b"\x81\xa6params" + parameters))[1])


@pytest.mark.parametrize("depth", [0, 1])
def test_a_train_state_of_flax(folder, parameters, depth):
    """The moments of an optimiser have the names of all parameters; they are no other models, and are not held."""
    params = depth * b"\x81\xa6params" + parameters
    adam = packed_map(count=COUNT, mu=params, nu=params)
    for step in (b"\x05", COUNT):
        content = packed_map(step=step, opt_state=packed_map(**{"0": adam, "1": b"\x80"}), params=params)
        _, tensors, report = conversion.load(path := saved(folder, content))
        same(tensors)
        assert report.dialect == "hf_flax"
        assert not any("opt_state" in name for name in open_any(path).tensors)
    chained = packed_map(params=params, optimizer=packed_map(**{"0": adam, "1": packed_map(trace=params)}))
    same(conversion.load(saved(folder, chained))[1])


@pytest.mark.parametrize("value", PLAIN)
def test_plain_values_beside_parameters_are_passed_over(folder, parameters, value):
    for content in (
        packed_map(params=parameters, it=PLAIN[value]),
        packed_map(it=PLAIN[value], params=parameters, other=packed_map(deep=PLAIN[value])),
        packed_map(opt_state=PLAIN[value], params=parameters),
    ):
        same(conversion.load(saved(folder, content))[1])


@pytest.mark.parametrize("value", [name for name in PLAIN if "array" not in name and name != "()"])
def test_a_plain_value_in_place_of_a_parameter_is_refused(folder, parameters, value):
    pooler = packed_map(pooler=packed_map(dense=packed_map(kernel=PLAIN[value])))
    content = b"\x81\xa6params" + bytes([parameters[0] + 1]) + pooler[1:] + parameters[1:]
    with pytest.raises(CheckpointError, match=r"params\.pooler\.dense\.kernel: expected a tensor, got "):
        conversion.load(saved(folder, content))


def test_an_average_beside_the_parameters_is_asked_about(folder, parameters):
    path = saved(folder, packed_map(step=b"\5", params=parameters, ema_params=parameters))
    with pytest.raises(CheckpointError, match="several sets of weights: 'ema_params', 'params'"):
        conversion.load(path)
    for weights in ("params", "ema_params"):
        same(conversion.load(path, weights=weights)[1])
