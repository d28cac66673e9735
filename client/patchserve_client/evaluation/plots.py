"""Plots of an evaluation, as PNG files."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import BinaryIO, TypeAlias

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray
from sklearn.metrics import roc_auc_score, roc_curve

from patchserve_client.evaluation.best_threshold import BestThreshold, best_threshold
from patchserve_client.evaluation.contact_sheet import draw_mistakes
from patchserve_client.evaluation.run import Verdict
from patchserve_client.evaluation.verdict_pictures import VerdictPicture

_INTACT_COLOR, _DEFECT_COLOR, _CONTRAST_COLOR = "#33658a", "#d1495b", "#9a9a9a"
LINE_COLOR = "#333333"
DPI = 150
_BINS = 40

File: TypeAlias = Path | BinaryIO


def draw_plots(verdicts: Sequence[Verdict], pictures: Sequence[VerdictPicture], folder: Path) -> None:
    """Write roc.png, scores.png and mistakes.png.

    Raises:
        OSError: a file cannot be written.
    """
    defective = np.array([verdict.image.defect is not None for verdict in verdicts])
    ratios = np.array([verdict.anomaly.ratio for verdict in verdicts])
    best = best_threshold(defective, ratios) if defective.any() and not defective.all() else None
    draw_roc(defective, ratios, best, folder / "roc.png")
    draw_histogram(defective, ratios, best, folder / "scores.png")
    draw_mistakes(pictures, verdicts, folder / "mistakes.png")


def draw_roc(defective: NDArray[np.bool_], ratios: NDArray[np.float64], best: BestThreshold | None, file: File) -> None:
    """Draw the ROC curve, with the calibrated and the best threshold on it."""
    figure = Figure(figsize=(5.6, 5.2), layout="constrained")
    axes = _axes(figure, "Intact images called anomalous (false alarms)", "Defective images called anomalous (found)")
    axes.set(xlim=(-0.01, 1.01), ylim=(-0.01, 1.01), aspect="equal")
    axes.set_title("What other thresholds would give")
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_formatter(lambda share, _: f"{share:.0%}")
    if defective.any() and not defective.all():
        false_rates, true_rates, _ = roc_curve(defective, ratios)
        label = f"every threshold (AUROC {roc_auc_score(defective, ratios):.3f})"
        axes.plot(false_rates, true_rates, color=_DEFECT_COLOR, linewidth=2, label=label)
        flagged = ratios > 1
        point = (flagged[~defective].mean(), flagged[defective].mean())
        # Not clipped: a marker at 0 or 100 % is whole.
        axes.plot(*point, "o", color=LINE_COLOR, markersize=8, label="the threshold, 1 x", zorder=3, clip_on=False)
        if best is not None and best.sensitivity != 1:
            point = (best.false_alarm_rate, best.found_rate)
            (marker,) = axes.plot(*point, "D", color="white", markeredgecolor=LINE_COLOR, label=_best_label(best))
            marker.set(zorder=4, clip_on=False)
        axes.plot([0, 1], [0, 1], color=_CONTRAST_COLOR, linewidth=0.8, linestyle=":", label="guessing")
        axes.legend(loc="lower right", frameon=False)
    else:
        axes.text(0.5, 0.55, "needs intact and defective images", ha="center", color=LINE_COLOR)
    figure.savefig(file, dpi=DPI)


def draw_histogram(
    defective: NDArray[np.bool_], ratios: NDArray[np.float64], best: BestThreshold | None, file: File
) -> None:
    """Draw the histogram of the ratios of intact and defective images, and the thresholds."""
    finite = ratios[np.isfinite(ratios)]
    lowest, highest = min(finite.min(initial=1), 0.98), max(finite.max(initial=1), 1.02)
    # The threshold is an edge of two bars, so that no bar counts images of both verdicts.
    width = (highest - lowest) / _BINS
    edges = 1 + width * np.arange(np.floor((lowest - 1) / width), np.ceil((highest - 1) / width) + 1)
    figure = Figure(figsize=(7.2, 4.0), layout="constrained")
    axes = _axes(figure, "Times the threshold: above 1 x is anomalous", "Test images")
    axes.set_title("How far apart intact and defective images are")
    axes.xaxis.set_major_formatter(lambda ratio, _: f"{ratio:g} x")
    for name, chosen, color in (("intact", ~defective, _INTACT_COLOR), ("defective", defective, _DEFECT_COLOR)):
        shown = np.nextafter(ratios[chosen], 0)  # exactly at the threshold is intact: left of the edge
        axes.hist(shown, edges, color=color, alpha=0.6, label=f"{name} ({chosen.sum()})")
    axes.axvline(1, color=LINE_COLOR, linestyle="--", linewidth=1.2, label="the threshold, 1 x")
    if best is not None and best.sensitivity != 1:
        axes.axvline(best.ratio, color=LINE_COLOR, linestyle=":", linewidth=1.2, label=_best_label(best))
    figure.legend(loc="outside lower center", ncols=2, frameon=False)  # no bar is there
    axes.yaxis.set_major_locator(MaxNLocator(integer=True))
    figure.savefig(file, dpi=DPI)


def _best_label(best: BestThreshold) -> str:
    return f"the best for these images, {best.ratio:.3g} x"


def _axes(figure: Figure, x_label: str, y_label: str) -> Axes:
    axes = figure.add_subplot()
    axes.set(xlabel=x_label, ylabel=y_label)
    axes.spines[["top", "right"]].set_visible(False)
    return axes
