"""Trainer, accelerate, peft, Lightning and the pipelines of transformers over models of vit_torch, by both versions;
datasets over those of vit_tf.

Each script of habits/ runs in the environments of the peers, one function in a process of its own, which asserts.
"""

import json
import runpy
import subprocess
from pathlib import Path

import numpy as np
import pytest

from vit_core.parameters import draw
from vit_core.training import TrainingBatch
from vit_torch import ViTForImageClassification
from vit_torch.training import TrainStep

ROOT = Path(__file__).parent.parent.parent
EXAMPLES = ROOT / "docs" / "examples"
PEERS = {version: ROOT / f".venv-{version}" / "bin" / "python" for version in ("hf4", "hf452", "hf5")}
BOTH = ("hf4", "hf5")
pytestmark = pytest.mark.peers

SCRIPTS = {
    "with_trainer": (
        *("same_losses", "label_smoothing", "masked_image_modeling", "masked_autoencoder", "gradient_checkpointing"),
        *("whole_folders", "the_callback_alone", "the_best_model", "resuming", "prediction"),
        "options_that_theirs_has_not",
    ),
    "with_accelerate": ("the_end_of_an_example", "two_processes"),
    "with_peft": ("lora", "recomputed_layers"),
    "with_lightning": ("checkpoints_and_hyperparameters",),
    "with_pipelines": ("image_classification", "batches", "image_feature_extraction"),
}
CASES = [(script, case) for script, cases in SCRIPTS.items() for case in cases]


def run(version: str, script: str, case: str, folder: Path) -> object:
    environment = {"PYTHONPATH": str(ROOT), "HOME": str(folder), "PATH": "/usr/bin:/bin", "CUDA_VISIBLE_DEVICES": ""}
    command = [PEERS[version], "-W", "ignore", Path(__file__).parent / "habits" / f"{script}.py", case, folder]
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr[-4000:]
    return json.loads(done.stdout.splitlines()[-1])


@pytest.mark.parametrize("version", BOTH)
@pytest.mark.parametrize(("script", "case"), CASES)
def test_a_habit(version, script, case, tmp_path):
    run(version, script, case, tmp_path)


@pytest.mark.parametrize("case", ["a_transform", "columns_of_numbers"])
def test_rows_of_datasets_are_batches_for_keras(case, tmp_path):
    run("hf452", "with_datasets", case, tmp_path)


def test_layers_are_recomputed_as_the_newer_trainer_asks(tmp_path):
    run("hf5", "with_trainer", "fewer_layers_checkpointed", tmp_path)


def losses_of_our_step():
    """What the images and the recipe of the examples give in a TrainStep."""
    made = runpy.run_path(str(EXAMPLES / "stripes.py"))
    config, size = made["CONFIG"], made["BATCH"]
    model = ViTForImageClassification.from_tensors(config, draw(config, "ViTForImageClassification", 0))
    step, losses = TrainStep(model, made["RECIPE"]), []
    for number in range(made["STEPS"]):
        pixels, targets = map(np.stack, zip(*made["IMAGES"][number * size : (number + 1) * size], strict=True))
        losses.append(float(step(TrainingBatch(pixels, targets), made["SCHEDULE"](number)).loss))
    return losses


@pytest.mark.parametrize("version", BOTH)
@pytest.mark.parametrize("loop", ["accelerate", "lightning"])
def test_a_recipe_in_their_loop_has_the_curve_of_our_step(loop, version, tmp_path):
    environment = {"PYTHONPATH": str(ROOT), "HOME": str(tmp_path), "PATH": "/usr/bin:/bin", "CUDA_VISIBLE_DEVICES": ""}
    script, out = EXAMPLES / f"finetune_with_{loop}.py", tmp_path / "out"
    command = [PEERS[version], "-W", "ignore", script, "--output", out]
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr[-4000:]
    found = json.loads(done.stdout.splitlines()[-1])
    np.testing.assert_allclose(found, losses_of_our_step(), rtol=1e-5)
    assert found[-1] < 0.7 * found[0]
    assert ViTForImageClassification.from_pretrained(out).config.num_labels == 3


@pytest.mark.parametrize("version", BOTH)
def test_what_is_no_model_says_so(version, tmp_path):
    said = run(version, "with_trainer", "a_bare_folder_explains_itself", tmp_path / "trainer")
    assert "no config.json" in said and "ModelFolders" in said
    said = run(version, "with_peft", "an_adapter_is_no_model", tmp_path / "peft")
    assert "an adapter of PEFT" in said and "merge_and_unload()" in said


@pytest.mark.parametrize("version", BOTH)
def test_every_public_name_of_theirs_is_decided(version, tmp_path):
    assert run(version, "with_attributes", "undecided", tmp_path) == {}
