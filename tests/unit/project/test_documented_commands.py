"""The commands on the pages exist: their words, their options, and a place for each argument."""

from __future__ import annotations

import argparse
import re
import shlex
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import typer

from patchserve_command.commands import app
from patchserve_server.cli.commands import _parser

REPO = Path(__file__).resolve().parents[3]
PAGES = [
    page
    for folder in ("docs", "deploy", "samples", "benchmarks")
    for page in sorted((REPO / folder).rglob("*.md"))
    if "node_modules" not in page.parts
] + [REPO / name for name in ("README.md", "SECURITY.md", "CONTRIBUTING.md")]
_CODE = re.compile(r"^```[^\n]*\n(.*?)^```|^(?: {4}|\t)(.*?)$|`([^`\n]+(?:\n[^`\n]+)?)`", re.MULTILINE | re.DOTALL)
_COMMAND = re.compile(
    r"(?:^|[|&;] |\$ |/bin/|[A-Z]=[^\s\"]+ |run: )(patchserve(?:-server)? [a-z][^|>&;)\n]*)", re.MULTILINE
)


@dataclass(frozen=True)
class Command:
    """What a command takes: its options, with whether a value follows, and whether it has positional arguments."""

    options: dict[str, bool]
    takes_arguments: bool


def of_server(found: argparse.ArgumentParser, words: tuple[str, ...]) -> dict[tuple[str, ...], Command]:
    actions = found._actions
    options = {name: action.nargs != 0 for action in actions for name in action.option_strings}
    groups = [action for action in actions if isinstance(action, argparse._SubParsersAction)]
    takes_arguments = any(not action.option_strings and action not in groups for action in actions)
    commands = {words: Command(options, takes_arguments)}
    for group in groups:
        for name, child in group.choices.items():
            commands |= of_server(child, (*words, name))
    return commands


def of_client(found: Any, words: tuple[str, ...]) -> dict[tuple[str, ...], Command]:
    options = {
        name: not one.is_flag
        for one in found.params
        if one.param_type_name == "option"
        for name in (*one.opts, *one.secondary_opts)
    }
    takes_arguments = any(one.param_type_name == "argument" for one in found.params)
    commands = {words: Command({**options, "--help": False}, takes_arguments)}
    for name, child in getattr(found, "commands", {}).items():
        commands |= of_client(child, (*words, name))
    return commands


COMMANDS = of_server(_parser(), ("patchserve-server",)) | of_client(typer.main.get_command(app), ("patchserve",))


def commands_of(text: str) -> list[str]:
    """Commands in blocks and in inline code, with lines that end in a backslash joined."""
    codes = ["".join(parts) for parts in _CODE.findall(text.replace("\\\n", " "))]
    return [command for code in codes for command in _COMMAND.findall(code)]


def fault_of(command: str) -> str:
    """What is wrong with it; empty: nothing."""
    text = command.partition(" #")[0].replace("[", "").replace("]", "").replace("…", "").replace("...", "")
    words = shlex.split(text)
    path: tuple[str, ...] = (words.pop(0),)
    while words and (*path, words[0]) in COMMANDS:
        path = (*path, words.pop(0))
    found = COMMANDS[path]
    while words:
        word, _, value = words.pop(0).partition("=")
        if word.startswith("-") and len(word) > 1:
            if word not in found.options:
                return f"{' '.join(path)} has no option {word}"
            if found.options[word] and not value and words:
                words.pop(0)
        elif not found.takes_arguments:
            return f"{' '.join(path)} takes no {word}"
    return ""


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(REPO)))
def test_every_command_on_a_page_exists(page: Path) -> None:
    commands = commands_of(page.read_text())
    assert {command: fault for command in commands if (fault := fault_of(command))} == {}


def test_the_pages_show_many_commands() -> None:
    assert sum(len(commands_of(page.read_text())) for page in PAGES) > 100
