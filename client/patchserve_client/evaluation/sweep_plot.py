"""The plot of a sweep: accuracy against time and against memory."""

from __future__ import annotations

import io
from collections.abc import Callable

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

from patchserve_client.evaluation.outcome import Outcome
from patchserve_client.evaluation.plots import DPI, LINE_COLOR
from patchserve_client.evaluation.sweep_result import SweepResult

_COLORS = ("#33658a", "#d1495b", "#2c8a56", "#b07d12", "#6b4c9a", "#5b5b5b")  # of profiles
_MARKERS = ("o", "s", "^", "D", "v", "P")  # of the same, for those who see no difference of colors
_CHOSEN_SIZE_PT, _SIZE_PT = 15, 7


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
    axes.set_xscale("log")
    profiles = list(dict.fromkeys(outcome.setting.words()[0] for outcome in result.outcomes))
    named = set()
    for number, one in enumerate(result.results, 1):
        if not isinstance(one, Outcome):
            continue
        profile = one.setting.words()[0]
        index = profiles.index(profile) % len(_COLORS)
        x, y = max(cost(one), 1e-3), one.metrics.image_auroc or 0.0
        low, high = one.intervals["image_auroc"] or (y, y)
        axes.errorbar(
            x,
            y,
            yerr=[[max(y - low, 0)], [max(high - y, 0)]],
            fmt=_MARKERS[index],
            markersize=_SIZE_PT,
            color=_COLORS[index],
            ecolor=f"{_COLORS[index]}55",
            label=None if profile in named else profile,
            clip_on=False,
        )
        named.add(profile)
        axes.annotate(str(number), (x, y), xytext=(6, 5), textcoords="offset points", fontsize=8, color=LINE_COLOR)
    if result.chosen is not None:
        point = max(cost(result.chosen), 1e-3), result.chosen.metrics.image_auroc or 0.0
        ring = {"markersize": _CHOSEN_SIZE_PT, "markerfacecolor": "none", "markeredgecolor": LINE_COLOR}
        axes.plot(*point, "o", label="chosen", clip_on=False, **ring)  # type: ignore[arg-type]
    axes.xaxis.set_major_locator(LogLocator(10, subs=(1, 2, 5)))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.margins(x=0.12)
