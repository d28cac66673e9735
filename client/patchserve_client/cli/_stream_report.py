"""The output of `patchserve stream`: a line per frame, and a summary."""

from __future__ import annotations

import time
from collections import deque
from datetime import datetime
from typing import Any

from patchserve_client import FrameResult, StreamNotice
from patchserve_client.cli import _report
from patchserve_client.cli._output import Column, Table, print_json, print_line, print_note
from patchserve_client.cli._verdict_options import VerdictOptions
from patchserve_client.cli._wording import in_shell_words


class StreamReport:
    """Prints lines of a table, or JSON objects."""

    def __init__(self, verdicts: VerdictOptions, *, as_json: bool) -> None:
        self._verdicts = verdicts
        self.counts = {"intact": 0, "anomalous": 0, "error": 0, "dropped": 0}
        self._as_json = as_json
        self._started_s = time.monotonic()
        self._table = Table((Column("#", 6, right=True), Column("frame", 24), *_report.columns(verdicts)))

    def frame(self, frame: FrameResult) -> None:
        """Print the outcome of a frame."""
        outcome = frame.result or frame.error
        if outcome is not None:
            self._print_outcome(frame.frame_id, outcome, frame.sequence, frame.capture_time)

    def unreadable_files(self, files: deque[tuple[str, OSError]]) -> None:
        """Print files that were not sent, and remove them from the queue."""
        while files:
            self._print_outcome(*files.popleft())

    def _print_outcome(
        self, name: str, outcome: _report.Outcome, sequence: int | None = None, capture_time: datetime | None = None
    ) -> None:
        verdict = _report.verdict_of(outcome)
        self.counts[verdict] += 1
        if self._as_json:
            event = {
                "event": "frame",
                "sequence": sequence,
                "frame_id": name,
                "capture_time": capture_time,
                **_report.as_json(outcome, verdict, self._verdicts),
            }
            print_json(event, indent=None)
            return
        number = "-" if sequence is None else str(sequence)
        self._table.row([number, name, *_report.cells(outcome, verdict, self._verdicts)], {2: _report.COLORS[verdict]})

    def notice(self, notice: StreamNotice) -> None:
        """Print a notice of the server."""
        if self._as_json:
            print_json({"event": "notice", "kind": notice.kind, "message": notice.message}, indent=None)
        else:
            print_note(f"Notice: {in_shell_words(notice.message)}")

    def end(self) -> None:
        """Print the summary."""
        total, elapsed_s = sum(self.counts.values()), time.monotonic() - self._started_s
        if self._as_json:
            summary: dict[str, Any] = {"event": "summary", "frames": total, **self.counts, "elapsed_s": elapsed_s}
            print_json(summary, indent=None)
            return
        noun, rate = "frame" if total == 1 else "frames", total / elapsed_s
        verdicts = "{intact} intact, {anomalous} anomalous, {error} failed, {dropped} dropped".format(**self.counts)
        print_line(f"{total} {noun} in {elapsed_s:.1f} s ({rate:.1f}/s): {verdicts}")
