"""Plots of an evaluation, as PNG files."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray
from sklearn.metrics import roc_auc_score, roc_curve

from patchserve_client import Client, ReferenceInfo
from patchserve_client.evaluation.contact_sheet import draw_mistakes
from patchserve_client.evaluation.run import Verdict

_INTACT_COLOR, _DEFECT_COLOR, _CONTRAST_COLOR = "#33658a", "#d1495b", "#9a9a9a"
_LINE_COLOR = "#333333"
_DPI = 150
_BINS = 32


def draw_plots(client: Client, reference: ReferenceInfo, verdicts: Sequence[Verdict], folder: Path) -> None:
    """Write roc.png, scores.png and mistakes.png.

    Raises:
        PatchserveError: the server returns no overlay.
        OSError: a file cannot be written.
    """
    draw_roc(verdicts, folder / "roc.png")
    draw_histogram(verdicts, folder / "scores.png")
    draw_mistakes(client, reference, verdicts, folder / "mistakes.png")


def draw_roc(verdicts: Sequence[Verdict], path: Path) -> None:
    """Draw the ROC curves of the calibrated score and, for comparison, of the damage percentage."""
    defective = _defective(verdicts)
    figure = Figure(figsize=(5.6, 5.2), layout="constrained")
    axes = _axes(figure, "Intact images flagged", "Defective images flagged")
    axes.set(xlim=(-0.01, 1.01), ylim=(-0.01, 1.01), aspect="equal", title="How well scores rank the test images")
    axes.plot([0, 1], [0, 1], color=_CONTRAST_COLOR, linewidth=0.8, linestyle=":")
    if defective.any() and not defective.all():
        scores = np.array([verdict.anomaly.score for verdict in verdicts])
        _curve(axes, defective, scores, "calibrated score", _DEFECT_COLOR)
        damage = np.array([verdict.damage_percentage for verdict in verdicts])
        _curve(axes, defective, damage, "damage percentage", _CONTRAST_COLOR)
        flagged = np.array([verdict.anomaly.is_anomalous for verdict in verdicts])
        false_rate, true_rate = flagged[~defective].mean(), flagged[defective].mean()
        label = f"at the threshold: {false_rate:.1%} and {true_rate:.1%}"
        axes.plot(false_rate, true_rate, "o", color=_LINE_COLOR, markersize=7, label=label, zorder=3)
        axes.legend(loc="lower right", frameon=False)
    else:
        axes.text(0.5, 0.55, "needs intact and defective images", ha="center", color=_LINE_COLOR)
    figure.savefig(path, dpi=_DPI)


def draw_histogram(verdicts: Sequence[Verdict], path: Path) -> None:
    """Draw the histogram of the scores of intact and defective images, and the threshold."""
    defective = _defective(verdicts)
    scores = np.array([verdict.anomaly.score for verdict in verdicts])
    lowest, highest = min(scores.min(), 0.49), max(scores.max(), 0.51)
    # The threshold is an edge of two bars, so that no bar counts images of both verdicts.
    width = (highest - lowest) / _BINS
    edges = 0.5 + width * np.arange(np.floor((lowest - 0.5) / width), np.ceil((highest - 0.5) / width) + 1)
    figure = Figure(figsize=(7.2, 4.0), layout="constrained")
    axes = _axes(figure, "Calibrated score", "Test images")
    axes.set_title("How far apart intact and defective images score")
    for name, chosen, color in (("intact", ~defective, _INTACT_COLOR), ("defective", defective, _DEFECT_COLOR)):
        axes.hist(scores[chosen], edges, color=color, alpha=0.6, label=f"{name} ({chosen.sum()})")
    axes.axvline(0.5, color=_LINE_COLOR, linestyle="--", linewidth=1.2, label="threshold")
    axes.legend(frameon=False)
    axes.yaxis.set_major_locator(MaxNLocator(integer=True))
    figure.savefig(path, dpi=_DPI)


def _defective(verdicts: Sequence[Verdict]) -> NDArray[np.bool_]:
    return np.array([verdict.image.defect is not None for verdict in verdicts])


def _axes(figure: Figure, x_label: str, y_label: str) -> Axes:
    axes = figure.add_subplot()
    axes.set(xlabel=x_label, ylabel=y_label)
    axes.spines[["top", "right"]].set_visible(False)
    return axes


def _curve(axes: Axes, defective: NDArray[np.bool_], scores: NDArray[np.float64], name: str, color: str) -> None:
    false_rates, true_rates, _ = roc_curve(defective, scores)
    label = f"{name}: AUROC {roc_auc_score(defective, scores):.3f}"
    axes.plot(false_rates, true_rates, color=color, linewidth=2, label=label)
