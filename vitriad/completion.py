"""`vitriad completion SHELL`: a script to complete commands, options and their values, made from the parser."""

from __future__ import annotations

import argparse
import re
from argparse import Namespace
from collections.abc import Mapping
from shlex import quote
from typing import NamedTuple

from vitriad.options import commands


class Option(NamedTuple):
    """An option of a command.

    Attributes:
        name: with its dashes.
        help: one line.
        values: what it may be followed by; None where it stands alone, and () for anything, such as a file.
    """

    name: str
    help: str
    values: tuple[str, ...] | None


class Command(NamedTuple):
    """A command: what it is for, its options, and the values of what it takes without one."""

    help: str
    options: list[Option]
    values: tuple[str, ...]


def run(arguments: Namespace) -> int:
    """Prints the script."""
    makers = {"bash": bash_script, "zsh": zsh_script, "fish": fish_script}
    print(makers[arguments.shell](described()), end="")
    return 0


def described() -> dict[str, Command]:
    """Every command, from its parser."""
    found = {}
    for name, parser in commands().items():
        options: list[Option] = []
        values: tuple[str, ...] = ()
        for action in parser._actions:
            choices = tuple(map(str, action.choices or ()))
            if not action.option_strings:
                values = choices
            elif action.help != argparse.SUPPRESS:
                text = re.sub(r"\s*\(?%\(default\)s\)?", "", action.help or "").replace("%%", "%")
                options.append(Option(action.option_strings[-1], text, None if action.nargs == 0 else choices))
        found[name] = Command(str(parser.description).rstrip("."), options, values)
    return found


def bash_script(known: Mapping[str, Command]) -> str:
    """For bash: files where nothing else is known."""
    lines = [
        "_vitriad() {",
        '    local word="${COMP_WORDS[COMP_CWORD]}" before="${COMP_WORDS[COMP_CWORD-1]}" words=""',
        f'    if [ "$COMP_CWORD" -eq 1 ]; then words="{" ".join(known)} --help --version"',
        '    else case "${COMP_WORDS[1]} $before $word" in',
    ]
    for name, command in known.items():
        for option in command.options:
            if option.values:  # with no words at all bash looks for files
                lines.append(f'        "{name} {option.name} "*) words="{" ".join(option.values)}" ;;')
        names = " ".join(option.name for option in command.options)
        lines.append(f'        "{name} "*" -"*) words="{names}" ;;')
        if command.values:
            lines.append(f'        "{name} "*) words="{" ".join(command.values)}" ;;')
    end = '    COMPREPLY=($(compgen -W "$words" -- "$word"))'
    return "\n".join([*lines, "    esac; fi", end, "}", "complete -o default -F _vitriad vitriad", ""])


def zsh_script(known: Mapping[str, Command]) -> str:
    """For zsh, with a line on each command and option."""
    lines = [
        "#compdef vitriad",
        "_vitriad() {",
        "    local -a known",
        "    if (( CURRENT == 2 )); then",
        "        known=(",
    ]
    lines += [f"            {quote(f'{name}:{command.help}')}" for name, command in known.items()]
    lines += ["        )", "        _describe command known", "        return", "    fi"]
    lines.append('    case "$words[2] $words[CURRENT-1] $words[CURRENT]" in')
    for name, command in known.items():
        for option in command.options:
            if option.values is not None:
                what = f"compadd -- {' '.join(option.values)}" if option.values else "_files"
                lines.append(f'        "{name} {option.name} "*) {what} ;;')
        each = " ".join(quote(f"{option.name}:{option.help}") for option in command.options)
        lines.append(f'        "{name} "*" -"*) known=({each}); _describe option known ;;')
        what = f"compadd -- {' '.join(command.values)}" if command.values else "_files"
        lines.append(f'        "{name} "*) {what} ;;')
    return "\n".join([*lines, "    esac", "}", "compdef _vitriad vitriad", ""])


def fish_script(known: Mapping[str, Command]) -> str:
    """For fish, with a line on each command and option."""
    lines = []
    for name, command in known.items():
        lines.append(f"complete -c vitriad -n __fish_use_subcommand -f -a {name} -d {_quoted(command.help)}")
        inside = f"complete -c vitriad -n '__fish_seen_subcommand_from {name}'"
        if command.values:
            lines.append(f"{inside} -f -a {_quoted(' '.join(command.values))}")
        for option in command.options:
            value = "" if option.values is None else " -r"  # followed by something: a file, if nothing else is known
            if option.values:
                value = f" -x -a {_quoted(' '.join(option.values))}"
            lines.append(f"{inside} -l {option.name.removeprefix('--')}{value} -d {_quoted(option.help)}")
    return "\n".join([*lines, ""])


def _quoted(text: str) -> str:
    """A text as one word of fish."""
    return "'{}'".format(text.replace("\\", "\\\\").replace("'", "\\'"))
