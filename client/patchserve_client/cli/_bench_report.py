"""The output of `patchserve bench`."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, Final

from patchserve_client import ServerInfo
from patchserve_client._device_text import device_text
from patchserve_client.bench.measuring import Plan
from patchserve_client.bench.step import Outcome, Step
from patchserve_client.cli._bench_chart import chart_lines
from patchserve_client.cli._formats import TEXT, OutputFormat, print_results
from patchserve_client.cli._output import Column, Table, print_line, print_note

if TYPE_CHECKING:
    from patchserve_client.cli._bench_run import Request

_COLUMNS: Final = (
    Column("rate/s", 8, right=True),
    Column("done/s", 8, right=True),
    *(Column(f"{name} ms", 8, right=True) for name in ("p50", "p90", "p99", "max")),
    Column("failed", 6, right=True),
    Column("late ms", 7, right=True),
    Column("", 0),
)
_COLORS: Final = {Outcome.KEPT: "green", Outcome.TOO_SLOW: "red", Outcome.FAILED: "red"}


class BenchReport:
    """A row for each step when it ends, then the limit; or a document at the end."""

    def __init__(self, plan: Plan, request: Request, output: OutputFormat) -> None:
        self.steps: list[Step] = []
        self._plan, self._request, self._output = plan, request, output
        self._server: ServerInfo | None = None
        self._table = Table(_COLUMNS)

    @property
    def limit(self) -> Step | None:
        """The fastest step that kept the objective."""
        return max((one for one in self.steps if one.outcome is Outcome.KEPT), key=lambda one: one.rate, default=None)

    def begin(self, server: ServerInfo) -> None:
        """The server that is measured."""
        self._server = server
        if self._output is TEXT:
            device = device_text(server.device, server.decode)
            print_line(f"{server.backbone}, {server.precision}, on {device}; patchserve {server.version}")

    def step(self, step: Step) -> None:
        """A step has ended."""
        self.steps.append(step)
        if self._output is TEXT:
            times = [_number(time_ms) for time_ms in (step.p50_ms, step.p90_ms, step.p99_ms, step.max_ms)]
            failed = str(sum(step.failed.values()))
            row = [_number(step.rate), _number(step.completed_rate), *times, failed, _number(step.late_p99_ms)]
            self._table.row([*row, _remark(step)], {8: _COLORS[step.outcome]})

    def end(self) -> None:
        """Print the limit, and what there is to say about it."""
        if self._output is not TEXT:
            print_results(self._output, self._document(), list(map(dataclasses.asdict, self.steps)), columns=_NAMES)
        elif self.steps:
            print_line("")
            for line in chart_lines(self.steps, self._plan.objective_ms):
                print_line(line)
            print_line("")
            for line in self._conclusion():
                print_line(line)
        if any(step.is_client_limited for step in self.steps):
            print_note(
                "Warning: in some steps this program was too slow itself (client), so their latencies are too long. "
                "Run it on another machine, or more than one."
            )

    def _conclusion(self) -> Iterator[str]:
        objective = f"p{self._plan.percentile:g} of at most {self._plan.objective_ms:g} ms"
        limit = self.limit
        if limit is None:
            yield f"No rate kept a {objective}."
            return
        yield (
            f"{_number(limit.completed_rate)} images/s with a {objective}: p50 {_number(limit.p50_ms)} ms, p99 "
            f"{_number(limit.p99_ms)} ms."
        )
        if all(step.outcome is Outcome.KEPT for step in self.steps):
            yield "No step broke the objective: the limit may be higher."

    def _document(self) -> dict[str, Any]:
        request, limit = self._request, self.limit
        plan = {**dataclasses.asdict(self._plan), "reference_id": request.reference_id, "images": len(request.images)}
        sent = {"channels": request.channels, "stream": request.is_stream, "overlay": request.overlay}
        return {
            "limit": None if limit is None else dataclasses.asdict(limit),
            "steps": list(map(dataclasses.asdict, self.steps)),
            "plan": plan | sent,
            "server": None if self._server is None else dataclasses.asdict(self._server),
        }


_NAMES: Final = [field.name for field in dataclasses.fields(Step)]


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.0f}" if value >= 100 else f"{value:.3g}"  # noqa: PLR2004 - three digits


def _remark(step: Step) -> str:
    reasons = ", ".join(f"{count} {reason}" for reason, count in sorted(step.failed.items()))
    remark = {Outcome.KEPT: "ok", Outcome.TOO_SLOW: "too slow", Outcome.FAILED: reasons or "no results"}[step.outcome]
    return f"{remark} (client)" if step.is_client_limited else remark
