"""The output of `patchserve stream`: a line per frame, and a summary."""

from __future__ import annotations

import threading
import time
from datetime import UTC, datetime
from typing import Any

from patchserve_client import FrameResult, StreamNotice
from patchserve_client._counted import counted
from patchserve_client.cli import _report
from patchserve_client.cli._formats import TEXT, OutputFormat, RecordPrinter
from patchserve_client.cli._output import Column, Table, print_line, print_note
from patchserve_client.cli._verdict_options import VerdictOptions


class StreamReport:
    """Prints lines of a table, or records. The threads of the source and of the results share it.

    As CSV, only frames are records: the rest is told on stderr, as for people.
    """

    def __init__(self, verdicts: VerdictOptions, output: OutputFormat) -> None:
        self._verdicts, self._output = verdicts, output
        self.counts = {"intact": 0, "anomalous": 0, "error": 0, "dropped": 0}
        self._records = None if output is TEXT else RecordPrinter(output, _report.COLUMNS)
        self._events = self._records if output in (OutputFormat.JSON, OutputFormat.JSONL) else None
        self._lock = threading.Lock()
        self._started_s = time.monotonic()
        self._table = Table((Column("#", 6, right=True), Column("frame", 24), *_report.columns(verdicts)))

    def frame(self, frame: FrameResult) -> None:
        """Print the outcome of a frame."""
        outcome = frame.result or frame.error
        if outcome is not None:
            self._print_outcome(frame.frame_id, outcome, frame.sequence, frame.capture_time)

    def unreadable(self, name: str, error: OSError) -> None:
        """Print a file that was not sent."""
        self._print_outcome(name, error)

    def _print_outcome(
        self, name: str, outcome: _report.Outcome, sequence: int | None = None, capture_time: datetime | None = None
    ) -> None:
        verdict = _report.verdict_of(outcome)
        with self._lock:
            self.counts[verdict] += 1
            if self._records is None:
                number = "-" if sequence is None else str(sequence)
                cells = [number, name, *_report.cells(outcome, verdict, self._verdicts)]
                self._table.row(cells, {2: _report.COLORS[verdict]})
                return
            event = _report.frame_event(name, outcome, self._verdicts, sequence, capture_time)
            facts = {"time": datetime.now(UTC), "name": name, "sequence": sequence, "capture_time": capture_time}
            self._records.add(event, facts | _report.csv_cells(outcome, verdict, self._verdicts.threshold))

    def notice(self, notice: StreamNotice) -> None:
        """Print a notice of the server, or of the client about its connection."""
        self._print_event({"event": "notice", "kind": notice.kind, "message": notice.message}, "Notice")

    def tell(self, kind: str, message: str) -> None:
        """Print what happened to the source, or what to look at."""
        self._print_event({"event": "warning", "kind": kind, "message": message}, "Warning")

    def _print_event(self, event: dict[str, Any], title: str) -> None:
        with self._lock:
            if self._events is not None:
                self._events.add(event, {})
            else:
                print_note(f"{title}: {event['message']}")

    def end(self, left_out_count: int = 0, longest_lag_s: float | None = None) -> None:
        """Print the summary. Only a live source can have left frames out, and has a lag."""
        total, elapsed_s = sum(self.counts.values()), time.monotonic() - self._started_s
        if self._events is not None:
            summary: dict[str, Any] = {"event": "summary", "frames": total, **self.counts}
            source = {"left_out": left_out_count, "longest_lag_s": longest_lag_s}
            self._events.add({**summary, **source, "elapsed_s": elapsed_s}, {})
        else:
            verdicts = "{intact} intact, {anomalous} anomalous, {error} failed, {dropped} dropped".format(**self.counts)
            left_out = f"; {left_out_count} left out at the source" if left_out_count else ""
            lag = "" if longest_lag_s is None else f"; at most {longest_lag_s:.1f} s behind the camera"
            rate = f"{elapsed_s:.1f} s ({total / elapsed_s:.1f}/s)"
            tell = print_line if self._output is TEXT else print_note
            tell(f"{counted(total, 'frame')} in {rate}: {verdicts}{left_out}{lag}")
        if self._records is not None:
            self._records.end()
