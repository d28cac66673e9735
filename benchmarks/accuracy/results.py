"""Tables: printed for people, and written as JSON and as Markdown for docs/accuracy.md."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from rich.console import Console
from rich.table import Table
from timing import RESULTS, write_results

from accuracy.inspecting import Inspected

OUT = RESULTS.parent / "accuracy"

Row = Mapping[str, str]
"""Column -> text."""


@dataclass
class Results:
    """One table. Each row is printed when it is added, so that one sees how far it is."""

    name: str  # of its files
    title: str
    rows: list[Row] = field(default_factory=list)

    def add(self, row: Row) -> None:
        self.rows.append(row)
        Console(stderr=True).print("  ".join(row.values()), highlight=False, soft_wrap=True)

    def finish(self) -> None:
        """Print the table and write its files."""
        columns = list(self.rows[0])
        table = Table(*columns, title=self.title)
        for row in self.rows:
            table.add_row(*(row[column] for column in columns))
        Console().print(table)
        write_results(OUT / f"{self.name}.json", {"title": self.title, "rows": self.rows})
        (OUT / f"{self.name}.md").write_text(_markdown(columns, self.rows))


def image_cells(inspected: Inspected) -> dict[str, str]:
    """How well images are told apart. Gap: points of the balanced accuracy that another threshold would gain."""
    metrics, interval = inspected.metrics, inspected.intervals.get("image_auroc")
    intact = ~inspected.defective
    flagged = inspected.ratios > 1
    best = metrics.best.balanced_accuracy if metrics.best else 0.5
    balanced = metrics.balanced_accuracy or 0.0
    return {
        "image AUROC": _three(metrics.image_auroc),
        "95 %": "" if interval is None else f"{interval[0]:.3f} to {interval[1]:.3f}",
        "average precision": _three(metrics.average_precision),
        "false alarms": f"{flagged[intact].sum()} of {intact.sum()}",
        "found": f"{flagged[~intact].sum()} of {(~intact).sum()}",
        "balanced, threshold / best": f"{balanced:.3f} / {best:.3f}",
        "gap": f"{100 * (best - balanced):.1f}",
    }


def pixel_cells(inspected: Inspected) -> dict[str, str]:
    pixels = inspected.pixels
    return {
        "pixel AUROC": _three(pixels.auroc()),
        "pixel AP": _three(pixels.average_precision()),
        "AUPRO": _three(pixels.aupro()),
    }


def _three(value: float | None) -> str:
    return "" if value is None else f"{value:.3f}"


def _markdown(columns: Sequence[str], rows: Sequence[Row]) -> str:
    lines = [columns, ["---"] * len(columns), *([row[column] for column in columns] for row in rows)]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)
