"""`vitriad completion`: what the shells offer is what the parser has."""

import os
import pty
import shutil
import subprocess
import sys

import pytest

from vitriad.cli import main
from vitriad.completion import described
from vitriad.options import JOBS, commands

EVERY = [name for names in JOBS.values() for name in names]


def script(shell, capsys):
    assert main(["completion", shell]) == 0
    return capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "offered"),
    [
        ([""], {*EVERY, "--help", "--version"}),
        (["e"], {"embed", "export"}),
        (["embed", "--dt"], {"--dtype"}),
        (["embed", "photos", "--out", "x.npz", "--e"], {"--engine"}),
        (["embed", "--dtype", ""], {"float32", "float16"}),
        (["embed", "--engine", "r"], {"ray"}),
        (["embed", "--out", ""], set()),  # bash goes on with files
        (["embed", ""], set()),
        (["completion", ""], {"bash", "zsh", "fish"}),
        (["completion", "z"], {"zsh"}),
        (["nonsense", "-"], set()),
    ],
)
def test_bash_offers_what_fits(words, offered, tmp_path, capsys):
    (tmp_path / "complete.bash").write_text(script("bash", capsys))
    program = 'source "$1"; shift; COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1)); _vitriad; printf "%s\n" "${COMPREPLY[@]}"'
    command = ["bash", "-c", program, "bash", str(tmp_path / "complete.bash"), "vitriad", *words]
    found = subprocess.run(command, capture_output=True, text=True, check=True)
    assert {*found.stdout.split()} == offered and found.stderr == ""


def test_bash_goes_on_with_files(tmp_path, capsys):
    (tmp_path / "complete.bash").write_text(script("bash", capsys))
    command = ["bash", "-c", 'source "$1"; complete -p vitriad', "bash", str(tmp_path / "complete.bash")]
    assert "-o default" in subprocess.run(command, capture_output=True, text=True, check=True).stdout


@pytest.mark.parametrize("shell", ["zsh", "fish"])
def test_other_shells_have_every_command_and_option(shell, tmp_path, capsys):
    text = script(shell, capsys)
    for name, command in described().items():
        assert commands()[name].description.rstrip(".").partition("'")[0] in text
        mine = [line for line in text.splitlines() if name in line]
        for option in command.options:
            written = option.name if shell == "zsh" else f"-l {option.name.removeprefix('--')}"
            assert any(written in line for line in mine), (name, option.name)
            assert all(value in text for value in option.values or ())
    if program := shutil.which(shell):  # which itself says whether the script is sound
        (tmp_path / "script").write_text(text)
        subprocess.run([program, "-n", str(tmp_path / "script")], check=True)


@pytest.mark.parametrize(
    "words", [["--help"], ["embed", "--help"], ["embed"], ["inspect", "digits-vit"], ["inspect", "./no"]]
)
def test_nothing_is_coloured_at_a_terminal_either(words):
    reader, writer = pty.openpty()
    environment = {**os.environ, "NO_COLOR": "1", "TERM": "xterm-256color", "PYTHONPATH": os.pathsep.join(sys.path)}
    command = [sys.executable, "-m", "vitriad", *words]
    process = subprocess.Popen(command, stdout=writer, stderr=writer, stdin=subprocess.DEVNULL, env=environment)
    os.close(writer)
    shown = b""
    try:
        while piece := os.read(reader, 65536):
            shown += piece
    except OSError:  # Linux: nobody writes any more
        pass
    os.close(reader)
    process.wait()
    assert shown and b"\x1b" not in shown
