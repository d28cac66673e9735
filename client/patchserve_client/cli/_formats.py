"""`--output`: the one place that decides how a result leaves a command, as text for people or for programs."""

from __future__ import annotations

import csv
import dataclasses
import io
import json
import sys
import types
import typing
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import datetime
from enum import StrEnum
from typing import Annotated, Any, Final

import typer

from patchserve_client.cli._output import as_json_text, print_json
from patchserve_client.cli._text import escaped


class OutputFormat(StrEnum):
    """How results are printed on stdout. All but TEXT have the field names of the contract."""

    TEXT = "text"
    JSON = "json"
    CSV = "csv"
    JSONL = "jsonl"


OutputOption = Annotated[
    OutputFormat,
    typer.Option(
        "--output",
        help="Print results as text for people, one JSON document, CSV with a header, or one JSON object a line.",
    ),
]
TEXT: Final = OutputFormat.TEXT

Record = Mapping[str, Any]


def print_results(
    output: OutputFormat,
    document: Record | Sequence[Record],
    records: Iterable[Record] | None = None,
    *,
    columns: Sequence[str] = (),
) -> None:
    """Print a result for programs.

    Args:
        output: JSON, CSV or JSONL.
        document: what JSON prints.
        records: what CSV and JSONL print, one a line; None: those of the document, or the document itself.
        columns: of CSV, such as those of `columns_of`; empty: the fields of all records.
    """
    rows = records if records is not None else [document] if isinstance(document, Mapping) else document
    if output is OutputFormat.JSON:
        print_json(document)
    elif output is OutputFormat.JSONL:
        for row in rows:
            print_json(row, indent=None)
    else:
        cells = [flat(row) for row in rows]
        names = columns or list(dict.fromkeys(name for row in cells for name in row))
        print_csv_line(names)
        for row in cells:
            print_csv_line([row.get(name) for name in names])


def print_csv_line(cells: Iterable[object]) -> None:
    """Print one line of CSV. Line ends and what is unsafe on a terminal are escaped."""
    text = io.StringIO()
    csv.writer(text, lineterminator="").writerow([escaped(_cell(cell), sys.stdout) for cell in cells])
    typer.echo(text.getvalue())


def flat(record: Record, prefix: str = "") -> dict[str, object]:
    """The record without nested ones: their fields have names such as "calibration.method"."""
    cells: dict[str, object] = {}
    for name, value in record.items():
        if isinstance(value, Mapping):
            cells |= flat(value, f"{prefix}{name}.")
        else:
            cells[prefix + name] = value
    return cells


def columns_of(record: type) -> list[str]:
    """The columns of a frozen dataclass, which do not depend on its values."""
    return list(_columns(record, ""))


def _columns(record: type, prefix: str) -> Iterator[str]:
    hints = typing.get_type_hints(record)
    for field in dataclasses.fields(record):
        nested = _record_type(hints[field.name])
        if nested is None:
            yield prefix + field.name
        else:
            yield from _columns(nested, f"{prefix}{field.name}.")


def _record_type(hint: Any) -> type | None:  # noqa: ANN401 - an annotation
    """The dataclass of a field that is one, or one or None."""
    kinds = typing.get_args(hint) if isinstance(hint, types.UnionType) else (hint,)
    return next((kind for kind in kinds if isinstance(kind, type) and dataclasses.is_dataclass(kind)), None)


def _cell(value: object) -> str:
    if value is None:
        return ""
    if isinstance(value, datetime):
        return value.isoformat()
    if isinstance(value, (bool, list, tuple)):
        return json.dumps(value, default=datetime.isoformat)
    return str(value)


class RecordPrinter:
    """Prints records as they come, in any format but TEXT, with memory for none of them.

    JSON is an array: its brackets are printed with the first record, and by `end`.

    Args:
        output: JSON, CSV or JSONL.
        columns: of CSV.
    """

    def __init__(self, output: OutputFormat, columns: Sequence[str]) -> None:
        self._output, self._columns = output, columns
        self._has_begun = False

    def add(self, record: Record, cells: Record) -> None:
        """Print a record: for CSV its cells."""
        if self._output is OutputFormat.CSV:
            if not self._has_begun:
                print_csv_line(self._columns)
            print_csv_line([cells.get(name) for name in self._columns])
        elif self._output is OutputFormat.JSON:
            typer.echo(f"{',' if self._has_begun else '['}\n  {as_json_text(record, indent=None)}", nl=False)
        else:
            print_json(record, indent=None)
        self._has_begun = True

    def end(self) -> None:
        """Nothing follows."""
        if self._output is OutputFormat.JSON:
            typer.echo("\n]" if self._has_begun else "[]")
        elif self._output is OutputFormat.CSV and not self._has_begun:
            print_csv_line(self._columns)
