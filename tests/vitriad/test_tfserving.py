"""TensorFlow Serving's REST form of `vitriad serve`, and the routes of Vertex AI."""

import json
from base64 import b64encode

import numpy as np
import pytest
from backends import INSTALLED
from serving import ask, serving

import vitriad
from vitriad import models
from vitriad.classify import predict, probabilities, read_pixels
from vitriad.serving.app import application
from vitriad.serving.batching import BatchLimits
from vitriad.serving.served import open_served
from vitriad.serving.service import ServeLimits, Service
from vitriad.web import WebLimits

FILES = [file.read_bytes() for file in models.digit_files()[:4]]
TEXTS = [{"b64": b64encode(file).decode()} for file in FILES]
LIMITS = ServeLimits(WebLimits(body_bytes=300_000), BatchLimits(rows=8))
PREDICT = "/v1/models/digits-vit:predict"
ROUTES = {"AIP_HEALTH_ROUTE": "/v1/endpoints/1/health", "AIP_PREDICT_ROUTE": "/v1/endpoints/1:predict"}


@pytest.fixture(scope="module")
def served():
    return [open_served(name, INSTALLED[0]) for name in ("digits-vit", "digits-vit@2=digits-vit", "digits-vit-mae")]


@pytest.fixture(scope="module")
def port(served):
    with pytest.MonkeyPatch.context() as patch:
        for name, route in ROUTES.items():
            patch.setenv(name, route)
        with serving(lambda port: application(Service(served, LIMITS), port=port), LIMITS.web) as number:
            yield number


@pytest.fixture(scope="module")
def pixels(served):
    return np.stack([read_pixels(file, served[0].processor, served[0].config) for file in FILES])


@pytest.fixture(scope="module")
def logits(pixels):
    return predict(vitriad.load("digits-vit", INSTALLED[0]), pixels)


def asked(port, said, path=PREDICT):
    status, _, content = ask(port, path, json.dumps(said).encode())
    return status, json.loads(content)


def test_instances_in_every_form_give_what_the_library_gives(port, pixels, logits):
    forms = [
        {"instances": TEXTS},
        {"instances": [{"images": each} for each in TEXTS]},
        {"instances": pixels.tolist()},
        {"instances": [{"pixel_values": each.tolist()} for each in pixels], "signature_name": "serving_default"},
    ]
    for form in forms:
        status, answer = asked(port, form)
        assert (status, [*answer]) == (200, ["predictions"])
        got = np.array([row["logits"] for row in answer["predictions"]], np.float32)
        np.testing.assert_array_equal(got, logits)
        scores = [row["probabilities"] for row in answer["predictions"]]
        np.testing.assert_array_equal(scores, probabilities(logits))


def test_inputs_by_name(port, pixels, logits):
    for inputs in (TEXTS, {"images": TEXTS}, pixels.tolist(), {"pixel_values": pixels.tolist()}):
        status, answer = asked(port, {"inputs": inputs}, "/v1/models/digits-vit/versions/1:predict")
        assert status == 200
        np.testing.assert_array_equal(np.float32(answer["outputs"]["logits"]), logits)


def test_other_tasks_are_signatures(port, pixels):
    want = vitriad.Embedder("digits-vit", INSTALLED[0])({"pixel_values": pixels})["class_token"]
    for path, name in ((PREDICT, "embed"), ("/v1/models/digits-vit.embed:predict", "")):
        _, answer = asked(port, {"signature_name": name, "instances": pixels.tolist()}, path)
        np.testing.assert_array_equal(np.float32([row["class_token"] for row in answer["predictions"]]), want)


def test_status_and_metadata(port):
    state = {"state": "AVAILABLE", "status": {"error_code": "OK", "error_message": ""}}
    found = json.loads(ask(port, "/v1/models/digits-vit")[2])
    assert found == {"model_version_status": [{"version": "1", **state}, {"version": "2", **state}]}
    assert len(json.loads(ask(port, "/v1/models/digits-vit/versions/2")[2])["model_version_status"]) == 1
    said = json.loads(ask(port, "/v1/models/digits-vit-mae/metadata")[2])
    assert said["model_spec"] == {"name": "digits-vit-mae", "signature_name": "", "version": "1"}
    signatures = said["metadata"]["signature_def"]["signature_def"]
    assert [*signatures] == ["serving_default", "reconstruct", "embed"]
    assert {*signatures["reconstruct"]["inputs"]} == {"pixel_values", "noise", "images"}
    assert signatures["embed"]["outputs"]["class_token"]["dtype"] == "DT_FLOAT"


def test_the_routes_of_vertex(port, logits):
    assert ask(port, ROUTES["AIP_HEALTH_ROUTE"])[0] == 200
    _, answer = asked(port, {"instances": TEXTS}, ROUTES["AIP_PREDICT_ROUTE"])
    np.testing.assert_array_equal(np.float32([row["logits"] for row in answer["predictions"]]), logits)


REFUSED = {
    "nothing": ({}, 400),
    "both forms": ({"instances": TEXTS, "inputs": TEXTS}, 400),
    "no instances": ({"instances": []}, 400),
    "too many instances": ({"instances": TEXTS * 3}, 400),
    "too many inputs": ({"inputs": TEXTS * 3}, 413),
    "instances of two kinds": ({"instances": [TEXTS[0], [[[0.0]]]]}, 400),
    "inputs of two lengths": ({"inputs": {"images": TEXTS, "noise": [[0.0]]}}, 400),
    "no base64": ({"instances": [{"b64": "a b"}]}, 400),
    "base64 of a number": ({"instances": [{"b64": 7}]}, 400),
    "more beside base64": ({"instances": [{"b64": "", "path": "/etc/passwd"}]}, 400),
    "an empty file": ({"instances": [{"b64": ""}]}, 422),
    "no image": ({"instances": [{"b64": b64encode(b"hello").decode()}]}, 422),
    "a good and a bad image": ({"instances": [TEXTS[0], {"b64": "aGVsbG8="}]}, 422),
    "ragged lists": ({"instances": [[[[0.0]]], [[[0.0, 1.0]]]]}, 400),
    "a text": ({"instances": ["photo.jpg"]}, 400),
    "an address": ({"instances": [{"image_url": "http://127.0.0.1/x"}]}, 400),
    "another size": ({"instances": [np.zeros((1, 8, 8)).tolist()]}, 422),
    "an unknown signature": ({"instances": TEXTS, "signature_name": "other"}, 404),
    "a signature that is a list": ({"instances": TEXTS, "signature_name": ["embed"]}, 404),
    "parameters": ({"instances": TEXTS, "parameters": {"top_k": 3}}, 400),
    "an unknown field": ({"instances": TEXTS, "model": "x"}, 400),
    "inputs that are a text": ({"inputs": "x"}, 400),
}


@pytest.mark.parametrize("kind", REFUSED)
def test_what_is_wrong_is_refused_as_this_form_has_it(port, kind, pixels, logits):
    said, status = REFUSED[kind]
    got, answer = asked(port, said)
    assert (got, {*answer}) == (status, {"error", "code"}), answer
    assert isinstance(answer["error"], str) and len(answer["error"].splitlines()) <= 3
    _, answer = asked(port, {"instances": pixels.tolist()})
    np.testing.assert_array_equal(np.float32([row["logits"] for row in answer["predictions"]]), logits)


def test_other_models_and_methods(port):
    for path in ("/v1/models/other:predict", "/v1/models/digits-vit/versions/9:predict"):
        assert asked(port, {"instances": TEXTS}, path)[0] == 404
    assert asked(port, {"instances": TEXTS}, "/v1/models/digits-vit:train")[0] == 405
    assert ask(port, PREDICT)[0] == 404  # as if a model of this name were asked for
