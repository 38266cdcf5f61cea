"""What torch's users see of a step of training: modes, gradients, random numbers, and compiled models."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from torch_models import BACKEND, make_model
from training_steps import TRAINED, make_batch, make_step

from vit_core import BackendError, InputError
from vit_core.training import Optimisation
from vit_torch import optimize_for_inference
from vit_torch.trainer_folders import ModelFolders as MovedFolders
from vit_torch.training import ModelFolders, TrainStep, loss_of

CLASSIFIER = TRAINED[0]


def test_modes_stay_as_they_were():
    model = make_model(CLASSIFIER, hidden_dropout_prob=0.5).train()
    model.vit.encoder.layer[1].eval()
    before = [module.training for module in model.modules()]
    step, batch = TrainStep(model), make_batch(CLASSIFIER, dtype="float32")
    one, two = (step.evaluate(batch)["logits"] for _ in range(2))
    np.testing.assert_array_equal(one, two)
    step(batch, 1e-3)
    with pytest.raises(InputError):
        step(batch._replace(targets=batch.targets[:2]), 1e-3)
    assert [module.training for module in model.modules()] == before


def test_what_is_frozen_asks_for_no_gradients_and_what_was_frozen_before_does_again():
    model = make_model(CLASSIFIER)
    TrainStep(model, Optimisation(freeze="encoder"))
    assert {name for name, each in model.named_parameters() if each.requires_grad} == {
        "classifier.weight",
        "classifier.bias",
    }
    TrainStep(model)
    assert all(each.requires_grad for each in model.parameters())
    autoencoder = make_model("ViTMAEForPreTraining")
    TrainStep(autoencoder)
    assert [name for name, each in autoencoder.named_parameters() if not each.requires_grad] == [
        "vit.embeddings.position_embeddings",
        "decoder.decoder_pos_embed",
    ]


def test_gradients_from_before_are_not_counted():
    step, batch = make_step(BACKEND, CLASSIFIER), make_batch(CLASSIFIER)
    loss_of(step.model, batch).backward()
    other = make_step(BACKEND, CLASSIFIER)
    np.testing.assert_array_equal(float(step(batch, 1e-3).gradient_norm), float(other(batch, 1e-3).gradient_norm))


def test_random_numbers_of_the_caller_go_on_as_if_there_were_no_step():
    step = make_step(BACKEND, CLASSIFIER, fields={"hidden_dropout_prob": 0.5})
    torch.manual_seed(5)
    expected = torch.rand(4)
    torch.manual_seed(5)
    step(make_batch(CLASSIFIER), 1e-3)
    np.testing.assert_array_equal(torch.rand(4).numpy(), expected.numpy())


@pytest.mark.every_day("ViTMAEForPreTraining")
@pytest.mark.parametrize("name", TRAINED)
def test_compiled_models_take_the_same_steps(name):
    batch, options = make_batch(name, dtype="float32"), {"clip": 1.0, "average": 0.9}
    step = make_step(BACKEND, name, "float32", **options)
    compiled = TrainStep(torch.compile(make_model(name), backend="aot_eager"), Optimisation(**options))
    for rate in (1e-3, 2e-3):
        np.testing.assert_allclose(float(compiled(batch, rate).loss), float(step(batch, rate).loss), rtol=1e-5)
    expected = step.evaluate(batch, averaged=True)
    for key, array in compiled.evaluate(batch, averaged=True).items():
        np.testing.assert_allclose(array, expected[key], rtol=1e-4, atol=1e-5, err_msg=key)
    assert [*compiled.state()] == [*step.state()]


def test_a_model_optimised_for_inference_is_refused_and_stays_so():
    model = optimize_for_inference(make_model(CLASSIFIER))
    with pytest.raises(InputError, match="optimised for inference"):
        TrainStep(model)(make_batch(CLASSIFIER, dtype="float32"), 1e-3)
    assert not any(module.training for module in model.modules())


def test_the_documented_import_stays():
    assert ModelFolders is MovedFolders


@pytest.mark.every_day("ddp-one]")
@pytest.mark.parametrize("which", ["one", "all"])
@pytest.mark.parametrize("how", ["ddp", "fsdp"])
def test_two_processes_make_the_steps_of_one(how, which):
    """Losses, norms, evaluations and gathered states; with a batch that leaves one of them without an image."""
    code = Path(__file__).with_name("on_two_processes.py")
    launch = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    command = [sys.executable, *launch, str(code), how, which]
    run = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr[-5000:]


def test_what_a_user_froze_stays_so_and_what_a_recipe_froze_is_free_again():
    model, name = make_model(CLASSIFIER), "vit.encoder.layer.0.intermediate.dense.weight"
    model.get_parameter(name).requires_grad_(False)
    TrainStep(model, Optimisation(freeze="encoder"))
    assert {key for key, each in model.named_parameters() if each.requires_grad} == {
        "classifier.weight",
        "classifier.bias",
    }
    step, before = TrainStep(model), {key: array.copy() for key, array in model.canonical_tensors().items()}
    step(make_batch(CLASSIFIER, dtype="float32"), 1e-2)
    after = model.canonical_tensors()
    assert name in {key for key in before if (after[key] == before[key]).all()}
    assert (after["vit.encoder.layer.1.intermediate.dense.weight"] != before[name]).any()
    assert f"first.{name}" not in step.state() and f"model.{name}" in step.state()
    with pytest.raises(InputError, match="no parameter is left to train"):
        TrainStep(make_model(CLASSIFIER).requires_grad_(False))


def test_processes_that_are_not_there_are_asked_for():
    with pytest.raises(BackendError, match="torchrun"):
        TrainStep(make_model(CLASSIFIER), distributed="ddp")
    with pytest.raises(InputError, match="expected 'ddp', 'fsdp' or None, got 'dp'"):
        TrainStep(make_model(CLASSIFIER), distributed="dp")
    with pytest.raises(InputError, match="float16 is not for shares of the weights"):
        TrainStep(make_model(CLASSIFIER), Optimisation(precision="float16"), distributed="fsdp")
