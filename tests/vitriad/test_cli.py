"""The command line: what it prints where, and how it ends."""

import glob
import json
import math
import os
import pty
import re
import shlex
import shutil
import signal
import subprocess
import sys
import termios
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from importlib.metadata import version

import numpy as np
import pytest
from backends import INSTALLED
from safetensors.numpy import save_file
from serving import wait_for

from vit_core.parameters import parameter_table
from vitriad import AutoConfig, cli, models, options, web
from vitriad.cli import main
from vitriad.parity_matrix import cases as parity_cases

COMMANDS = [name for names in options.JOBS.values() for name in names]
FRAMEWORKS = ["torch", "tensorflow", "keras", "jax", "flax"]
FILES = list(map(str, models.digit_files()))


def run_python(code: str, **options) -> subprocess.CompletedProcess:
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, **options)


@pytest.fixture
def failing(monkeypatch):
    """Makes `vitriad inspect` end with an exception."""

    def make(error: BaseException) -> None:
        def run(arguments):
            raise error

        monkeypatch.setattr("vitriad.inspect.run", run)

    return make


def until_loaded(running, *_):
    """A server that ends once its models are loaded."""
    wait_for(lambda: getattr(running.config.app, "is_loaded", True))


@pytest.mark.every_day(
    "classify",
    "embed",
    "search",
    "probe",
    "attend",
    "reconstruct",
    "compare",
    "inspect",
    "convert",
    "verify",
    "play",
    "completion",
)
@pytest.mark.parametrize("command", COMMANDS)
def test_example_of_the_help_runs(command, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    first, *_ = parity_cases.sweep()  # all of them run in test_parity.py
    monkeypatch.setattr(parity_cases, "sweep", lambda: [first])
    if command in ("play", "serve"):  # which would wait for Ctrl-C
        monkeypatch.setattr("vitriad.web.serve", until_loaded)
        monkeypatch.setattr("vitriad.web.bind", lambda host, _, bind=web.bind: bind(host, 0))
    if command != "demo":  # what it leaves, without running it again
        shutil.copytree(models.FOLDER / "digits", "demo-output/digits")
    if command in ("search", "probe"):
        for path in models.digit_files():
            os.makedirs(path.name[0], exist_ok=True)
            shutil.copy(path, path.name[0])
        assert main(["embed", *map(str, range(10)), "--out", "features.npz"]) == 0
    for path in models.digit_files() if command in ("finetune", "pretrain") else ():
        os.makedirs(f"photos/{path.name[0]}", exist_ok=True)
        shutil.copy(path, f"photos/{path.name[0]}")
    with pytest.raises(SystemExit) as ended:
        main([command, "--help"])
    example = capsys.readouterr().out.partition("example:\n")[2].strip()
    assert (ended.value.code, example.startswith("vitriad ")) == (0, True)
    for line in example.removeprefix("vitriad demo && ").split("&&"):
        words = [sorted(glob.glob(word)) or [word] for word in shlex.split(line)]
        assert main([word for found in words for word in found][1:]) == 0
    assert capsys.readouterr().out


def test_help_imports_neither_a_framework_nor_numpy():
    code = "import sys, vitriad.cli as c\ntry: c.main(['--help'])\nexcept SystemExit: print(*sys.modules)"
    loaded = run_python(code).stdout.split()
    assert "vitriad.cli" in loaded
    assert {"numpy", "PIL", "tqdm", *FRAMEWORKS} & {*loaded} == set()


def test_version(capsys):
    with pytest.raises(SystemExit):
        main(["--version"])
    assert capsys.readouterr().out == f"vitriad {version('vitriad')}\n"


@pytest.mark.parametrize(
    "words",
    [
        [],
        ["paint"],
        ["classify"],
        ["classify", "--top-k", "0", "x.png"],
        ["classify", "--backend", "mxnet", "x.png"],
        ["inspect"],
        ["inspect", "one", "two"],
        ["doctor", "extra"],
    ],
)
def test_wrong_usage_ends_with_2(words, capsys):
    with pytest.raises(SystemExit) as ended:
        main(words)
    captured = capsys.readouterr()
    assert (ended.value.code, captured.out) == (2, "")
    assert captured.err.startswith("vitriad") and ": error: " in captured.err
    assert captured.err.endswith(" --help says how it is used.\n") and captured.err.count("\n") <= 3


def test_failure_is_said_in_at_most_three_lines(capsys):
    assert main(["inspect", "no/such/folder/anywhere"]) == 1
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith("vitriad: error: no/such/folder/anywhere: no such folder")
    assert len(captured.err.splitlines()) <= 3
    with pytest.raises(FileNotFoundError):
        main(["inspect", "--debug", "no/such/folder/anywhere"])


def test_operating_system_errors_are_said_in_one_line(failing, capsys):
    failing(PermissionError(13, "Permission denied", "secret"))
    assert main(["inspect", "digits-vit"]) == 1
    assert capsys.readouterr().err == "vitriad: error: [Errno 13] Permission denied: 'secret'\n"


def test_faults_of_the_program_are_not_hidden(failing):
    failing(ZeroDivisionError("ours"))
    with pytest.raises(ZeroDivisionError):
        main(["inspect", "digits-vit"])


def test_ctrl_c_ends_with_130_in_one_line(failing, capsys):
    failing(KeyboardInterrupt())
    assert main(["inspect", "digits-vit"]) == 130
    assert capsys.readouterr().err == "vitriad: stopped\n"
    with pytest.raises(KeyboardInterrupt):
        main(["inspect", "--debug", "digits-vit"])


def test_reader_that_stops_early_is_no_error():
    command = [sys.executable, "-m", "vitriad", "inspect", "digits-vit"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        process.stdout.close()
        assert process.stderr.read() == b""
    assert process.returncode == 1


@pytest.mark.parametrize("name", models.NAMES)
def test_inspect_lists_every_parameter(name, capsys):
    assert main(["inspect", "--json", name]) == 0
    found = json.loads(capsys.readouterr().out)
    table = parameter_table(AutoConfig.from_pretrained(models.FOLDER / name), found["class"])
    assert {row["name"]: tuple(row["shape"]) for row in found["parameters"]} == {n: r.shape for n, r in table.items()}
    assert {row["dtype"] for row in found["parameters"]} == {"float32"}
    assert found["bytes"] == (models.FOLDER / name / "model.safetensors").stat().st_size
    assert found["config"]["patch_size"] == 4
    assert found["total_parameters"] == sum(math.prod(row.shape) for row in table.values())


def test_inspect_for_people_has_the_same_facts(capsys):
    assert main(["inspect", "digits-vit"]) == 0
    text = capsys.readouterr().out
    first, second, *_ = text.splitlines()
    assert first == "digits-vit: ViTForImageClassification, dialect hf"
    assert re.fullmatch(r"[\d,]+ parameters in float32, 56 tensors, [\d,]+ bytes", second)
    assert re.search(r"^parameter +shape +dtype$", text, re.MULTILINE)
    assert re.search(r"^vit.encoder.layer.\{0-2\}.output.dense.weight +48 x 96 +float32$", text, re.MULTILINE)
    assert re.search(r"^classifier.weight +10 x 48 +float32$", text, re.MULTILINE)
    assert re.search(r"^num_labels +10$", text, re.MULTILINE)


def test_inspect_describes_files_that_no_model_here_takes(tmp_path, capsys):
    save_file({f"trunk.{i}.mixer": np.zeros((2, 3), np.float16) for i in (0, 1, 3)}, tmp_path / "other.safetensors")
    assert main(["inspect", str(tmp_path / "other.safetensors")]) == 0
    text = capsys.readouterr().out
    assert "other.safetensors: no model here takes it, dialect not known\n18 parameters in float16, 3 tensors" in text
    assert re.search(r"^problem: .*not a known dialect", text, re.MULTILINE)
    assert re.search(r"^trunk.\{0,1,3\}.mixer +2 x 3 +float16$", text, re.MULTILINE)


@pytest.mark.parametrize(("name", "backend"), [("jax", "flax"), ("tensorflow", "tf"), ("pytorch", "torch")])
def test_backends_are_known_by_the_names_of_their_frameworks(name, backend):
    arguments = options.make_parser().parse_args(["classify", "x.png", "--backend", name])
    assert arguments.backend == backend
    arguments = options.make_parser().parse_args(["parity", "--backends", f"{name}, {backend}"])
    assert arguments.backends == [backend, backend]


@pytest.mark.every_day("tf", "flax")
@pytest.mark.parametrize("backend", INSTALLED)
def test_a_command_writes_no_log_lines(backend):
    command = [sys.executable, "-m", "vitriad", "classify", FILES[0], "--backend", backend]
    kept = {"PATH", "HOME", "PYTHONPATH", "LD_LIBRARY_PATH"}  # a shell's, not what other tests have set
    environment = {name: value for name, value in os.environ.items() if name in kept}
    for _ in range(3):  # a busy machine makes libraries complain of slowness
        done = subprocess.run(command, capture_output=True, text=True, check=True, env=environment)
        if not done.stderr:
            break
    assert done.stderr == ""
    assert done.stdout.startswith(str(FILES[0]))


def test_inspect_loads_no_framework_and_this_test_would_notice():
    code = "import sys, vitriad.cli as c; c.main({words}); print(*sys.modules)"
    loaded = [
        {*run_python(code.format(words=words)).stdout.split()}
        for words in (["inspect", "digits-vit"], ["classify", FILES[0]])
    ]
    assert ["numpy" in names for names in loaded] == [True, True]
    assert [bool({*FRAMEWORKS} & names) for names in loaded] == [False, True]


def test_a_folder_at_hand_comes_before_a_shipped_model(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    os.mkdir("digits-vit")
    assert main(["inspect", "digits-vit"]) == 1
    assert "digits-vit" in capsys.readouterr().err


def test_commands_are_these(capsys):
    with pytest.raises(SystemExit):
        main(["--help"])
    assert re.findall(r"^  (\w+) +[A-Z]", capsys.readouterr().out, re.MULTILINE) == COMMANDS
    known = next(action for action in options.make_parser()._actions if action.dest == "command").choices
    assert sorted(known) == sorted(COMMANDS)
    assert cli.main.__module__ == "vitriad.cli"


def read_terminal(leader):
    """What is written to a terminal until its other end is closed."""
    shown = b""
    with suppress(OSError), open(leader, "rb", buffering=0) as terminal:
        while piece := terminal.read(4096):
            shown += piece
    return shown


def test_ctrl_c_while_working_ends_in_one_line(tmp_path):
    """At a real terminal, with the bar on it."""
    leader, follower = pty.openpty()
    termios.tcsetwinsize(follower, (24, 80))
    command = [sys.executable, "-m", "vitriad", "classify", "--json", *(FILES * 500)]
    with (
        ThreadPoolExecutor(1) as pool,
        subprocess.Popen(command, stdout=subprocess.PIPE, stderr=follower, start_new_session=True) as process,
    ):
        os.close(follower)
        reading = pool.submit(read_terminal, leader)  # all the while: a terminal that nobody reads blocks
        first = json.loads(process.stdout.readline())
        os.killpg(process.pid, signal.SIGINT)
        rest = process.stdout.read().decode().splitlines()
    shown = reading.result().decode()
    assert (process.returncode, shown.endswith("vitriad: stopped\r\n")) == (130, True)
    assert ("Traceback" in shown, "/10000 [" in shown) == (False, True)
    assert [first["path"], *(json.loads(line)["path"] for line in rest)] == (FILES * 500)[: len(rest) + 1]


@pytest.mark.every_day("words2")
@pytest.mark.parametrize("words", [["--help"], ["inspect", "digits-vit"], ["classify", *FILES[:2], "nothere.png"]])
def test_a_terminal_that_wants_no_colour_gets_none(words):
    leader, follower = pty.openpty()
    command = [sys.executable, "-m", "vitriad", *words]
    environment = {**os.environ, "NO_COLOR": "1", "TERM": "xterm-256color"}
    with subprocess.Popen(command, stdout=follower, stderr=follower, env=environment):
        os.close(follower)
        shown = read_terminal(leader)
    assert (b"\x1b[" in shown, len(shown) > 100) == (False, True)
