"""The server of `vitriad serve`: what it answers people, how it refuses, and to whom it answers."""

import base64
import io
import json
import logging
import re
import subprocess
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from backends import INSTALLED
from PIL import Image
from serving import ask, serving

import vitriad
from vit_core.masking import noise
from vitriad import models
from vitriad.classify import load_processor, predict, probabilities, read_pixels
from vitriad.reconstruct import load_autoencoder, pictures, reconstruct
from vitriad.serving.app import application
from vitriad.serving.batching import BatchLimits
from vitriad.serving.served import open_served
from vitriad.serving.service import ServeLimits, Service
from vitriad.web import HEADERS, WebLimits

THREE = next(file for file in models.digit_files() if file.name.startswith("3"))
CONTENT = THREE.read_bytes()
WEB = WebLimits(body_bytes=300_000, image_pixels=1_000_000, head_seconds=2, pause_seconds=2, body_seconds=5)
LIMITS = ServeLimits(web=WEB, batch=BatchLimits(rows=8))
KEY = "k" * 32


@pytest.fixture(scope="module", params=INSTALLED)
def served(request):
    """The models that come along, one of them in two versions."""
    names = ("digits-vit", "digits-vit@2=digits-vit", "digits-vit-mae")
    return [open_served(name, request.param) for name in names]


@contextmanager
def running(served, limits=LIMITS, **options):
    def make(port):
        return application(Service(served, limits), port=port, **options)

    with serving(make, limits.web) as port:
        yield port


@pytest.fixture(scope="module")
def port(served):
    with running(served) as number:
        yield number


def found(port, path, body=None, **headers):
    status, _, content = ask(port, path, body, **headers)
    assert status == 200, content
    return json.loads(content)


def refused(port, path, body=None, **headers):
    """Status, code and message of a refusal."""
    status, _, content = ask(port, path, body, **headers)
    error = json.loads(content)["error"]
    assert {*error} == {"code", "message"} and len(error["message"].splitlines()) <= 3
    return status, error["code"], error["message"]


def form(content, boundary="XYZ", lines="", end="--\r\n"):
    head = f'--{boundary}\r\nContent-Disposition: form-data; name="image"; filename="a.png"\r\n{lines}\r\n'
    return head.encode() + content + f"\r\n--{boundary}{end}".encode()


# --- what it answers -------------------------------------------------------------------------------------------------


def test_classes_are_those_of_the_library(port, served):
    answer = found(port, "/classify?top_k=10", CONTENT)
    model = vitriad.load("digits-vit", next(each.partition(",")[0] for each in [backend_of(served)]))
    processor = load_processor(None, models.find("digits-vit"), model.config)
    want = probabilities(predict(model, read_pixels(THREE, processor, model.config)[None]))[0]
    order = np.argsort(-want, kind="stable")
    assert (answer["model"], answer["version"], answer["label"]) == ("digits-vit", "2", "3")
    assert [row["label"] for row in answer["top"]] == [model.config.id2label[i] for i in order.tolist()]
    np.testing.assert_array_equal([row["score"] for row in answer["top"]], want[order])
    assert answer["score"] == answer["top"][0]["score"]
    assert len(found(port, "/classify?model=digits-vit&version=1", CONTENT)["top"]) == 5


def backend_of(served):
    return {"torch": "torch", "tensorflow": "tf", "jax": "flax"}[served[0].engine.partition(",")[0]]


def test_features_are_those_of_the_embedder(port, served):
    embedder = vitriad.Embedder("digits-vit", backend_of(served), features=("class_token", "patch_mean"))
    want = embedder({"path": np.array([str(THREE)])})
    answer = found(port, "/embed?features=patch_mean,class_token", CONTENT)
    for name in ("class_token", "patch_mean"):
        np.testing.assert_array_equal(np.float32(answer[name]), want[name][0])
    assert {*found(port, "/embed?model=digits-vit-mae", CONTENT)} == {"model", "version", "class_token"}


def test_reconstructions_are_those_of_the_library(port, served):
    answer = found(port, "/reconstruct?seed=5", CONTENT)
    model = load_autoencoder("digits-vit-mae", backend_of(served))
    processor = load_processor(None, models.find("digits-vit-mae"), model.config)
    pixels = read_pixels(THREE, processor, model.config)
    painted, removed, loss = reconstruct(model, pixels[None], noise=noise(5, 1, 16), mask_ratio=0.75)
    np.testing.assert_array_equal(answer["removed"], removed[0])
    np.testing.assert_allclose(answer["loss"], loss, rtol=1e-5)
    drawn = pictures(pixels, painted[0], removed[0], model.config, processor)
    for name, want in zip(("image", "seen", "painted", "pasted"), drawn, strict=True):
        got = np.asarray(Image.open(io.BytesIO(base64.b64decode(answer["png"][name]))))
        np.testing.assert_array_equal(got, want)
    status, headers, content = ask(port, "/reconstruct?seed=5", CONTENT, Accept="image/png")
    assert (status, headers["content-type"]) == (200, "image/png")
    assert content == base64.b64decode(answer["png"]["pasted"])


def test_a_form_is_what_curl_sends(port):
    want = found(port, "/classify", CONTENT)
    kind = "multipart/form-data; boundary="
    lines = "Content-Type: image/png\r\n"
    assert found(port, "/classify", form(CONTENT, lines=lines), Content_Type=kind + "XYZ") == want
    assert found(port, "/classify", form(CONTENT, end="--"), Content_Type=kind + '"XYZ"') == want


BAD_FORMS = {
    "two parts": form(CONTENT, end="\r\n") + form(CONTENT),
    "text before": b"hello\r\n" + form(CONTENT),
    "text after": form(CONTENT) + b"hello",
    "no end": form(CONTENT)[:-6],
    "no head": b"--XYZ\r\n" + CONTENT + b"\r\n--XYZ--\r\n",
    "no part": b"--XYZ--\r\n",
    "another boundary": form(CONTENT, "ABC"),
    "base64": form(base64.b64encode(CONTENT), lines="Content-Transfer-Encoding: base64\r\n"),
    "a long head": form(CONTENT, lines=f"X-Long: {'x' * 5000}\r\n"),
}


@pytest.mark.parametrize("kind", BAD_FORMS)
def test_other_forms_are_refused(port, kind):
    headers = {"Content-Type": "multipart/form-data; boundary=XYZ"}
    assert refused(port, "/classify", BAD_FORMS[kind], **headers)[:2] == (400, "bad_form")


def test_kinds_of_forms_and_empty_images(port):
    for kind in ("multipart/form-data", "multipart/mixed; boundary=XYZ", "multipart/form-data; boundary=" + "x" * 71):
        assert refused(port, "/classify", form(CONTENT), Content_Type=kind)[:2] == (415, "unsupported_type")
    headers = {"Content-Type": "multipart/form-data; boundary=XYZ"}
    for body, sent in ((b"", {}), (form(b""), headers)):
        assert refused(port, "/classify", body, **sent)[:2] == (422, "bad_image")


def test_it_says_what_it_has(port, served):
    rows = found(port, "/models")["models"]
    assert [(row["name"], row["version"], row["tasks"]) for row in rows] == [
        ("digits-vit", "1", ["classify", "embed"]),
        ("digits-vit", "2", ["classify", "embed"]),
        ("digits-vit-mae", "1", ["reconstruct", "embed"]),
    ]
    assert found(port, "/live") == {"live": True} and found(port, "/ready") == {"ready": True}
    text = ask(port)[2].decode()
    assert f"curl --data-binary @image.png http://127.0.0.1:{port}/classify?model=digits-vit" in text
    document = found(port, "/openapi.json")
    paths = {path for path in document["paths"] if ask(port, path, b"x", "POST")[0] != 404}
    assert paths == {*document["paths"]} >= {"/classify", "/embed", "/reconstruct", "/models"}


def test_the_examples_of_the_guide_run_with_curl(port, tmp_path):
    page = (Path(__file__).parents[2] / "docs" / "guides" / "serving.md").read_text(encoding="utf-8")
    examples = re.findall(r"^curl .*$", page, flags=re.MULTILINE)
    assert len(examples) >= 5
    for name, kind in (("photo.jpg", "JPEG"), ("photo.png", "PNG")):
        Image.open(THREE).save(tmp_path / name, kind)
    for line in examples:
        words = line.replace("127.0.0.1:8000", f"127.0.0.1:{port}").replace("curl ", "curl -sS --fail-with-body ", 1)
        done = subprocess.run(["bash", "-c", words], cwd=tmp_path, capture_output=True, timeout=120)
        assert done.returncode == 0, (line, done.stdout, done.stderr)
        assert ("-o painted.png" in line) or {*json.loads(done.stdout)} & {"label", "class_token", "predictions"}
    with Image.open(tmp_path / "painted.png") as picture:
        assert picture.format == "PNG"


# --- how it refuses --------------------------------------------------------------------------------------------------

REFUSED = {
    "/classify?model=other": (404, "no_such_model"),
    "/classify?model=digits-vit&version=3": (404, "no_such_model"),
    "/classify?model=digits-vit&version=x": (404, "no_such_model"),
    "/classify?model=../digits-vit": (404, "no_such_model"),
    "/classify?model=digits-vit-mae": (404, "no_such_task"),
    "/classify?top_k=0": (422, "bad_input"),
    "/classify?top_k=1e9": (422, "bad_input"),
    "/embed?features=logits": (422, "bad_input"),
    "/reconstruct?seed=x": (422, "bad_input"),
    "/reconstruct?removed=01": (422, "bad_input"),
    "/reconstruct?ratio=nan": (422, "bad_input"),
    "/nothing": (404, "not_found"),
    "/classify/": (404, "not_found"),
    "/metrics": (405, "method_not_allowed"),
}


@pytest.mark.parametrize("path", REFUSED)
def test_refusals_have_a_code(port, path):
    assert refused(port, path, CONTENT)[:2] == REFUSED[path]


def test_bad_images_and_large_bodies(port):
    assert refused(port, "/classify", b"hello")[:2] == (422, "bad_image")
    assert refused(port, "/classify", CONTENT[:60])[:2] == (422, "bad_image")
    assert refused(port, "/classify", b"x" * (WEB.body_bytes + 1))[:2] == (413, "too_large")
    file = io.BytesIO()
    Image.new("L", (1001, 1000)).save(file, "PNG")
    assert refused(port, "/classify", file.getvalue())[:2] == (422, "bad_image")
    assert found(port, "/classify", CONTENT)["label"] == "3"


def test_a_deadline_is_kept(served):
    with running(served, ServeLimits(web=WEB, deadline_seconds=0)) as port:
        assert refused(port, "/classify", CONTENT)[:2] == (504, "deadline")


def test_what_is_held_at_once_is_bounded(served):
    web = WebLimits(held_bytes=1000)
    with running(served, ServeLimits(web=web)) as port:
        for _ in range(3):  # nothing is held of what was refused
            assert refused(port, "/classify", b"x" * 1001)[:2] == (503, "busy")
            assert found(port, "/classify", CONTENT)["label"] == "3"


# --- to whom, and what it notes --------------------------------------------------------------------------------------


def test_without_a_key_nothing_but_its_health_is_told(served):
    with running(served, keys=["another key of mine", KEY]) as port:
        for path in ("/", "/models", "/metrics", "/openapi.json", "/nothing"):
            assert refused(port, path)[:2] == (401, "unauthorized")
        for given in ({"Authorization": f"Bearer {KEY}x"}, {"Authorization": KEY}, {"X-API-Key": ""}):
            assert refused(port, "/classify", CONTENT, **given)[:2] == (401, "unauthorized")
        assert ask(port, "/classify", CONTENT)[1]["www-authenticate"] == "Bearer"
        for given in ({"Authorization": f"bearer {KEY}"}, {"X-API-Key": KEY}, {"X-API-Key": "another key of mine"}):
            assert found(port, "/classify", CONTENT, **given)["label"] == "3"
        assert found(port, "/live") and found(port, "/ready")


HOSTS = {
    (): {"127.0.0.1:{}": 200, "localhost:{}": 200, "localhost": 421, "evil.example": 421, "": 421},
    ("models.example",): {
        "models.example": 200,
        "Models.Example:99": 200,
        "localhost:{}": 200,
        "x.models.example": 421,
    },
    None: {"anything:1": 200},
}


@pytest.mark.parametrize("names", HOSTS)
def test_hosts_and_origins(served, names):
    with running(served[:1], names=names) as port:
        for host, status in HOSTS[names].items():
            host = host.format(port)
            assert ask(port, "/models", Host=host)[0] == status
            if status == 200:
                assert ask(port, "/models", Host=host, Origin=f"http://{host}")[0] == 200
                for origin in ("null", "http://evil.example", f"https://{host}"):
                    assert ask(port, "/models", Host=host, Origin=origin)[0] == 403
    assert {*HEADERS} >= {"content-security-policy", "x-content-type-options"}


def test_requests_have_names_and_are_logged_and_counted(served, caplog):
    caplog.set_level(logging.INFO, "vitriad.requests")
    with running(served) as port:
        status, headers, _ = ask(port, "/classify", CONTENT, X_Request_Id="mine-1")
        assert (status, headers["x-request-id"]) == (200, "mine-1")
        assert re.fullmatch("[0-9a-f]{32}", ask(port, "/no\\where", X_Request_Id="a b")[1]["x-request-id"])
        assert ask(port, "/classify", b"hello")[0] == 422
        text = ask(port, "/metrics")[2].decode()
    lines = [json.loads(each.getMessage()) for each in caplog.records if each.name == "vitriad.requests"]
    assert [(line["status"], line["path"]) for line in lines[:3]] == [
        *((200, "/classify"), (404, "/no\\where"), (422, "/classify"))
    ]
    assert lines[0]["request"] == "mine-1" and lines[0]["seconds"] > 0
    assert 'vitriad_requests_total{method="POST",route="classify",status="200"} 1.0' in text
    assert 'vitriad_requests_total{method="GET",route="none",status="404"} 1.0' in text
    assert 'vitriad_batch_images_count{model="digits-vit",version="2"} 1.0' in text
