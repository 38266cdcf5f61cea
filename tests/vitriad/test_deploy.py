"""`vitriad deploy`: programs where other servers look for them, and images of `vitriad serve`; all of it linted."""

import json
import re
import shlex
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import yaml
from serving import ask, serving

import vitriad
from vit_core.errors import CheckpointError, InputError
from vitriad import cli, models
from vitriad.classify import predict, read_pixels
from vitriad.deploy import IMAGES, INSTALLED, deploy
from vitriad.options import make_parser
from vitriad.serving.app import application
from vitriad.serving.keys import VARIABLE
from vitriad.serving.served import open_served
from vitriad.serving.service import ServeLimits, Service

ROOT = Path(__file__).parent.parent.parent
BIN = Path(sys.executable).parent
TENSORFLOW_ALONE = """
import sys
import numpy as np
import tensorflow as tf
serve = tf.saved_model.load(sys.argv[1]).signatures["serving_default"]
np.save(sys.argv[3], serve(pixel_values=tf.constant(np.load(sys.argv[2])))["logits"].numpy())
assert not {"vitriad", "vit_core", "vit_tf"} & {*sys.modules}
"""


@pytest.fixture(scope="module")
def pixels():
    served = open_served("digits-vit", "torch", tasks=("classify",))
    return np.stack([read_pixels(file.read_bytes(), served.processor, served.config) for file in models.digit_files()])


@pytest.fixture(scope="module")
def logits(pixels):
    return predict(vitriad.load("digits-vit", backend="torch"), pixels)


@pytest.fixture(scope="module", params=IMAGES)
def image(request, tmp_path_factory):
    """A layout of an image, and its folder."""
    folder = tmp_path_factory.mktemp("image") / "out"
    deploy("digits@3=digits-vit", folder, request.param)
    return request.param, folder


# --- programs --------------------------------------------------------------------------------------------------------


@pytest.mark.long
def test_tensorflow_alone_answers_from_its_folder_as_the_library_does(tmp_path, pixels, logits):
    folder = tmp_path / "models"
    assert cli.main(["deploy", "digits-vit", str(folder), "--to", "tfserving"]) == 0
    shutil.copytree(folder / "digits-vit", folder / "another")
    deploy(f"digits-vit@2={folder / 'digits-vit' / '1'}", folder, "tfserving")  # a program, and another version
    said = (folder / "models.config").read_text()
    assert re.findall(r'name: "(.*?)" base_path: "(.*?)"', said) == [
        ("another", "/models/another"),
        ("digits-vit", "/models/digits-vit"),
    ]
    assert sorted(path.name for path in (folder / "digits-vit").iterdir()) == ["1", "2"]
    np.save(tmp_path / "pixels.npy", pixels)
    files = [folder / "digits-vit" / "2", tmp_path / "pixels.npy", tmp_path / "found.npy"]
    done = subprocess.run(
        [sys.executable, "-c", TENSORFLOW_ALONE, *files], capture_output=True, text=True, cwd=tmp_path
    )
    assert done.returncode == 0, done.stderr
    np.testing.assert_allclose(np.load(tmp_path / "found.npy"), logits, atol=1e-5 * np.abs(logits).max())


def told(config):
    """Of a configuration of Triton its tensors: (input or output, name) -> type and sides."""
    found = re.findall(
        r'^(\w+) \[ \{ name: "(.*?)" data_type: TYPE_(\w+) dims: \[ (.*?) \]', config, flags=re.MULTILINE
    )
    return {(kind, name): (dtype, [*map(int, dims.split(", "))]) for kind, name, dtype, dims in found}


@pytest.fixture(scope="module")
def repository(tmp_path_factory):
    """A repository of models for Triton."""
    folder = tmp_path_factory.mktemp("triton")
    deploy("digits=digits-vit", folder, "triton")
    return folder


def test_triton_is_told_what_the_program_takes_and_returns(repository, pixels, logits):
    config = (repository / "digits" / "config.pbtxt").read_text()
    assert 'name: "digits"' in config and "max_batch_size: 32" in config and "dynamic_batching" in config
    session = onnxruntime.InferenceSession(repository / "digits" / "1" / "model.onnx")
    tensors = told(config)
    assert tensors == {("input", "pixel_values"): ("FP32", [1, 16, 16]), ("output", "logits"): ("FP32", [10])}
    for kind, own in (("input", session.get_inputs()), ("output", session.get_outputs())):
        assert {each.name: each.shape[1:] for each in own} == {
            n: dims for (k, n), (_, dims) in tensors.items() if k == kind
        }
        assert [each.type for each in own] == ["tensor(float)"]
    ((_, taken), (_, returned)) = tensors
    (found,) = session.run([returned], {taken: pixels})
    np.testing.assert_allclose(found, logits, atol=1e-5 * np.abs(logits).max())
    labels = (repository / "digits" / "labels.txt").read_text().splitlines()
    assert labels == [str(digit) for digit in range(10)] and 'label_filename: "labels.txt"' in config


@pytest.mark.long
@pytest.mark.parametrize(
    ("model", "options", "tensors"),
    [
        (
            "digits-vit",
            {"preprocessing": "nhwc", "dynamic": "size", "dtype": "float16"},
            {("input", "images"): ("UINT8", [-1, -1, 1]), ("output", "logits"): ("FP32", [10])},
        ),
        (
            "digits-vit-mae",
            {},
            {
                ("input", "pixel_values"): ("FP32", [1, 16, 16]),
                ("input", "noise"): ("FP32", [16]),
                ("output", "logits"): ("FP32", [16, 16]),
                ("output", "mask"): ("FP32", [16]),
            },
        ),
    ],
)
def test_programs_of_other_options_are_told_too(tmp_path, model, options, tensors):
    vitriad.export(model, tmp_path / "program", "onnx", **options)
    deploy(f"m={tmp_path / 'program'}", tmp_path / "models", "triton")
    config = (tmp_path / "models" / "m" / "config.pbtxt").read_text()
    assert told(config) == tensors
    assert ("label_filename" in config) == (model == "digits-vit")


def test_what_cannot_be_deployed_is_refused(repository, tmp_path):
    program = repository / "digits" / "1"
    with pytest.raises(InputError, match=r"tfserving runs programs of savedmodel, .* is one of onnx"):
        deploy(f"m={program}", tmp_path / "other", "tfserving")
    with pytest.raises(InputError, match="is an exported program; an image takes the checkpoint"):
        deploy(f"m={program}", tmp_path / "other", "docker")
    with pytest.raises(InputError, match="need a name of small letters"):
        deploy("My_ViT=digits-vit", tmp_path / "other", "kubernetes")
    for name in ("digits=digits-vit", f"digits={program}"):
        with pytest.raises(CheckpointError, match="something is there already"):
            deploy(name, repository, "triton")
    assert not (tmp_path / "other").exists()


def test_a_version_is_replaced_if_asked_and_others_stay(repository, tmp_path):
    program = repository / "digits" / "1"
    for version, force in ((1, False), (2, False), (1, True)):
        deploy(f"m@{version}={program}", tmp_path, "triton", force=force)
    files = sorted(path.name for path in program.iterdir())
    assert [sorted(path.name for path in (tmp_path / "m" / each).iterdir()) for each in "12"] == [files, files]


# --- images ----------------------------------------------------------------------------------------------------------


def entry(folder):
    """The command of a container, its model in this folder."""
    said = (folder / "Dockerfile").read_text()
    (first,), (then,) = (re.findall(rf"^{word} (\[.*\])$", said, flags=re.MULTILINE) for word in ("ENTRYPOINT", "CMD"))
    return [word.replace("=/model", f"={folder / 'model'}") for word in [*json.loads(first), *json.loads(then)]]


def test_the_dockerfile_is_linted_and_its_command_is_one(image):
    _, folder = image
    done = subprocess.run([BIN / "hadolint", folder / "Dockerfile"], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, ""), done.stdout + done.stderr
    arguments = make_parser().parse_args(entry(folder)[1:])
    assert (arguments.command, arguments.host, arguments.port) == ("serve", "0.0.0.0", 8080)
    served = open_served(*arguments.models, arguments.backend)
    assert (served.name, served.version, [*served.tasks]) == ("digits", "3", ["classify", "embed"])
    assert [path for path in folder.iterdir() if path.is_file() and "{{" in path.read_text()] == []


def test_hadolint_finds_what_is_wrong(image, tmp_path):
    said = (image[1] / "Dockerfile").read_text()
    (tmp_path / "Dockerfile").write_text(said.replace("-slim", "").replace("python:3.11", "python"))
    assert subprocess.run([BIN / "hadolint", tmp_path / "Dockerfile"], capture_output=True).returncode == 1


def test_what_an_image_installs_is_pinned(image):
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]
    wanted = [*project["dependencies"], *extras["torch"], *extras["serve"], *extras["play"]]
    assert {re.split(r">=", name)[0] for name in wanted if not name.startswith("vitriad")} == {*INSTALLED}
    pinned = dict(line.split("==") for line in (image[1] / "constraints.txt").read_text().splitlines())
    assert {*pinned} == {*INSTALLED} and pinned["numpy"] == np.__version__


@pytest.fixture(scope="module")
def documents(tmp_path_factory):
    """What Kubernetes and KServe are told, by kind; and the folder."""
    folder = tmp_path_factory.mktemp("kubernetes") / "out"
    deploy("digits=digits-vit", folder, "kubernetes")
    texts = [(folder / file).read_text() for file in IMAGES["kubernetes"]]
    return {each["kind"]: each for text in texts for each in yaml.safe_load_all(text)}, folder


def test_kubernetes_takes_its_documents(documents, tmp_path):
    said, folder = documents
    assert [*said] == ["Deployment", "Service", "HorizontalPodAutoscaler", "PodDisruptionBudget", "InferenceService"]
    text = (folder / "kubernetes.yaml").read_text()
    (tmp_path / "wrong.yaml").write_text(text.replace("minReplicas: 2", "minReplicas: two"))
    own = {"minReplicas", "maxReplicas", "scaleMetric", "scaleTarget"}  # of KServe; the rest is a pod
    spec = {name: value for name, value in said["InferenceService"]["spec"]["predictor"].items() if name not in own}
    pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "digits"}, "spec": spec}
    (tmp_path / "pod.yaml").write_text(yaml.safe_dump(pod))
    for path, status in (
        (folder / "kubernetes.yaml", 0),
        (tmp_path / "pod.yaml", 0),
        (tmp_path / "wrong.yaml", 1),
    ):
        done = subprocess.run([BIN / "kubernetes-validate", "--strict", path], capture_output=True, text=True)
        assert done.returncode == status, done.stdout + done.stderr
    labels = said["Deployment"]["spec"]["template"]["metadata"]["labels"]
    for selector in (said["Deployment"]["spec"]["selector"]["matchLabels"], said["Service"]["spec"]["selector"]):
        assert selector.items() <= labels.items()


@pytest.mark.parametrize("kind", ["Deployment", "InferenceService"])
def test_containers_may_write_nowhere_and_have_bounds(documents, kind):
    spec = documents[0][kind]["spec"]
    pod = spec["template"]["spec"] if kind == "Deployment" else spec["predictor"]
    (container,) = pod["containers"]
    assert pod["securityContext"]["runAsNonRoot"] and pod["securityContext"]["runAsUser"] == 10001
    assert not pod["automountServiceAccountToken"]
    own = container["securityContext"]
    assert (
        own["readOnlyRootFilesystem"] and not own["allowPrivilegeEscalation"] and own["capabilities"]["drop"] == ["ALL"]
    )
    assert container["resources"]["limits"] == container["resources"]["requests"] == {"cpu": "2", "memory": "1536Mi"}
    (key, *_) = [each for each in container["env"] if each["name"] == VARIABLE] or [None]
    assert kind == "InferenceService" or key["valueFrom"]["secretKeyRef"]["optional"]
    wait = int(container["lifecycle"]["preStop"]["exec"]["command"][1])
    assert pod["terminationGracePeriodSeconds"] > wait + ServeLimits().web.drain_seconds


def test_probes_ask_where_the_server_answers(documents):
    said, _ = documents
    pods = [said["Deployment"]["spec"]["template"]["spec"], said["InferenceService"]["spec"]["predictor"]]
    probes = [value for pod in pods for name, value in pod["containers"][0].items() if name.endswith("Probe")]
    paths = {probe["httpGet"]["path"] for probe in probes}
    assert len(probes) == 6 and len(paths) == 4
    service = Service([open_served("digits-vit", "torch", tasks=("classify",))], ServeLimits())
    keyed = {"keys": ["k" * 32], "names": None}
    with serving(lambda port: application(service, port=port, **keyed), service.limits.web) as port:
        for path in paths:
            assert ask(port, path, Host="10.0.0.7:8080")[0] == 200  # as a kubelet asks, without a key
        assert ask(port, "/models")[0] == 401


FAKE = """#!/bin/sh
printf '%s\\n' "$0 $*" >> "$CALLS"
case "$*" in *create*) echo endpoints/7 ;; *upload*) echo models/8 ;; esac
"""


def test_vertex_is_told_the_routes_of_the_server(tmp_path, monkeypatch):
    folder = tmp_path / "out"
    deploy("digits=digits-vit", folder, "vertex")
    assert subprocess.run([BIN / "shellcheck", folder / "vertex.sh"]).returncode == 0
    for name in ("docker", "gcloud"):
        (tmp_path / name).write_text(FAKE)
        (tmp_path / name).chmod(0o755)
    environment = {"PATH": f"{tmp_path}:/usr/bin:/bin", "CALLS": str(tmp_path / "calls")}
    environment |= {"PROJECT": "p", "REGION": "r", "REPOSITORY": "models"}
    subprocess.run([folder / "vertex.sh"], env=environment, check=True)
    calls = [shlex.split(line) for line in (tmp_path / "calls").read_text().splitlines()]
    assert [Path(call[0]).name for call in calls] == ["docker", "docker", "gcloud", "gcloud", "gcloud"]
    told = dict(word[2:].split("=", 1) for call in calls for word in call if word.startswith("--") and "=" in word)
    assert (told["tag"], told["container-image-uri"], told["model"]) == (
        *["r-docker.pkg.dev/p/models/digits:1"] * 2,
        "models/8",
    )
    assert "endpoints/7" in calls[-1] and told["container-ports"] == entry(folder)[-1]
    monkeypatch.setenv("AIP_HEALTH_ROUTE", told["container-health-route"])
    monkeypatch.setenv("AIP_PREDICT_ROUTE", told["container-predict-route"])
    service = Service([open_served(f"digits={folder / 'model'}", "torch")], ServeLimits())
    with serving(lambda port: application(service, port=port), service.limits.web) as port:
        assert ask(port, told["container-health-route"])[0] == 200
        body = json.dumps({"instances": np.zeros((2, 1, 16, 16)).tolist()}).encode()
        status, _, content = ask(port, told["container-predict-route"], body)
    assert status == 200 and len(json.loads(content)["predictions"]) == 2
