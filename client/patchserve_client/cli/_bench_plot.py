"""`patchserve bench --plot FILE`: latency against throughput as a picture."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path

import typer

from patchserve_client.bench.measuring import Plan
from patchserve_client.bench.step import Outcome, Step
from patchserve_client.cli._paths import path_from


def plot_path(text: str | Path) -> Path:
    """The path of a plot.

    Raises:
        typer.BadParameter: it has another suffix, or Matplotlib is missing. That is said before minutes of measuring.
    """
    path = path_from(text)
    if path.suffix.lower() != ".png" or path.is_dir():
        raise typer.BadParameter(f"A plot must be a file that ends in .png, not {str(path)!r}.")
    if find_spec("matplotlib") is None:
        raise typer.BadParameter('It requires Matplotlib: `pip install ".[evaluate]"` in a checkout of patchserve.')
    return path


def write_plot(steps: Sequence[Step], plan: Plan, file: Path) -> None:
    """Draw p50 and p99 of every step.

    Raises:
        OSError: the file cannot be written.
    """
    from matplotlib.figure import Figure  # noqa: PLC0415 - an extra, and slow to load

    measured = sorted((step for step in steps if step.p50_ms is not None), key=lambda step: step.completed_rate)
    figure = Figure(figsize=(7.2, 4.4), layout="constrained")
    axes = figure.add_subplot()
    axes.set(xlabel="Images inspected a second", ylabel="Latency in ms", yscale="log")
    axes.set_title("Latency against throughput, open loop")
    axes.spines[["top", "right"]].set_visible(False)
    rates = [step.completed_rate for step in measured]
    for name, color in (("p50", "#33658a"), ("p99", "#d1495b")):
        axes.plot(rates, [getattr(step, f"{name}_ms") for step in measured], "o-", color=color, label=name)
    broken = [step for step in measured if step.outcome is not Outcome.KEPT]
    if broken:
        latencies_ms = [step.p99_ms or 0.0 for step in broken]
        axes.plot(
            [step.completed_rate for step in broken], latencies_ms, "X", color="#333333", label="objective broken"
        )
    axes.axhline(plan.objective_ms, color="#333333", linestyle="--", linewidth=1.2, label="objective")
    axes.yaxis.set_major_formatter(lambda time_ms, _: f"{time_ms:g}")
    axes.set_xlim(left=0)
    figure.legend(loc="outside lower center", ncols=4, frameon=False)
    figure.savefig(file, dpi=150)
