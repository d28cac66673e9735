"""`--results FILE`: a line for each image, appended when its result arrives."""

from __future__ import annotations

import csv
import io
import json
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import typer

from patchserve_client._counted import counted
from patchserve_client.cli import _report
from patchserve_client.cli._appended_lines import AppendedLines
from patchserve_client.cli._paths import path_from
from patchserve_client.cli._verdict_options import VerdictOptions

_SUFFIXES = (".csv", ".jsonl")


def results_path(text: str) -> Path:
    """The path of a results file.

    Raises:
        typer.BadParameter: it has another suffix.
    """
    path = path_from(text)
    if path.suffix.lower() not in _SUFFIXES:
        raise typer.BadParameter(f"A results file must end in {' or '.join(_SUFFIXES)}, not {path.name!r}.")
    if path.is_dir():
        raise typer.BadParameter(f"{path} is a folder, not a file.")
    return path


class ResultsFile:
    """Earlier lines of the file stay: a stream that is started again goes on with it.

    Raises:
        OSError: the file cannot be opened.
        typer.BadParameter: it is a table with other columns.
    """

    def __init__(self, path: Path, verdicts: VerdictOptions) -> None:
        self._path, self._verdicts = path, verdicts
        self._is_table = path.suffix.lower() == ".csv"
        header = _table_line(dict(zip(_report.COLUMNS, _report.COLUMNS, strict=True)))
        first_line = _first_line(path) if self._is_table else b""
        if first_line.strip() not in (b"", header):
            raise typer.BadParameter(f"{path} has other columns. Choose another file for --results.")
        self._lines = AppendedLines(path)
        if self._is_table and not first_line:
            self._lines.append(header)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._lines.__exit__(kind, error, traceback)
        if self._lines.lost_count and error is None:
            raise OSError(f"{self._path} lacks {counted(self._lines.lost_count, 'line')} that could not be written.")

    def add(
        self,
        name: str,
        outcome: _report.Outcome,
        sequence: int | None = None,
        capture_time: datetime | None = None,
    ) -> None:
        """Write one line."""
        facts = {"time": datetime.now(UTC), "name": name, "sequence": sequence, "capture_time": capture_time}
        verdict = _report.verdict_of(outcome)
        if self._is_table:
            self._lines.append(_table_line({**facts, **_report.csv_cells(outcome, verdict, self._verdicts.threshold)}))
        else:
            document = {**facts, **_report.as_json(outcome, verdict, self._verdicts)}
            self._lines.append(json.dumps(document, default=datetime.isoformat).encode())


def _first_line(path: Path) -> bytes:
    if not path.is_file():
        return b""
    with path.open("rb") as file:
        return file.readline(2**16)


def _table_line(values: dict[str, Any]) -> bytes:
    cells = (values.get(column) for column in _report.COLUMNS)
    text = io.StringIO()
    row = [cell.isoformat() if isinstance(cell, datetime) else cell for cell in cells]
    csv.writer(text, lineterminator="\r\n").writerow(row)  # a cell that has one of these characters is quoted
    return text.getvalue()[:-2].encode(errors="backslashreplace")  # names that are not UTF-8
