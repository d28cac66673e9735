"""The help and the usage errors of every command."""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Iterator
from typing import Any

import pytest
import typer
from fakes.terminal import ENTRY, Run, command

from patchserve_client.cli._formats import OutputFormat
from patchserve_command.commands import app


def commands(found: Any, words: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    """Every command with the words that call it."""
    yield words, found
    for name, child in getattr(found, "commands", {}).items():
        yield from commands(child, (*words, name))


COMMANDS = dict(commands(typer.main.get_command(app)))
RUNNABLE = {words: one for words, one in COMMANDS.items() if not hasattr(one, "commands")}


def options_of(words: tuple[str, ...]) -> list[Any]:
    return [one for one in COMMANDS[words].params if one.param_type_name == "option"]


@pytest.mark.parametrize("words", COMMANDS, ids=" ".join)
@pytest.mark.parametrize("columns", [40, 80, 200])
def test_every_page_of_help_has_groups_and_fits_the_terminal(
    run: Run, monkeypatch: pytest.MonkeyPatch, words: tuple[str, ...], columns: int
) -> None:
    monkeypatch.setenv("COLUMNS", str(columns))
    code, stdout, stderr = run(*words, "--help")
    assert (code, stderr) == (0, "")
    assert max(map(len, stdout.splitlines())) <= max(columns, 80)
    titles = re.findall(r"^(\S.*):$", stdout, re.MULTILINE)
    assert "Options" in titles
    assert ("Connection" in titles) == (words != ("reference",))
    assert not re.search(r"[<{]\S+[>}]", stdout.replace("<defect>", "").replace("<stem>", ""))  # one style
    assert "..." not in stdout.partition("Commands:")[2]  # summaries are not cut
    assert "factory" not in stdout


@pytest.mark.parametrize("words", RUNNABLE, ids=" ".join)
def test_every_option_and_argument_has_a_help_and_a_metavar(words: tuple[str, ...]) -> None:
    for one in RUNNABLE[words].params:
        assert one.help, one.name
        if one.param_type_name == "argument" or not one.is_flag:
            shown, _ = one.get_help_record(typer.Context(RUNNABLE[words]))
            is_choice = "|" in shown and one.metavar is None
            assert is_choice or one.metavar == one.metavar.upper(), one.name


@pytest.mark.parametrize("words", RUNNABLE, ids=" ".join)
def test_every_command_has_the_same_option_for_its_output(words: tuple[str, ...]) -> None:
    (output,) = [one for one in options_of(words) if "--output" in one.opts]
    assert "text|json|csv|jsonl" in output.get_help_record(typer.Context(RUNNABLE[words]))[0]
    assert output.default is OutputFormat.TEXT
    assert output.help.startswith("Print results as text for people, one JSON document, CSV with a header")


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        (["infr"], "No such command 'infr'. Did you mean 'infer', 'info'? See `patchserve --help`."),
        (["--servr", "x"], "No such option: --servr. Did you mean --server? See `patchserve --help`."),
        (
            ["infer", "--refernce", "x"],
            "No such option: --refernce. Did you mean --reference? See `patchserve infer --help`.",
        ),
        (["infer"], "Missing argument 'FILE|DIR'. See `patchserve infer --help`."),
        (["info", "more"], "Got unexpected extra argument(s) (more). See `patchserve info --help`."),
        (["info", "--ca", "nowhere.pem"], "Invalid value for '--ca': There is no file nowhere.pem. See"),
        (["infer", "no\nwhere.png"], r"There is no file or folder no\nwhere.png. See `patchserve infer --help`."),
        (["infer", "*.nothing"], "No file matches *.nothing. See `patchserve infer --help`."),
        (["infer", "a.png", "--threshold", "1,4"], "Invalid value for '--threshold': "),  # the rest is Typer's
    ],
)
def test_a_usage_error_is_one_line_with_what_was_meant_and_no_usage(run: Run, arguments: list[str], error: str) -> None:
    code, stdout, stderr = run(*arguments)
    assert (code, stdout, stderr.count("\n")) == (2, "", 1)
    assert stderr.startswith(f"Error: {error}")


@pytest.mark.parametrize("arguments", [[], ["reference"]])
def test_a_command_without_a_subcommand_prints_its_help(run: Run, arguments: list[str]) -> None:
    code, stdout, stderr = run(*arguments)
    assert (code, stdout) == (2, "")
    assert "Commands:" in stderr


@pytest.mark.parametrize(("shell", "part"), [("bash", "complete "), ("zsh", "compdef"), ("fish", "complete ")])
def test_completion_can_be_shown_for_a_shell_and_completes(shell: str, part: str) -> None:
    shown = completed(_PATCHSERVE_COMPLETE=f"source_{shell}")
    assert part in shown
    words = completed(_PATCHSERVE_COMPLETE="complete_bash", COMP_WORDS="patchserve ref", COMP_CWORD="1")
    assert words.split() == ["reference"]
    words = completed(_PATCHSERVE_COMPLETE="complete_bash", COMP_WORDS="patchserve infer --over", COMP_CWORD="2")
    assert words.split() == ["--overlay-format", "--overlay-max-side"]


def completed(**variables: str) -> str:
    done = subprocess.run(command(), capture_output=True, text=True, check=False, env={**os.environ, **variables})
    assert done.stderr == ""
    return done.stdout


def test_the_entry_point_is_that_of_the_installed_command() -> None:
    assert "patchserve_command import main" in ENTRY
