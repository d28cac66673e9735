"""The pages of the site with the help of every command."""

from __future__ import annotations

import argparse
import functools
from collections.abc import Iterator
from typing import Any

import typer.main

from patchserve_command.commands import app
from patchserve_server.cli import commands

WIDTH = 80  # of the help, in characters
HEAD = """# The command `{program}`

The help of each command, as `--help` prints it, of the version that this site describes. {about}

"""


def command_pages() -> dict[str, str]:
    """Name of a page -> its Markdown."""
    shell = typer.main.get_command(app)
    return {
        "patchserve": _page("patchserve", "[Clients](../clients.md) has examples.", _of_typer(shell, None)),
        "patchserve-server": _page(
            "patchserve-server",
            "The [settings](../configuration.md) can also be variables of the environment.",
            _of_argparse(commands._parser()),  # noqa: SLF001 - the only place that has all of them
        ),
    }


def _page(program: str, about: str, helps: Iterator[tuple[str, str]]) -> str:
    sections = [f"## `{name}`\n\n```text\n{text.strip()}\n```\n" for name, text in helps]
    return HEAD.format(program=program, about=about) + "\n".join(sections)


def _of_typer(command: Any, parent: Any) -> Iterator[tuple[str, str]]:  # noqa: ANN401 - Typer's types are private
    name = command.name if parent is None else f"{parent.command_path} {command.name}"
    context = command.make_context(command.name, [], parent=parent, resilient_parsing=True, terminal_width=WIDTH)
    yield name, command.get_help(context)
    for each in getattr(command, "commands", {}).values():
        yield from _of_typer(each, context)


def _of_argparse(parser: argparse.ArgumentParser) -> Iterator[tuple[str, str]]:
    parser.formatter_class = functools.partial(argparse.HelpFormatter, width=WIDTH)
    yield parser.prog, parser.format_help()
    for action in parser._actions:  # noqa: SLF001 - argparse has no public list
        if isinstance(action, argparse._SubParsersAction):  # noqa: SLF001
            for each in action.choices.values():
                yield from _of_argparse(each)
