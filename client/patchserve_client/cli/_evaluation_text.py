"""The output of `patchserve evaluate`."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from patchserve_client._counted import counted
from patchserve_client.cli._output import print_error, print_line, print_note, print_table

_PERCENT = "{:.1f} %"
_SHARE = "{:.3f}"


def print_numbers(numbers: dict[str, Any], reference_id: str, *, keep: bool) -> None:
    """Print the report of an evaluation: measures, defects, and what to do about the threshold."""
    counts = numbers["counts"]
    test_images = f"{counts['intact']} intact and {counted(counts['defective'], 'defective test image')}"
    print_line(
        f"{numbers['dataset']}: {counted(counts['reference_images'], 'reference image')}; {test_images}, "
        f"{counted(counts['damaged_regions'], 'damaged region')}"
    )
    print_line("")
    print_table(["measure", "value", "meaning"], list(_measures(numbers)))
    print_line("")
    rows = [
        [defect, f"{row['found']} of {row['images']}", _text(row["image_auroc"], _SHARE)]
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


def _measures(numbers: dict[str, Any]) -> Iterator[list[str]]:
    alarms = [image for image in numbers["images"] if image["defect"] is None and image["is_anomalous"]]
    found = sum(row["found"] for row in numbers["defects"].values())
    intact, defective = numbers["counts"]["intact"], numbers["counts"]["defective"]
    measures = [
        ("false alarms", "false_alarm_rate", _PERCENT, f"{len(alarms)} of {intact} intact images are called anomalous"),
        ("defects found", "found_rate", _PERCENT, f"{found} of {defective} defective images are called anomalous"),
        ("balanced accuracy", "balanced_accuracy", _PERCENT, "the mean of defects found and intact images passed"),
        (
            "best balanced accuracy",
            "best_balanced_accuracy",
            _PERCENT,
            "the same with the best threshold for these images",
        ),
        ("F1", "f1", _SHARE, "defects found against false alarms: 1 is perfect"),
        ("image AUROC", "image_auroc", _SHARE, "defective images rank above intact ones: 1 always, 0.5 by chance"),
        (
            "average precision",
            "average_precision",
            _SHARE,
            "few intact images among those that rank highest: 1 is perfect",
        ),
        ("pixel AUROC", "pixel_auroc", _SHARE, "damaged pixels rank above intact ones: 1 always, 0.5 by chance"),
        ("AUPRO", "aupro", _SHARE, "damaged regions covered, of all sizes alike: 1 is perfect"),
        ("damage AUROC", "damage_percentage_auroc", _SHARE, "the image AUROC of the notebook's damage percentage"),
    ]
    for name, key, form, meaning in measures:
        if key in numbers:
            yield [name, _text(numbers[key], form), meaning]


def advice(numbers: dict[str, Any], reference_id: str, *, keep: bool) -> Iterator[str]:
    """What to do about the threshold, as sentences."""
    best = numbers["thresholds"]["best"]
    if best is None:
        return
    if best["sensitivity"] == 1:
        yield "No other threshold judges these images better."
        return
    alarms, found = (_text(best[name], _PERCENT) for name in ("false_alarm_rate", "found_rate"))
    yield (
        f"The best threshold for these images is {best['ratio']:.3g} x: {alarms} false alarms, {found} of the defects "
        "found. On other images, expect a little less."
    )
    command = f"patchserve reference tune {reference_id} --sensitivity {best['sensitivity']:g}"
    yield f"To use it: {command}" if keep else f"To use it, evaluate with --keep, then: {command}"


def _text(value: float | None, form: str) -> str:
    if value is None:
        return "-"
    return form.format(100 * value if form == _PERCENT else value)
