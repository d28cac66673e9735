"""The parts of the benchmark. Each runs in a process of its own, and ends when its share of the time is over.

So a part that fails, hangs or breaks its device takes nothing from the others, and the whole ends in time.
"""

from __future__ import annotations

import json
import os
import queue
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import IO, Any

from gpu.options import Options
from gpu.processes import kill_tree
from gpu.table import Case, Measured, row

PROGRAM = (sys.executable, "-m", "gpu.part")
RESERVE = 0.1  # of the time of a part, in which it ends by itself
_LAST_LINES = 60  # of a log, where something was not measured
_LONGEST_LINE = 500


@dataclass(frozen=True)
class Part:
    """`precision`: empty for that of the first part. `weight`: of its share of the time that is left."""

    name: str
    precision: str
    weight: float
    cases: Sequence[Case[Any]]


@dataclass
class Report:
    """What a part has said so far."""

    notes: dict[str, str] = field(default_factory=dict)  # by their titles: a part may replace what it has said
    found: dict[str, object] = field(default_factory=dict)


def run_parts(
    parts: Sequence[Part],
    options: Options,
    ends_s: float,
    *,
    show: Callable[[str], None],
    note: Callable[[str], None],
    program: Sequence[str] = PROGRAM,
) -> None:
    """Runs the parts one after the other until `ends_s` (of time.monotonic).

    Args:
        parts: the most important first.
        options: of all of them.
        ends_s: when the last one ends at the latest.
        show: takes each row when it is known.
        note: takes the notes of each part when it has ended.
        program: runs a part.
    """
    for number, part in enumerate(parts):
        left_s = ends_s - time.monotonic()
        limit_s = left_s * part.weight / sum(each.weight for each in parts[number:])
        known = replace(options, part=part.name, precision=part.precision or options.precision)
        report = _Run(part, known, limit_s, show).run(program)
        for text in report.notes.values():
            note(text)
        if number == 0:
            options = options.learned(report.found)


class _Run:
    def __init__(self, part: Part, options: Options, limit_s: float, show: Callable[[str], None]) -> None:
        self._part, self._options, self._limit_s, self._show = part, options, limit_s, show
        self._left = {case.what: case for case in part.cases}
        self._precision = options.precision
        self._report = Report()
        self._failure = ""
        self._has_failed = False  # a case, or all of the part
        self._log = list[str]()

    def run(self, program: Sequence[str]) -> Report:
        ends_s = time.monotonic() + self._limit_s
        own_end_s = time.monotonic() + self._limit_s * (1 - RESERVE)
        lines: queue.Queue[str | None] = queue.Queue()
        with subprocess.Popen(
            [*program, self._options.to_json(), str(own_end_s)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
            env={**os.environ, "PYTHONFAULTHANDLER": "1"},  # of its server too: a crash says where
        ) as process:
            assert process.stdout is not None
            assert process.stderr is not None
            readers = [
                threading.Thread(target=_read, args=(process.stdout, lines.put), daemon=True),
                threading.Thread(target=_read, args=(process.stderr, self._keep), daemon=True),
            ]
            for reader in readers:
                reader.start()
            try:
                is_over = self._take(lines, ends_s)
            finally:
                kill_tree(process.pid)  # if it has crashed, its server is still there
            code = process.wait()
            readers[1].join(1)
        if code and not is_over:
            self._note_log(f"ended with code {code}")
            self._show_left(self._failure or f"its part ended with code {code}")
        else:
            if self._has_failed:
                self._note_log("has failed in a case")
            elif is_over:
                self._note_log("was ended, because its time was over")
            self._show_left("its time is over")
        return self._report

    def _note_log(self, why: str) -> None:
        """The machine may never be seen again, so all that it said is kept."""
        title = f"The last words of the part `{self._part.name}`, which {why}:"
        lines = [title, "", *self._log]
        with suppress(OSError):  # only some parts have a server
            of_server = self._options.server_log.read_text(errors="replace").splitlines()[-_LAST_LINES:]
            lines += ["", "and of its server:", "", *(line[:_LONGEST_LINE] for line in of_server)]
        self._report.notes[title] = "\n".join(lines)

    def _take(self, lines: queue.Queue[str | None], ends_s: float) -> bool:
        """Whether the time is over before the part has ended."""
        while True:
            try:
                line = lines.get(timeout=max(0.0, ends_s - time.monotonic()))
            except queue.Empty:
                return True
            if line is None:
                return False
            self._hear(line)

    def _hear(self, line: str) -> None:
        try:
            told = json.loads(line)
        except ValueError:
            self._keep(line)
            return
        if not isinstance(told, dict):
            return
        self._report.found |= told.get("found", {})
        self._failure = told.get("failure", self._failure)
        self._precision = str(self._report.found.get("precision", self._precision))
        if note := told.get("note"):
            self._report.notes[note.partition("\n")[0]] = note
        case = self._left.pop(told.get("what", ""), None)
        if case is not None:
            self._has_failed |= "failed" in told
            outcome = told.get("failed") or Measured(**told["measured"])
            self._show(row(case.what, self._precision, case.goal, outcome, judges=not self._options.is_trial))

    def _keep(self, line: str | None) -> None:
        if line is not None:
            self._log.append(line.rstrip()[:_LONGEST_LINE])
            del self._log[:-_LAST_LINES]

    def _show_left(self, reason: str) -> None:
        for case in self._left.values():
            self._show(row(case.what, self._precision, case.goal, reason))


def _read(file: IO[str], take: Callable[[str | None], None]) -> None:
    for line in file:
        take(line)
    take(None)
