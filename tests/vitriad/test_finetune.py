"""`vitriad finetune` and `vitriad pretrain`: what they leave behind, go on from to the bit, and refuse."""

import json
import math
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from backends import INSTALLED
from PIL import Image
from small_runs import DIGITS, LEVELS, SMALL, asked, contents, stopping

import vitriad
from vit_core.errors import CheckpointError
from vit_core.tensors import to_numpy
from vit_core.training import StepResult
from vit_core.training.recipe import read_recipe
from vitriad.cli import main
from vitriad.training import memory
from vitriad.training import run as training_run
from vitriad.training.folder import RunFolder

BACKENDS = INSTALLED
RICH = [
    "operations=1",
    "mixup=0.5",
    "clip=1.0",
    "average=0.9",
    "accumulate=2",
    "drop_path=0.3",
    "class_weights=true",
]


class Killed(BaseException):
    """As a process that is killed: nobody handles it."""


# --- what a run leaves behind ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_run_leaves_models_and_what_was_measured(backend, data, tmp_path, capsys):
    out = tmp_path / "run"
    assert main(asked("finetune", data, out, "--rate", "0.01", backend=backend)) == 0
    said = capsys.readouterr().out
    assert "54 to learn from, 6 held out, 3 classes" in said and "fresh: classifier" in said
    lines = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines if "rate" in line] == [*range(1, 9)]
    assert [line["epoch"] for line in lines if "epoch" in line] == [1, 2]
    best = max((line for line in lines if "epoch" in line), key=lambda line: line["accuracy"])
    assert f"{best['accuracy']:.2%} (95 % interval" in (out / "best" / "README.md").read_text()
    with Image.open(out / "curves.png") as curves:
        assert curves.width > 500
    held_out = (out / "held-out.csv").read_text().splitlines()
    assert (held_out[0], len(held_out)) == ("path,label", 7)
    table = [line.split(",") for line in (out / "confusion.csv").read_text().splitlines()]
    assert (table[0], sum(int(cell) for row in table[1:] for cell in row[1:])) == (["true", "0", "1", "2"], 6)
    model = vitriad.load(out / "last", backend)
    assert [*model.config.id2label.values()] == ["0", "1", "2"]
    processor = vitriad.AutoImageProcessor.from_pretrained(out / "last")
    rows = [int(line.partition("::")[2].partition(",")[0]) for line in held_out[1:]]
    pixels = processor(list(LEVELS[rows]), input_data_format="none", return_tensors="np")["pixel_values"]
    right = (to_numpy(model(pixel_values=pixels).logits).argmax(axis=1) == DIGITS.target[rows] % 3).mean()
    np.testing.assert_allclose(right, lines[-1]["accuracy"])


@pytest.mark.every_day("torch")
@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("objective", ["mae", "mim"])
def test_pretraining_lowers_the_loss_and_finetuning_goes_on_from_it(backend, objective, data, tmp_path, capsys):
    out = tmp_path / "run"
    options = ("--objective", objective, "--rate", "0.05", "--epochs", "4")
    assert main(asked("pretrain", data, out, *options, backend=backend)) == 0
    lines = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    losses = [line["held_out_loss"] for line in lines if "epoch" in line]
    assert losses[-1] < losses[0]
    drawn = sorted(path.name for path in out.glob("reconstructions/*.png"))
    assert drawn == ([f"epoch-000{epoch}.png" for epoch in range(1, 5)] if objective == "mae" else [])
    tuned = tmp_path / "tuned"
    assert main(asked("finetune", data, tuned, "--model", out / "best", "--epochs", "1", backend=backend)) == 0
    assert vitriad.load(tuned / "best", backend).config.num_labels == 3


def test_a_head_of_the_same_classes_is_kept(data, tmp_path, capsys):
    np.savez(tmp_path / "all.npz", images=LEVELS[:100], labels=DIGITS.target[:100])
    command = ["finetune", str(tmp_path / "all.npz"), "--model", "digits-vit", "--out", str(tmp_path / "run")]
    assert main([*command, "--dry-run", "--backend", BACKENDS[0]]) == 0
    said = capsys.readouterr().out
    assert "fresh" not in said and "10 classes" in said
    assert not (tmp_path / "run").exists()


def test_a_dry_run_says_sizes_steps_and_memory(data, tmp_path, capsys):
    assert main([*asked("finetune", data, tmp_path / "run", "--config", data / "vit.json"), "--dry-run"]) == 0
    said = dict(line.split("  ", 1) for line in capsys.readouterr().out.splitlines())
    assert "8: 2 epochs of 4, 16 images each" in said["steps"]
    assert "for each of 16 images" in said["memory"]
    count = sum(
        array.size
        for array in vitriad.AutoModelForImageClassification.from_config(
            vitriad.ViTConfig(**SMALL, num_labels=3), BACKENDS[0]
        )
        .canonical_tensors()
        .values()
    )
    assert f"{count:,}, of which {count:,} are trained" in said["parameters"]


def test_a_recorded_recipe_runs_again_to_the_same_bits(data, tmp_path, capsys):
    one, two = tmp_path / "one", tmp_path / "two"
    assert main(asked("finetune", data, one, fields=RICH)) == 0
    assert main(["finetune", "--recipe", str(one / "recipe.toml"), "--out", str(two)]) == 0
    assert contents(one).keys() == contents(two).keys()
    for name in ("last/model.safetensors", "last/training/state.safetensors", "best/model.safetensors"):
        assert (one / name).read_bytes() == (two / name).read_bytes(), name
    three = tmp_path / "three"
    assert main(["finetune", "--recipe", str(one / "recipe.toml"), "--out", str(three), "--seed", "1"]) == 0
    assert (one / "last/model.safetensors").read_bytes() != (three / "last/model.safetensors").read_bytes()


# --- going on --------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module", params=BACKENDS)
def whole(request, data, tmp_path_factory):
    """A run that nobody stopped, for each backend."""
    out = tmp_path_factory.mktemp("whole") / "run"
    assert main(asked("finetune", data, out, backend=request.param, fields=RICH)) == 0
    return request.param, out


@pytest.mark.every_day("torch-5]")
@pytest.mark.parametrize("at", [3, 5])  # before and after the first epoch is saved
def test_a_run_that_dies_at_a_step_ends_as_if_it_had_not(at, whole, data, tmp_path, monkeypatch):
    backend, expected = whole
    out = tmp_path / "run"

    def die():
        raise Killed

    with monkeypatch.context() as patched:
        stopping(patched, at, die)
        with pytest.raises(Killed):
            main(asked("finetune", data, out, backend=backend, fields=RICH))
    assert main(asked("finetune", data, out, backend=backend, fields=RICH)) == 0
    assert contents(out) == contents(expected)
    steps = [json.loads(line)["step"] for line in (out / "metrics.jsonl").read_text().splitlines()]
    assert steps == [1, 2, 3, 4, 4, 5, 6, 7, 8, 8]


@pytest.mark.every_day("torch")
def test_ctrl_c_saves_the_step_and_the_same_command_goes_on(whole, data, tmp_path, monkeypatch, capsys):
    backend, expected = whole
    out, before = tmp_path / "run", signal.getsignal(signal.SIGINT)
    signal.signal(signal.SIGINT, signal.default_int_handler)  # which jobs in the background are started without
    try:
        with monkeypatch.context() as patched:
            stopping(patched, 3, lambda: signal.raise_signal(signal.SIGINT))
            assert main(asked("finetune", data, out, backend=backend, fields=RICH)) == 130
    finally:
        signal.signal(signal.SIGINT, before)
    assert "stopped after step 3 of 8; the same command goes on" in capsys.readouterr().err
    assert json.loads((out / "last" / "training" / "place.json").read_text())["step"] == 3
    assert main(asked("finetune", data, out, backend=backend, fields=RICH)) == 0
    assert "going on after step 3 of 8" in capsys.readouterr().out
    assert contents(out) == contents(expected)


@pytest.mark.parametrize("whole", BACKENDS[:1], indirect=True)
def test_a_killed_process_goes_on_to_the_same_bits(whole, data, tmp_path):
    backend, expected = whole
    out = tmp_path / "run"
    command = [sys.executable, "-m", "vitriad", *asked("finetune", data, out, backend=backend, fields=RICH)]
    metrics = out / "metrics.jsonl"
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        while process.poll() is None and not (metrics.is_file() and metrics.read_bytes().count(b"\n") >= 5):
            time.sleep(0.001)
        process.send_signal(signal.SIGKILL)
    subprocess.run(command, check=True, capture_output=True)
    assert contents(out) == contents(expected)


@pytest.mark.parametrize("whole", BACKENDS[:1], indirect=True)
def test_a_run_that_is_over_says_its_result_again(whole, data, capsys):
    backend, out = whole
    before = contents(out)
    assert main(asked("finetune", data, out, backend=backend, fields=RICH)) == 0
    assert "best: epoch" in capsys.readouterr().out
    assert contents(out) == before


@pytest.mark.parametrize("whole", BACKENDS[:1], indirect=True)
@pytest.mark.parametrize(
    ("change", "message"),
    [
        (["--seed", "3"], "differs in seed (0, now 3)"),
        (["--rate", "0.5", "--set", "clip=2.0"], "differs in rate (0.001, now 0.5), clip (1.0, now 2.0)"),
        (["--model", "digits-vit-mae"], "differs in model ('digits-vit', now 'digits-vit-mae')"),
    ],
)
def test_another_recipe_in_the_same_folder_is_refused(change, message, whole, data, capsys):
    backend, out = whole
    before = contents(out)
    assert main([*asked("finetune", data, out, backend=backend, fields=RICH), *change]) == 1
    assert message in capsys.readouterr().err
    assert contents(out) == before


@pytest.mark.parametrize("whole", BACKENDS[:1], indirect=True)
def test_other_data_than_then_are_refused(whole, data, tmp_path, capsys):
    backend, out = whole
    shutil.copytree(out, tmp_path / "run")
    shutil.copy(data / "digits.npz", tmp_path / "kept.npz")
    changed = DIGITS.target[:60] % 3
    try:
        np.savez(data / "digits.npz", images=LEVELS[:60], labels=changed[::-1])
        assert main(asked("finetune", data, tmp_path / "run", backend=backend, fields=RICH)) == 1
    finally:
        shutil.copy2(tmp_path / "kept.npz", data / "digits.npz")
    assert "others than when this run began" in capsys.readouterr().err


# --- what goes wrong -------------------------------------------------------------------------------------------------


def test_a_loss_that_is_no_number_stops_and_names_batch_and_checkpoint(data, tmp_path, capsys):
    out = tmp_path / "run"
    assert main(asked("finetune", data, out, "--rate", "1e30", "--set", "smoothing=0.1")) == 1
    said = capsys.readouterr().err
    assert "the loss is" in said and f"The last good checkpoint is {out / 'last'}, of step 0" in said
    names = (out / "failed-batch.txt").read_text().splitlines()
    assert len(names) == 16 and all("digits.npz::" in name for name in names)
    vitriad.load(out / "last", BACKENDS[0])


@pytest.mark.parametrize(
    "problem",
    [
        MemoryError(),
        RuntimeError("[enforce fail at alloc_cpu.cpp:116] DefaultCPUAllocator: can't allocate memory: you tried ..."),
        type("OutOfMemoryError", (RuntimeError,), {})("CUDA out of memory. Tried to allocate 20.00 MiB."),
        type("ResourceExhaustedError", (Exception,), {})("OOM when allocating tensor"),
        type("XlaRuntimeError", (RuntimeError,), {})("RESOURCE_EXHAUSTED: Out of memory while trying to allocate"),
    ],
)
def test_no_memory_says_which_batch_would_fit(problem, data, tmp_path, monkeypatch, capsys):
    def fail():
        raise problem

    stopping(monkeypatch, 2, fail)
    monkeypatch.setattr(training_run, "free_bytes", lambda: 10**9)
    assert main(asked("finetune", data, tmp_path / "run")) == 1
    assert "About 8 would fit: --set accumulate=2 computes" in capsys.readouterr().err


def test_two_runs_in_one_folder_are_not_let_in(data, tmp_path, capsys):
    out = tmp_path / "run"
    assert main(asked("finetune", data, out, "--epochs", "1")) == 0
    before, folder = contents(out), RunFolder(out)
    folder.begin(read_recipe(out / "recipe.toml"))
    assert main(asked("finetune", data, out, "--epochs", "1")) == 1
    assert f"process {os.getpid()} on {socket.gethostname()} runs there right now" in capsys.readouterr().err
    assert contents(out) == before
    folder.close()
    assert main(asked("finetune", data, out, "--epochs", "1")) == 0


class Number:
    """A loss that is still computed; reading it is recorded."""

    def __init__(self, value, number, log):
        self.value, self.number, self.log = value, number, log

    def __float__(self):
        self.log.append(f"read {self.number}")
        return float(self.value)


def changed(monkeypatch, change):
    """Gives the results and the states of a run's step to a function."""
    inner = training_run.new_step

    def new_step(*given):
        step = inner(*given)

        class Changed:
            number = 0

            def __getattr__(self, name):
                return getattr(step, name)

            def __call__(self, batch, rate):
                self.number += 1
                return change(self.number, step(batch, rate))

            def state(self):
                return change(self.number, step.state())

        return Changed()

    monkeypatch.setattr(training_run, "new_step", new_step)


def test_a_loss_is_read_while_the_next_step_computes(data, tmp_path, monkeypatch, capsys):
    log = []

    def change(number, found):
        if isinstance(found, dict):
            return found
        log.append(f"step {number}")
        return StepResult(Number(found.loss, number, log), found.gradient_norm)

    changed(monkeypatch, change)
    assert main(asked("finetune", data, tmp_path / "run", "--epochs", "1")) == 0
    assert log == ["step 1", "step 2", "read 1", "step 3", "read 2", "step 4", "read 3", "read 4"]


def test_a_bad_batch_is_named_though_the_next_step_has_begun(data, tmp_path, monkeypatch, capsys):
    def change(number, found):
        return StepResult(math.nan, found.gradient_norm) if number == 2 and not isinstance(found, dict) else found

    changed(monkeypatch, change)
    assert main(asked("finetune", data, tmp_path / "run")) == 1
    assert "step 2: the loss is nan" in capsys.readouterr().err


def test_weights_that_are_no_numbers_never_replace_a_checkpoint(data, tmp_path, monkeypatch, capsys):
    def change(number, found):
        if number and isinstance(found, dict):
            found = {**found, "model.classifier.bias": np.full(3, np.inf, np.float32)}
        return found

    out = tmp_path / "run"
    with monkeypatch.context() as patched:
        changed(patched, change)
        assert main(asked("finetune", data, out)) == 1
    said = capsys.readouterr().err
    assert "step 4: classifier.bias is no number any more" in said and f"{out / 'last'}, of step 0" in said
    assert main(asked("finetune", data, out)) == 0


def test_a_container_that_is_nearly_full_counts(tmp_path, monkeypatch):
    monkeypatch.setattr(memory, "_groups", lambda: [tmp_path / "inner", tmp_path])
    for folder, limit in ((tmp_path / "inner", "max"), (tmp_path, "5000000")):
        folder.mkdir(exist_ok=True)
        (folder / "memory.max").write_text(f"{limit}\n")
        (folder / "memory.current").write_text("4000000\n")
        (folder / "memory.stat").write_text("anon 1\ninactive_file 300000\n")
    assert memory.free_bytes() == 1_300_000


def test_the_screen_says_which_loss_is_of_mixed_labels(data, tmp_path, capsys):
    assert main(asked("finetune", data, tmp_path / "run", "--epochs", "1", fields=["mixup=0.5"])) == 0
    assert " of mixed or smoothed labels, held out " in capsys.readouterr().out


def test_a_full_disk_leaves_the_older_checkpoint(data, tmp_path, monkeypatch, capsys):
    out, inner = tmp_path / "run", RunFolder.save

    def save(self, name, *given, **more):
        if name == "best":
            raise CheckpointError(f"{self.path / name}: saving failed: No space left on device.")
        inner(self, name, *given, **more)

    with monkeypatch.context() as patched:
        patched.setattr(RunFolder, "save", save)
        assert main(asked("finetune", data, out)) == 1
    assert "No space left" in capsys.readouterr().err
    assert json.loads((out / "last" / "training" / "place.json").read_text())["step"] == 0
    assert main(asked("finetune", data, out)) == 0


def photos(folder, classes, count=3):
    for label in classes:
        (folder / label).mkdir(parents=True)
        for number in range(count):
            Image.fromarray(LEVELS[number]).save(folder / label / f"{number}.png")
    return folder


def test_images_that_cannot_be_used_are_recorded_and_left_out(tmp_path, capsys):
    folder = photos(tmp_path / "photos", ["cat", "dog"], 5)
    (folder / "cat" / "bad.png").write_bytes(b"\x89PNG hello")
    Image.fromarray(LEVELS[0][:2, :3]).save(folder / "dog" / "tiny.png")
    out = tmp_path / "run"
    options = ["--out", str(out), "--backend", BACKENDS[0], "--epochs", "2", "--batch-size", "4", "--held-out", "0.5"]
    assert main(["finetune", str(folder), "--model", "digits-vit", *options]) == 3
    lines = [json.loads(line) for line in (out / "skipped.jsonl").read_text().splitlines()]
    found = {Path(line["name"]).name: line["error"] for line in lines}
    assert found.keys() == {"bad.png", "tiny.png"} and len(lines) == 2
    assert "cannot be decoded" in found["bad.png"] and "less than one patch of the model" in found["tiny.png"]


def test_no_image_that_can_be_used_is_an_error(tmp_path, capsys):
    folder = photos(tmp_path / "photos", ["cat", "dog"])
    for path in folder.rglob("*.png"):
        path.write_bytes(b"no image")
    assert (
        main(["finetune", str(folder), "--out", str(tmp_path / "run"), "--backend", BACKENDS[0], "--epochs", "1"]) == 1
    )
    assert "no image that can be used, or none that is held out; skipped.jsonl" in capsys.readouterr().err


def refused(tmp_path, options, capsys):
    capsys.readouterr()
    assert main(["finetune", *map(str, options), "--out", str(tmp_path / "run"), "--backend", BACKENDS[0]]) == 1
    assert not (tmp_path / "run").exists()
    return capsys.readouterr().err


def test_data_that_do_not_fit_are_refused_before_anything_is_written(tmp_path, capsys):
    one = photos(tmp_path / "one", ["cat"])
    two, three = photos(tmp_path / "two", ["cat", "dog"]), photos(tmp_path / "three", ["cat", "dog", "eel"])
    few = photos(tmp_path / "few", ["cat", "dog"], 1)
    assert "all images are of one class, 'cat'" in refused(tmp_path, [one], capsys)
    assert "'eel' is held out, but is not in" in refused(tmp_path, [two, "--held-out", three], capsys)
    assert "no image of 'eel'" in refused(tmp_path, [three, "--held-out", two], capsys)
    assert "the class 'cat' has one image" in refused(tmp_path, [few], capsys)
    assert "is held out and learned from" in refused(tmp_path, [two, "--held-out", two], capsys)
    assert "no such file or folder" in refused(tmp_path, [tmp_path / "none"], capsys)
    assert "expected a number between 0 and 1, got 1.5" in refused(tmp_path, [two, "--held-out", "1.5"], capsys)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--set", "mixupp=1"], "there is no 'mixupp'"),
        (["--set", "mixup"], "expected FIELD=VALUE"),
        (["--set", "mixup=much"], "mixup: expected a number, got 'much'"),
        (["--set", "freeze=9"], "freeze: expected 'encoder' or a number of layers from 0 to 3"),
        (["--config", "vit-gigantic"], "expected a file, or one of vit-tiny-patch16-224"),
        (["--epochs", "1", "--set", "average=2"], "betas, average: expected numbers in"),
    ],
)
def test_options_that_mean_nothing_are_refused(options, message, data, tmp_path, capsys):
    assert message in refused(tmp_path, [data / "digits.npz", *options], capsys)


def test_a_recipe_of_the_other_command_or_another_version_is_refused(data, tmp_path, capsys):
    assert main(asked("finetune", data, tmp_path / "one", "--epochs", "1")) == 0
    recipe = tmp_path / "one" / "recipe.toml"
    assert main(["pretrain", "--recipe", str(recipe), "--objective", "mae", "--out", str(tmp_path / "two")]) == 1
    assert "a recipe of classification; vitriad pretrain is for" in capsys.readouterr().err
    recipe.write_text(recipe.read_text().replace("version = 1", "version = 7"))
    assert main(["finetune", "--recipe", str(recipe), "--out", str(tmp_path / "two")]) == 1
    assert "expected a recipe of version 1, got 7" in capsys.readouterr().err
    (tmp_path / "three").mkdir()
    (tmp_path / "three" / "letters.txt").touch()
    assert main(asked("finetune", data, tmp_path / "three")) == 1
    assert "something is there that is no run" in capsys.readouterr().err
