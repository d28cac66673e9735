"""The plot of a sweep: accuracy against time and against memory."""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter
from numpy.typing import NDArray

from patchserve_client.evaluation.outcome import Outcome
from patchserve_client.evaluation.plots import DPI, LINE_COLOR
from patchserve_client.evaluation.sweep_result import SweepResult

_COLORS = ("#33658a", "#d1495b", "#2c8a56", "#b07d12", "#6b4c9a", "#5b5b5b")  # of profiles
_MARKERS = ("o", "s", "^", "D", "v", "P")  # of the same, for those who see no difference of colors
_CHOSEN_SIZE_PT, _SIZE_PT = 15, 7
_LOG_RANGE = 8  # the largest cost over the smallest, from which the axis is logarithmic


def draw_sweep(result: SweepResult) -> bytes:
    """The plot as PNG. The numbers at the points are those of the table. At least one setting was measured."""
    figure = Figure(figsize=(10.4, 4.8), layout="constrained")
    by_time, by_memory = figure.subplots(1, 2, sharey=True)
    _draw(by_time, result, "ms an image on the server", lambda outcome: outcome.image_ms)
    _draw(by_memory, result, "MiB of the bank", lambda outcome: outcome.bank_mib)
    by_time.set_ylabel("Image AUROC, with its 95 % interval")
    handles, labels = by_time.get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=len(labels), frameon=False)
    file = io.BytesIO()
    figure.savefig(file, dpi=DPI, format="png")
    return file.getvalue()


def _draw(axes: Axes, result: SweepResult, label: str, cost: Callable[[Outcome], float]) -> None:
    axes.set_xlabel(label)
    axes.spines[["top", "right"]].set_visible(False)
    costs = [cost(outcome) for outcome in result.outcomes]
    if min(costs) > 0 and max(costs) > _LOG_RANGE * min(costs):
        axes.set_xscale("log")
        axes.xaxis.set_major_locator(LogLocator(10, subs=(1, 2, 5)))
        axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        axes.xaxis.set_minor_formatter(NullFormatter())
    profiles = list(dict.fromkeys(outcome.setting.profile.value for outcome in result.outcomes))
    for index, profile in enumerate(profiles):
        style = index % len(_COLORS)
        of_profile = [one for one in result.outcomes if one.setting.profile.value == profile]
        values = [one.metrics.image_auroc or 0.0 for one in of_profile]
        axes.errorbar(
            [cost(one) for one in of_profile],
            values,
            yerr=_bars(of_profile, values),
            fmt=_MARKERS[style],
            markersize=_SIZE_PT,
            color=_COLORS[style],
            ecolor=f"{_COLORS[style]}55",
            label=profile,
            clip_on=False,
        )
    for (x, y), numbers in _numbers(result, cost).items():
        axes.annotate(numbers, (x, y), xytext=(6, 5), textcoords="offset points", fontsize=8, color=LINE_COLOR)
    if result.chosen is not None:
        point = cost(result.chosen), result.chosen.metrics.image_auroc or 0.0
        (ring,) = axes.plot(*point, "o", label="chosen", clip_on=False, markersize=_CHOSEN_SIZE_PT)
        ring.set(markerfacecolor="none", markeredgecolor=LINE_COLOR)
    axes.margins(x=0.12)


def _bars(outcomes: Sequence[Outcome], values: Sequence[float]) -> NDArray[np.float64]:
    """How far the intervals reach below and above the values: (2, N)."""
    reaches = [one.intervals["image_auroc"] or (value, value) for one, value in zip(outcomes, values, strict=True)]
    low, high = np.array(reaches).T
    return np.array([values - low, high - values]).clip(min=0)


def _numbers(result: SweepResult, cost: Callable[[Outcome], float]) -> dict[tuple[float, float], str]:
    """The numbers of the settings at each point of the plot."""
    found: dict[tuple[str, str], tuple[float, float, list[str]]] = {}  # points that look the same are one
    for number, one in enumerate(result.results, 1):
        if isinstance(one, Outcome):
            x, y = cost(one), one.metrics.image_auroc or 0.0
            found.setdefault((f"{x:.2g}", f"{y:.2f}"), (x, y, []))[2].append(str(number))
    return {(x, y): ", ".join(numbers) for x, y, numbers in found.values()}
