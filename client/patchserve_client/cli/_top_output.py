"""The output of `patchserve top` where it is not a screen."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime

from patchserve_client.cli._formats import TEXT, OutputFormat, RecordPrinter, flat
from patchserve_client.cli._output import print_line, print_table
from patchserve_client.cli._top_table import (
    REFERENCE_TITLES,
    SERVER_TITLES,
    failures_line,
    record,
    reference_rows,
    server_cells,
    store_line,
)
from patchserve_client.top.watched_server import Sample, State

Output = Callable[[Sequence[Sample]], None]
"""Shows a look at all servers."""

_NOWHERE = Sample("", datetime.min.replace(tzinfo=UTC), State.AWAY)


@contextlib.contextmanager
def printed_samples(output: OutputFormat) -> Iterator[Output]:
    """Yields what prints a look as tables, or a record for each server."""
    if output is TEXT:
        yield _print_tables
        return
    printer = RecordPrinter(output, [name for name in record(_NOWHERE) if name not in ("failures_per_s", "references")])

    def show(samples: Sequence[Sample]) -> None:
        for sample in samples:
            known = record(sample)
            printer.add(known, flat(known))

    try:
        yield show
    finally:
        printer.end()


def _print_tables(samples: Sequence[Sample]) -> None:
    answering = [sample for sample in samples if sample.stats is not None]
    if answering:
        print_table(SERVER_TITLES, [server_cells(sample) for sample in answering])
    for sample in samples:
        if sample.stats is None:
            print_line(": ".join(server_cells(sample)))
    for line in filter(None, [*map(store_line, samples), *map(failures_line, samples)]):
        print_line(line)
    rows = reference_rows(samples)
    if rows:
        print_line("")
        print_table(REFERENCE_TITLES, rows)
    print_line("")
