"""The output of `patchserve evaluate`."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from patchserve_client._counted import counted
from patchserve_client.cli._output import print_error, print_line, print_note, print_table
from patchserve_client.evaluation.measures import TITLES, measures
from patchserve_client.evaluation.number_text import percent_text, share_text


def print_numbers(numbers: dict[str, Any], reference_id: str, *, keep: bool) -> None:
    """Print the report of an evaluation: measures, defects, and what to do about the threshold."""
    counts = numbers["counts"]
    test_images = f"{counts['intact']} intact and {counted(counts['defective'], 'defective test image')}"
    print_line(
        f"{numbers['dataset']}: {counted(counts['reference_images'], 'reference image')}; {test_images}, "
        f"{counted(counts['damaged_regions'], 'damaged region')}"
    )
    print_line("")
    print_table(TITLES, list(measures(numbers)))
    print_line("")
    rows = [
        [defect, f"{row['found']} of {row['images']}", share_text(row["image_auroc"])]
        for defect, row in numbers["defects"].items()
    ]
    if rows:
        print_table(["kind of defect", "found", "image AUROC"], rows)
        print_line("")
    for line in advice(numbers, reference_id, keep=keep):
        print_line(line)
    for note in numbers["notes"]:
        print_note(f"Note: {note}")
    for failure in numbers["failed"]:
        print_error("{file}: {error}".format(**failure))


def advice(numbers: dict[str, Any], reference_id: str, *, keep: bool) -> Iterator[str]:
    """What to do about the threshold, as sentences."""
    best = numbers["thresholds"]["best"]
    if best is None:
        return
    if best["sensitivity"] == 1:
        yield "No other threshold judges these images better."
        return
    alarms, found = (percent_text(best[name]) for name in ("false_alarm_rate", "found_rate"))
    yield (
        f"The best threshold for these images is {best['ratio']:.3g} x: {alarms} false alarms, {found} of the defects "
        "found. On other images, expect a little less."
    )
    command = f"patchserve reference tune {reference_id} --sensitivity {best['sensitivity']:g}"
    yield f"To use it: {command}" if keep else f"To use it, evaluate with --keep, then: {command}"
