"""What a scan has found, as text for people."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from patchserve_server.scan.scan import Summary

_SHORT = 12  # characters of a revision


def summary_lines(summary: Summary, out: str) -> Iterator[str]:
    """The lines for a scan whose results are in `out`."""
    options, counts = summary.options, summary.counts
    reference = f"{options.reference_id}, revision {options.revision[:_SHORT]}"
    yield f"{counts.image_count:,} image{'' if counts.image_count == 1 else 's'} compared with {reference}:"
    yield f"{counts.anomalous:,} anomalous, {counts.intact:,} intact, {counts.failed_count:,} failed"
    for reason, count in sorted(counts.failed.items(), key=lambda each: -each[1]):
        yield f"  {count:,} {reason}"
    new = summary.counts_of_run.image_count
    if new < counts.image_count:
        yield f"{new:,} of them in this run, the others earlier"
    if counts.image_count:
        yield f"Verdicts: {out}/verdicts/*.parquet"
    if options.overlays.value != "none":
        yield f"Overlays: {out}/overlays"
