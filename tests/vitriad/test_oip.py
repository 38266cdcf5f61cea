"""The Open Inference Protocol of `vitriad serve`: what is asked byte by byte, and what is refused."""

import json
import struct

import ml_dtypes
import numpy as np
import pytest
from backends import INSTALLED
from serving import ask, serving

import vitriad
from vitriad import models
from vitriad.classify import predict, read_pixels
from vitriad.serving.app import application
from vitriad.serving.batching import BatchLimits
from vitriad.serving.served import open_served
from vitriad.serving.service import ServeLimits, Service
from vitriad.web import WebLimits

FILES = [file.read_bytes() for file in models.digit_files()[:6]]
LIMITS = ServeLimits(WebLimits(body_bytes=300_000), BatchLimits(rows=8))
INFER = "/v2/models/digits-vit/infer"


@pytest.fixture(scope="module")
def served():
    names = ("digits-vit", "digits-vit@2=digits-vit", "digits-vit-mae")
    return [open_served(name, INSTALLED[0], any_size=True) for name in names]


@pytest.fixture(scope="module")
def port(served):
    with serving(lambda port: application(Service(served, LIMITS), port=port), LIMITS.web) as number:
        yield number


@pytest.fixture(scope="module")
def pixels(served):
    return np.stack([read_pixels(file, served[0].processor, served[0].config) for file in FILES])


@pytest.fixture(scope="module")
def model():
    return vitriad.load("digits-vit", INSTALLED[0])


def tensor(array, kind="FP32", name="pixel_values", **other):
    return {"name": name, "datatype": kind, "shape": [*array.shape], **other}


def binary(array, kind="FP32", name="pixel_values"):
    """An input and its bytes."""
    content = b"".join(struct.pack("<I", len(each)) + each for each in array) if kind == "BYTES" else array.tobytes()
    shape = [len(array)] if kind == "BYTES" else [*array.shape]
    said = {"name": name, "datatype": kind, "shape": shape, "parameters": {"binary_data_size": len(content)}}
    return said, content


def infer(port, said, blobs=b"", path=INFER, length=None):
    """Status, outputs by name (or the message of a refusal), and everything else of the JSON."""
    head = json.dumps(said).encode()
    headers = {} if not blobs and length is None else {"Inference_Header_Content_Length": str(length or len(head))}
    status, got, content = ask(port, path, head + blobs, **headers)
    size = int(got.get("inference-header-content-length", len(content)))
    answer, place, found = json.loads(content[:size]), size, {}
    if status != 200:
        assert {*answer} == {"error", "code"} and len(answer["error"].splitlines()) <= 3
        return status, answer["error"], answer["code"]
    for each in answer.pop("outputs"):
        dtype = {"FP32": "<f4", "FP64": "<f8", "UINT8": "u1"}[each["datatype"]]
        if count := each.get("parameters", {}).get("binary_data_size"):
            values = np.frombuffer(content[place : place + count], dtype)
            place += count
        else:
            values = np.array(each["data"], dtype)
        found[each["name"]] = values.reshape(each["shape"])
    assert place == len(content)
    return status, found, answer


def test_health_and_metadata(port, served):
    for path in ("/v2/health/live", "/v2/health/ready", "/v2/models/digits-vit/ready", "/v2/models/digits-vit/config"):
        assert ask(port, path)[0] == 200
    assert json.loads(ask(port, "/v2")[2])["extensions"] == ["binary_tensor_data", "model_configuration"]
    about = json.loads(ask(port, "/v2/models/digits-vit")[2])
    assert (about["name"], about["versions"]) == ("digits-vit", ["1", "2"])
    shape = [-1, served[0].config.num_channels, -1, -1]
    assert about["inputs"] == [
        {"name": "pixel_values", "datatype": "FP32", "shape": shape},
        {"name": "images", "datatype": "BYTES", "shape": [-1]},
    ]
    assert [each["name"] for each in about["outputs"]] == ["logits", "probabilities"]
    index = json.loads(ask(port, "/v2/repository/index", b"{}")[2])
    names = ["digits-vit", "digits-vit.embed"] * 2 + ["digits-vit-mae", "digits-vit-mae.embed"]
    assert [each["name"] for each in index] == names
    for name in names:
        about = json.loads(ask(port, f"/v2/models/{name}")[2])
        assert about["name"] == name and about["outputs"]


@pytest.mark.parametrize("is_binary", [False, True])
def test_tensors_as_json_and_as_bytes(port, pixels, model, is_binary):
    want = predict(model, pixels)
    said = {"id": "a-1", "parameters": {"binary_data_output": is_binary}}
    for one in (tensor(pixels, data=pixels.tolist()), tensor(pixels, data=pixels.ravel().tolist())):
        _, found, answer = infer(port, {**said, "inputs": [one]})
        np.testing.assert_array_equal(found["logits"], want)
    one, content = binary(pixels)
    path = "/v2/models/digits-vit/versions/1/infer"
    _, found, other = infer(port, {**said, "inputs": [one]}, content, path)
    np.testing.assert_array_equal(found["logits"], want)
    assert (answer["id"], answer["model_version"], other["model_version"]) == ("a-1", "2", "1")
    asked = [{"name": "probabilities", "parameters": {"binary_data": not is_binary}}]
    _, found, _ = infer(port, {**said, "inputs": [one], "outputs": asked}, content)
    assert [*found] == ["probabilities"] and found["probabilities"].dtype == np.float64
    np.testing.assert_allclose(found["probabilities"].sum(axis=1), 1)


@pytest.mark.parametrize(("kind", "dtype"), [("FP16", np.float16), ("BF16", ml_dtypes.bfloat16), ("FP64", np.float64)])
def test_other_floats_are_computed_as_float32(port, pixels, model, kind, dtype):
    given = pixels.astype(dtype)
    one, content = binary(given, kind)
    _, found, _ = infer(port, {"inputs": [one]}, content)
    np.testing.assert_array_equal(found["logits"], predict(model, given.astype(np.float32)))


def test_files_and_pictures_are_prepared_as_the_library_does(port, served, pixels, model):
    one, content = binary(FILES, "BYTES", "images")
    np.testing.assert_array_equal(infer(port, {"inputs": [one]}, content)[1]["logits"], predict(model, pixels))
    channels = served[0].config.num_channels
    pictures = np.arange(2 * 30 * 20 * channels, dtype=np.uint8).reshape(2, 30, 20, channels)
    want = served[0].processor([*pictures], input_data_format="channels_last")["pixel_values"]
    for one, content in (
        binary(pictures, "UINT8", "images"),
        (tensor(pictures, "UINT8", "images", data=pictures.tolist()), b""),
    ):
        _, found, _ = infer(port, {"inputs": [one]}, content)
        np.testing.assert_array_equal(found["logits"], predict(model, np.stack(want)))


def test_tasks_beside_the_first_have_names_of_their_own(port, served, pixels):
    one, content = binary(pixels)
    want = vitriad.Embedder("digits-vit", INSTALLED[0], features=("class_token", "patch_mean"))(
        {"pixel_values": pixels}
    )
    _, found, _ = infer(port, {"inputs": [one]}, content, "/v2/models/digits-vit.embed/infer")
    for name, values in want.items():
        np.testing.assert_array_equal(found[name], values)
    mae = served[2]
    noise = np.linspace(0, 1, 6 * 16, dtype=np.float32).reshape(6, 16)
    (one, content), (two, more) = binary(pixels), binary(noise, name="noise")
    _, found, _ = infer(port, {"inputs": [one, two]}, content + more, "/v2/models/digits-vit-mae/infer")
    want = mae.call(("reconstruct", mae.usual("reconstruct")), {"pixel_values": pixels, "noise": noise})
    for name, values in want.items():
        np.testing.assert_allclose(found[name], values, rtol=1e-5, atol=1e-5)


PIXELS = np.zeros((1, 1, 16, 16), np.float32)
GOOD, CONTENT = binary(PIXELS)
TEXTS, LONG = binary([b"abc"], "BYTES", "images")
REFUSED = {
    "no JSON": (b"hello", b"", 400),
    "no object": ([1], b"", 400),
    "NaN": ({"inputs": [tensor(PIXELS, data=[float("nan")] * 256)]}, b"", 400),
    "too large to be finite": ({"inputs": [tensor(PIXELS, data=[1e300] * 256)]}, b"", 422),
    "no inputs": ({}, b"", 400),
    "inputs that are no list": ({"inputs": {"a": 1}}, b"", 400),
    "an unknown input": ({"inputs": [tensor(PIXELS, name="x", data=[0] * 256)]}, b"", 400),
    "an input twice": ({"inputs": [GOOD, GOOD]}, CONTENT * 2, 400),
    "both kinds of images": ({"inputs": [GOOD, TEXTS]}, CONTENT + LONG, 400),
    "an unknown field": ({"inputs": [GOOD], "model": "/etc/passwd"}, CONTENT, 400),
    "an unknown parameter": ({"inputs": [GOOD], "parameters": {"sequence_id": 1}}, CONTENT, 400),
    "shared memory": ({"inputs": [{**GOOD, "parameters": {"shared_memory_region": "a"}}]}, CONTENT, 400),
    "an unknown output": ({"inputs": [GOOD], "outputs": [{"name": "x"}]}, CONTENT, 400),
    "too few bytes": ({"inputs": [GOOD]}, CONTENT[:-1], 400),
    "too many bytes": ({"inputs": [GOOD]}, CONTENT + b"x", 400),
    "a size below nothing": ({"inputs": [{**GOOD, "parameters": {"binary_data_size": -1}}]}, CONTENT, 400),
    "a size that is true": ({"inputs": [{**GOOD, "parameters": {"binary_data_size": True}}]}, CONTENT, 400),
    "data twice": ({"inputs": [{**GOOD, "data": [0]}]}, CONTENT, 400),
    "another shape": ({"inputs": [{**GOOD, "shape": [1, 1, 16, 17]}]}, CONTENT, 400),
    "a shape below nothing": ({"inputs": [{**GOOD, "shape": [-1, -1, 16, 16]}]}, CONTENT, 400),
    "a shape of floats": ({"inputs": [{**GOOD, "shape": [1.0, 1, 16, 16]}]}, CONTENT, 400),
    "an endless shape": ({"inputs": [{**GOOD, "shape": [1] * 9}]}, CONTENT, 400),
    "a shape that overflows": ({"inputs": [{**GOOD, "shape": [2**62, 4]}]}, CONTENT, 400),
    "a huge shape": ({"inputs": [{**GOOD, "shape": [300_000] * 8}]}, CONTENT, 413),
    "no datatype": ({"inputs": [{**GOOD, "datatype": "FP8"}]}, CONTENT, 400),
    "FP16 as JSON": ({"inputs": [tensor(PIXELS, "FP16", data=[0] * 256)]}, b"", 400),
    "BYTES as JSON": ({"inputs": [tensor(np.zeros(1), "BYTES", "images", data=["abc"])]}, b"", 400),
    "texts for numbers": ({"inputs": [tensor(PIXELS, data=["0"] * 256)]}, b"", 400),
    "truths for numbers": ({"inputs": [tensor(PIXELS, data=[True] * 256)]}, b"", 400),
    "ragged lists": ({"inputs": [tensor(PIXELS, data=[[0], [0, 1]])]}, b"", 400),
    "numbers without end": ({"inputs": [tensor(PIXELS, data=[10**400] * 256)]}, b"", 400),
    "uint8 out of range": ({"inputs": [tensor(np.zeros((1, 2, 2, 1)), "UINT8", "images", data=[256] * 4)]}, b"", 400),
    "integers for pixel values": ({"inputs": [binary(PIXELS.astype("u1"), "UINT8")[0]]}, bytes(256), 422),
    "another rank": ({"inputs": [binary(PIXELS[0])[0]]}, CONTENT, 422),
    "other channels": ({"inputs": [binary(np.zeros((1, 2, 16, 16), "f4"))[0]]}, bytes(2048), 422),
    "less than a patch": ({"inputs": [binary(np.zeros((1, 1, 1, 1), "f4"))[0]]}, bytes(4), 422),
    "more patches than allowed": ({"inputs": [binary(np.zeros((1, 1, 64, 64), "f4"))[0]]}, bytes(16384), 422),
    "no images at all": ({"inputs": [binary(np.zeros((0, 1, 16, 16), "f4"))[0]]}, b"", 422),
    "too many images": ({"inputs": [binary(np.zeros((9, 1, 16, 16), "f4"))[0]]}, bytes(9 * 1024), 413),
    "a text that is longer": ({"inputs": [TEXTS]}, b"\xff\xff\xff\x7fabc", 400),
    "half a length": ({"inputs": [{**TEXTS, "parameters": {"binary_data_size": 2}}]}, b"ab", 400),
    "more texts than said": ({"inputs": [{**TEXTS, "shape": [2]}]}, LONG, 400),
    "a text that is no image": ({"inputs": [TEXTS]}, LONG, 422),
    "an id that is none": ({"id": 1, "inputs": [GOOD]}, CONTENT, 400),
}


@pytest.mark.parametrize("kind", REFUSED)
def test_what_is_wrong_is_refused_and_harms_nobody(port, kind, pixels, model):
    said, blobs, status = REFUSED[kind]
    if isinstance(said, bytes):
        assert ask(port, INFER, said)[0] == status
    else:
        assert infer(port, said, blobs, length=None if blobs else len(json.dumps(said)))[0] == status
    one, content = binary(pixels)
    np.testing.assert_array_equal(infer(port, {"inputs": [one]}, content)[1]["logits"], predict(model, pixels))


def test_lengths_of_the_json_that_lie(port):
    for length in ("-1", "99999999", "1e3", "0x10", "9" * 30):
        status, _, content = ask(port, INFER, b'{"inputs": []}', Inference_Header_Content_Length=length)
        assert status == 400 and b"length of the JSON" in content
    deep = b'{"inputs": ' + b"[" * 100_000 + b"]" * 100_000 + b"}"
    assert json.loads(ask(port, INFER, deep)[2])["code"] == "bad_json"


def test_other_names_and_versions(port):
    paths = ("other/infer", "digits-vit/versions/3/infer", "digits-vit.other/infer", "digits-vit.classify.x/infer")
    for path in (*paths, "digits-vit/versions/../infer", "%2e%2e/infer", "digits-vit%00/infer"):
        assert ask(port, f"/v2/models/{path}", b"{}")[0] == 404
