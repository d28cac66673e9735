"""A whole scan: it begins or goes on, inspects what is left, and sums up."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final

from patchserve_server.domain.reference import Reference
from patchserve_server.scan.counts import Counts
from patchserve_server.scan.errors import ScanError
from patchserve_server.scan.history import SUMMARY, begin, check_same, forget, read_options
from patchserve_server.scan.options import ScanOptions
from patchserve_server.scan.plan import Part, Plan, make_plan, read_plan
from patchserve_server.scan.progress import Progress
from patchserve_server.scan.references import keep_reference
from patchserve_server.scan.results import Results
from patchserve_server.scan.rows import counts_in
from patchserve_server.scan.sources import Source

Run = Callable[[Plan, Sequence[int]], Counts]
"""Inspects these parts of a plan and publishes each as a whole. Returns what was found when all are published."""

_TELL_EVERY: Final = 1000  # images


@dataclass(frozen=True, slots=True)
class Summary:
    """What a scan has found, in all its runs."""

    options: ScanOptions
    counts: Counts
    counts_of_run: Counts  # the part of the last run
    end_time: datetime

    def to_json(self) -> dict[str, Any]:
        counts = self.counts
        return {
            "source": self.options.source,
            "reference_id": self.options.reference_id,
            "revision": self.options.revision,
            "images": counts.image_count,
            "anomalous": counts.anomalous,
            "intact": counts.intact,
            "failed": counts.failed_count,
            "failed_by_reason": dict(counts.failed),
            "size_bytes": counts.size_bytes,
            "end_time": self.end_time.isoformat(),
        }


def scan(
    source: Source,
    reference: Reference,
    options: ScanOptions,
    results: Results,
    *,
    run: Run,
    progress: Progress,
    restart: bool = False,
) -> Summary:
    """Inspects every image of the source once, whatever earlier runs have done.

    Args:
        source: of the images.
        reference: at the revision of the options.
        options: that all rows are made with.
        results: where earlier runs may have published parts.
        run: inspects parts.
        progress: is told what happens.
        restart: forget what earlier runs have done.

    Raises:
        ScanError: the results belong to another scan, or cannot be used.
    """
    begun = None if restart else read_options(results)
    if begun is None:
        forget(results)  # also what a kill left while a scan was begun or forgotten
        keep_reference(reference, results)
        begin(options, results)
    else:
        check_same(begun, options, results.name)
    plan = read_plan(results) or make_plan(_told(source.list(), progress), results)
    done = plan.done(results)
    counts = sum((_counts_of_part(results, part) for part in sorted(done)), Counts())
    progress.planned(plan.image_count, counts)
    todo = [part for part in range(plan.part_count) if part not in done]
    new = run(plan, todo) if todo else Counts()
    summary = Summary(options, counts + new, new, datetime.now(UTC))
    results.write(SUMMARY, f"{json.dumps(summary.to_json(), indent=2)}\n".encode())
    return summary


def _told(paths: Iterable[str], progress: Progress) -> Iterator[str]:
    for count, path in enumerate(paths):
        if count % _TELL_EVERY == 0:
            progress.listing(count)
        yield path


def _counts_of_part(results: Results, number: int) -> Counts:
    file = Part(number, ()).file
    data = results.read(file)
    try:
        return counts_in(data or b"")
    except ValueError as error:
        raise ScanError(f"{results.name}/{file} is damaged. Remove it to have its images inspected again.") from error
