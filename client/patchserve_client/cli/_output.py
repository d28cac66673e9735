"""The output of commands: plain lines that are never cut, and a progress bar on a terminal only."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import typer

from patchserve_client.cli._text import escaped, width_of


@dataclass(frozen=True, slots=True)
class Column:
    """`width` is the minimum: a longer cell moves the rest of its line."""

    title: str
    width: int
    right: bool = False

    def cell(self, text: str) -> str:
        padding = " " * (self.width - width_of(text))
        return padding + text if self.right else text + padding


class Table:
    """Prints lines with aligned cells, and the titles before the first line."""

    def __init__(self, columns: tuple[Column, ...]) -> None:
        self._columns = columns
        self._has_titles = False

    def row(self, cells: Sequence[str], colors: dict[int, str] | None = None) -> None:
        """Print one line. `colors` are by the index of the cell. Missing cells stay empty."""
        if not self._has_titles:
            self._has_titles = True
            self.row([column.title for column in self._columns])
        lines = [escaped(cell, sys.stdout) for cell in cells]
        padded = [column.cell(cell) for column, cell in zip(self._columns, lines, strict=False)]
        padded[-1] = padded[-1].rstrip()
        for index, color in (colors or {}).items():
            padded[index] = typer.style(padded[index], fg=color)
        # Colors only on a terminal.
        typer.echo("  ".join(padded).rstrip(), color=False if os.environ.get("NO_COLOR") else None)


def print_line(text: str) -> None:
    """Print a line on stdout."""
    typer.echo(escaped(text, sys.stdout))


def print_note(text: str) -> None:
    """Print a line on stderr."""
    typer.echo(escaped(text, sys.stderr), err=True)


def print_error(text: str) -> None:
    """Print the line of an error on stderr."""
    print_note(f"Error: {text}")


def print_table(titles: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Print a table as wide as its rows. Columns of numbers are aligned to the right."""
    columns = [
        Column(
            cells[0],
            max(width_of(escaped(cell, sys.stdout)) for cell in cells),
            right=all(cell == "-" or cell[:1].isdigit() for cell in cells[1:]),
        )
        for cells in zip(titles, *rows, strict=True)
    ]
    table = Table(tuple(columns))
    for row in rows:
        table.row(row)


def print_facts(facts: Mapping[str, object]) -> None:
    """Print one line for each name and value. An empty value is "-"."""
    width = max(map(len, facts))
    for name, value in facts.items():
        print_line(f"{name:<{width}} {'-' if value in ('', None) else value}")


def print_json(document: Any, *, indent: int | None = 2) -> None:  # noqa: ANN401 - anything that JSON can hold
    """Print a JSON document on stdout; with indent None in one line."""
    typer.echo(as_json_text(document, indent=indent))


def as_json_text(document: Any, *, indent: int | None = 2) -> str:  # noqa: ANN401
    """A JSON document, in ASCII. Times are in ISO 8601."""
    return json.dumps(document, indent=indent, default=datetime.isoformat)


@contextmanager
def progress(label: str, total: int | None) -> Iterator[Callable[[], None]]:
    """Show a progress bar on a terminal. Yields the function to call after each step. `total`: None: unknown."""
    if not sys.stdout.isatty():
        yield lambda: None
        return
    from rich.progress import Progress  # noqa: PLC0415 - imported only if it is shown

    with Progress(transient=True) as bar:
        task = bar.add_task(label, total=total)
        yield lambda: bar.advance(task)
