"""The normal scores of a reference as a histogram of lines, and where the threshold is among them."""

from __future__ import annotations

import bisect
import math
from dataclasses import dataclass

from patchserve_client import CalibrationMethod, ReferenceInfo
from patchserve_client.cli._output import Column, Table, print_line

_BINS = 12
_SMALLEST_REACH = 1e-6  # if all scores are equal to 0
_BAR_WIDTH = 40
_THRESHOLD_WITHIN = 2.0  # of the range of the scores: if it is farther away, it is only named


@dataclass(frozen=True, slots=True)
class Bin:
    """Scores from `low` to less than `high`."""

    low: float
    high: float
    count: int

    def has(self, score: float) -> bool:
        return self.low <= score < self.high


def bins(scores: tuple[float, ...], threshold: float) -> list[Bin]:
    """Equally wide bins of ascending scores, at least one. They reach to the threshold unless it is far away."""
    low, high = scores[0], scores[-1]
    reach = max(high - low, 0.05 * high, _SMALLEST_REACH)
    if -reach <= threshold - low and threshold - high <= _THRESHOLD_WITHIN * reach:
        low, high = min(low, threshold), max(high, threshold)
    width = max((high - low) / (_BINS - 1), reach / _BINS)  # the highest value is in the last bin, not at its end
    edges = [low + step * width for step in range(_BINS + 1)]
    places = [bisect.bisect_left(scores, edge) for edge in edges]
    return [
        Bin(edges[step], edges[step + 1], places[step + 1] - places[step])
        for step in range(_BINS)
        if edges[step] <= high
    ]


def print_histogram(reference: ReferenceInfo) -> None:
    """Print the histogram, if the scores are known. Bars are of one color, on a terminal only."""
    spread, threshold = reference.calibration.normal_scores, reference.threshold
    if not spread.scores:
        return
    found = bins(spread.scores, threshold)
    decimals = max(0, 1 - math.floor(math.log10(found[0].high - found[0].low)))  # two digits of the width of a bin
    labels = [f"{one.low:.{decimals}f} to {one.high:.{decimals}f}" for one in found]
    what = "images" if reference.calibration.method is CalibrationMethod.LEAVE_ONE_OUT else "views"
    title = what if len(spread.scores) == spread.count else f"of {len(spread.scores)}"
    width = max(len("normal scores"), *map(len, labels))
    table = Table((Column("normal scores", width), Column(title, len(title), right=True), Column("", 1)))
    per_mark = max(1.0, max(one.count for one in found) / _BAR_WIDTH)
    print_line("")
    for one, label in zip(found, labels, strict=True):
        bar = "#" * math.ceil(one.count / per_mark)
        marker = f"< threshold {threshold:.4g}" if one.has(threshold) else ""
        shown = f"{bar} {marker}".strip()
        table.row([label, str(one.count), shown], {2: "yellow" if marker else "green"} if shown else None)
    if not any(one.has(threshold) for one in found):
        print_line(f"The threshold, {threshold:.4g}, is far {'above' if threshold > spread.max else 'below'} them.")
