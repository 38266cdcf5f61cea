"""What `vitriad deploy` writes, before the real thing: a Triton, and the messages that TensorFlow Serving reads.

nvidia-pytriton brings Triton 2.51 with its Python backend alone, so a few lines of Python call onnxruntime in place of
Triton's own backend; the configuration is the one that was written, but for the lines that name the backend.
"""

import os
import shutil
import subprocess
import sysconfig
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from serving import ask, wait_for

import vitriad
from vitriad import models
from vitriad.classify import load_processor, predict, read_pixels
from vitriad.deploy import deploy
from vitriad.web import listen

pytestmark = [pytest.mark.triton, pytest.mark.timeout(600)]

PYTHON = Path(os.environ.get("VITRIAD_TRITON", "python"))
BACKEND = """
import sys
sys.path.insert(0, {site!r})
import os
import onnxruntime
import triton_python_backend_utils as utils


class TritonPythonModel:
    def initialize(self, said):
        file = os.path.join(said["model_repository"], said["model_version"], "model.onnx")
        self.session = onnxruntime.InferenceSession(file, providers=["CPUExecutionProvider"])

    def execute(self, requests):
        names = [each.name for each in self.session.get_outputs()]
        found = [self.session.run(names, {{a.name(): a.as_numpy() for a in each.inputs()}}) for each in requests]
        return [utils.InferenceResponse([utils.Tensor(*pair) for pair in zip(names, each)]) for each in found]
"""
CLIENT = """
import sys
import numpy as np
import tritonclient.http as http
client = http.InferenceServerClient(f"127.0.0.1:{sys.argv[1]}")
pixels = np.load(sys.argv[2])
given = http.InferInput("pixel_values", pixels.shape, "FP32")
given.set_data_from_numpy(pixels)
classes = http.InferRequestedOutput("logits", class_count=1)
np.savez(
    sys.argv[3],
    logits=client.infer("digits", [given]).as_numpy("logits"),
    best=client.infer("digits", [given], outputs=[classes]).as_numpy("logits").astype(str),
)
"""
READ = """
import sys
from google.protobuf import text_format
from tensorflow_serving.config.model_server_config_pb2 import ModelServerConfig
said = text_format.Parse(open(sys.argv[1]).read(), ModelServerConfig())
print([(each.name, each.base_path, each.model_platform) for each in said.model_config_list.config])
"""


@pytest.fixture(scope="module")
def pixels():
    config = vitriad.AutoConfig.from_pretrained(models.find("digits-vit"))
    processor = load_processor(None, models.find("digits-vit"), config)
    return np.stack([read_pixels(file.read_bytes(), processor, config) for file in models.digit_files()])


@contextmanager
def triton(repository, scratch):
    """The port of a Triton that serves a repository."""
    site = next((PYTHON.parent.parent / "lib").glob("python3*/site-packages"))
    server, version = site / "pytriton" / "tritonserver", site.parent.name.removeprefix("python")
    shutil.copytree(server / "backends", scratch / "backends")
    shutil.copy(server / "python_backend_stubs" / version / "triton_python_backend_stub", scratch / "backends/python")
    for config in repository.glob("*/config.pbtxt"):
        own = [line for line in config.read_text().splitlines() if not line.startswith("default_model_filename")]
        config.write_text("\n".join(own).replace('backend: "onnxruntime"', 'backend: "python"'))
        for version in config.parent.glob("[0-9]*"):
            (version / "model.py").write_text(BACKEND.format(site=str(site)))
    with listen(0) as free:
        port = free.getsockname()[1]
    libraries = os.pathsep.join([sysconfig.get_config_var("LIBDIR"), str(site / "nvidia_pytriton.libs")])
    command = [server / "bin" / "tritonserver", f"--model-repository={repository}", f"--http-port={port}"]
    command += [f"--backend-directory={scratch / 'backends'}", "--http-address=127.0.0.1", "--allow-grpc=false"]
    environment = {**os.environ, "LD_LIBRARY_PATH": libraries}
    with (scratch / "log").open("w") as log:
        process = subprocess.Popen([*command, "--allow-metrics=false"], stderr=log, env=environment)

    def is_ready():
        assert process.poll() is None, (scratch / "log").read_text()
        try:
            return ask(port, "/v2/health/ready")[0] == 200
        except OSError:
            return False

    try:
        wait_for(is_ready)
        yield port
    finally:
        process.terminate()
        process.wait(60)


def test_a_real_triton_takes_the_configuration_and_gives_the_numbers_and_labels(tmp_path, pixels):
    deploy("digits=digits-vit", tmp_path / "models", "triton")
    np.save(tmp_path / "pixels.npy", pixels)
    with triton(tmp_path / "models", tmp_path) as port:
        found = tmp_path / "found.npz"
        subprocess.run([PYTHON, "-c", CLIENT, str(port), tmp_path / "pixels.npy", found], check=True)
    want = predict(vitriad.load("digits-vit"), pixels)
    with np.load(found) as arrays:
        np.testing.assert_allclose(arrays["logits"], want, atol=1e-5 * np.abs(want).max())
        labels = [text.rpartition(":")[2] for text in arrays["best"].ravel()]
    assert labels == [str(index) for index in want.argmax(axis=1)]


def test_tensorflow_serving_reads_its_list_of_models(tmp_path):
    deploy("digits=digits-vit", tmp_path, "tfserving")
    done = subprocess.run([PYTHON, "-c", READ, tmp_path / "models.config"], capture_output=True, text=True)
    assert done.stdout == "[('digits', '/models/digits', 'tensorflow')]\n", done.stderr
