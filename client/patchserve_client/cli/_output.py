"""What commands print: plain lines that stay whole in a pipe, and a progress bar on a terminal only."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import typer


@dataclass(frozen=True, slots=True)
class Column:
    """`width` is the least: a longer cell pushes the rest of its line."""

    title: str
    width: int
    right: bool = False

    def cell(self, text: str) -> str:
        return text.rjust(self.width) if self.right else text.ljust(self.width)


class Table:
    """Lines with aligned cells; the titles come with the first row."""

    def __init__(self, columns: tuple[Column, ...]) -> None:
        self._columns = columns
        self._titled = False

    def row(self, cells: Sequence[str], colors: dict[int, str] | None = None) -> None:
        """One line. `colors` by the cell's place; a cell too few leaves the rest of the line empty."""
        if not self._titled:
            self._titled = True
            self.row([column.title for column in self._columns])
        padded = [column.cell(cell) for column, cell in zip(self._columns, cells, strict=False)]
        padded[-1] = padded[-1].rstrip()
        for place, color in (colors or {}).items():
            padded[place] = typer.style(padded[place], fg=color)
        say("  ".join(padded))


def say(text: str) -> None:
    """A line on stdout; colors only where a person looks."""
    typer.echo(text, color=False if os.environ.get("NO_COLOR") else None)


def say_table(titles: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """A table as wide as its rows. Columns of numbers stand to the right."""
    columns = [
        Column(cells[0], max(map(len, cells)), right=all(cell[:1].isdigit() for cell in cells[1:]))
        for cells in zip(titles, *rows, strict=True)
    ]
    table = Table(tuple(columns))
    for row in rows:
        table.row(row)


def say_json(document: Any, *, indent: int | None = 2) -> None:  # noqa: ANN401 - anything that JSON takes
    """A JSON document on stdout, or with indent None a line of one."""
    typer.echo(json.dumps(document, indent=indent, default=datetime.isoformat))


@contextmanager
def progress(label: str, total: int) -> Iterator[Callable[[], None]]:
    """Gives what to call after each step."""
    if not sys.stdout.isatty():
        yield lambda: None
        return
    from rich.progress import Progress  # noqa: PLC0415 - loaded where it is drawn

    with Progress(transient=True) as bar:
        task = bar.add_task(label, total=total)
        yield lambda: bar.advance(task)
