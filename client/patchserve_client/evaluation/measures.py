"""The measures of an evaluation in words: name, value, interval, meaning."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from patchserve_client.evaluation.number_text import percent_range, percent_text, share_range, share_text

TITLES = ("measure", "value", "95 % interval", "meaning")
_PERCENTAGES = ("false_alarm_rate", "found_rate", "balanced_accuracy", "best_balanced_accuracy")


def measures(numbers: dict[str, Any]) -> Iterator[list[str]]:
    """The cells below TITLES, for the measures that a report has."""
    alarms = [image for image in numbers["images"] if image["defect"] is None and image["is_anomalous"]]
    found = sum(row["found"] for row in numbers["defects"].values())
    intact, defective = numbers["counts"]["intact"], numbers["counts"]["defective"]
    rows = [
        ("false alarms", "false_alarm_rate", f"{len(alarms)} of {intact} intact images are called anomalous"),
        ("defects found", "found_rate", f"{found} of {defective} defective images are called anomalous"),
        ("balanced accuracy", "balanced_accuracy", "the mean of defects found and intact images passed"),
        ("best balanced accuracy", "best_balanced_accuracy", "the same with the best threshold for these images"),
        ("F1", "f1", "defects found against false alarms: 1 is perfect"),
        ("image AUROC", "image_auroc", "defective images rank above intact ones: 1 always, 0.5 by chance"),
        ("average precision", "average_precision", "few intact images among those that rank highest: 1 is perfect"),
        ("pixel AUROC", "pixel_auroc", "damaged pixels rank above intact ones: 1 always, 0.5 by chance"),
        ("AUPRO", "aupro", "damaged regions covered, of all sizes alike: 1 is perfect"),
        ("damage AUROC", "damage_percentage_auroc", "the image AUROC of the notebook's damage percentage"),
    ]
    for name, key, meaning in rows:
        if key in numbers:
            value, interval = numbers[key], numbers["intervals"].get(key)
            texts = (
                (percent_text(value), percent_range(interval))
                if key in _PERCENTAGES
                else (share_text(value), share_range(interval))
            )
            yield [name, *texts, meaning]
