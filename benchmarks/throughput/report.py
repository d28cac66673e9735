"""Results as Markdown tables and as a drawing."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from throughput.comparison import ANOMALIB, BARE, FLASK, PATCHSERVE
from throughput.machine import sentence
from throughput.rounds import Row, load_words

_COLUMNS = {
    "images/s": "images_per_second",
    "p50 ms": "p50_ms",
    "p95 ms": "p95_ms",
    "p99 ms": "p99_ms",
    "peak MiB": "peak_rss_mib",
    "CPU s an image": "cpu_s_per_image",
}
_GROWTH = {
    "clients": "clients, scores only",
    "pixels": "megapixels of an image, 8 clients",
    "bank_rows": "bank rows, 8 clients, scores only",
    "references": "references that take turns, 8 clients, scores only",
}
_STAGES = ("decode_ms", "embed_ms", "search_ms", "render_ms", "queue_ms", "total_ms")
_COLORS = {PATCHSERVE: "#33658a", BARE: "#9a9a9a", ANOMALIB: "#e09f3e", FLASK: "#d1495b"}
_DPI = 110


def markdown(results: dict[str, Any]) -> str:
    """Every table of docs/performance.md that rests on these results."""
    parts = [sentence(results["machine"])]
    if results["ratios"]:
        rows = [
            [name, ratio["value"], ratio["target"], "yes" if ratio["met"] else "no"]
            for name, ratio in results["ratios"].items()
        ]
        parts.append(_table(["ratio", "value", "target", "met"], rows))
    for backbone in dict.fromkeys(row["backbone"] for row in results["rows"]):
        rows = [
            [
                row["system"],
                row["precision"],
                load_words(row["clients"], row["streams"]),
                _output(row),
                *(row[key] for key in _COLUMNS.values()),
            ]
            for row in results["rows"]
            if row["backbone"] == backbone
        ]
        parts += [f"### {backbone}", _table(["system", "precision", "load", "output", *_COLUMNS], rows)]
    if results["stages"]:
        rows = [
            [stage["backbone"], stage["precision"], _output(stage), *(stage[name] for name in _STAGES)]
            for stage in results["stages"]
        ]
        names = [name.replace("_", " ") for name in _STAGES]
        parts += [
            "### One client's answer, as the server times it",
            _table(["backbone", "precision", "output", *names], rows),
        ]
    for what, title in _GROWTH.items():
        grown = [row for row in results["growth"] if row["what"] == what]
        if grown:
            rows = [[_value(row), _output(row), *(row[key] for key in _COLUMNS.values())] for row in grown]
            parts += [f"### {title[0].upper()}{title[1:]}", _table([title.split(",")[0], "output", *_COLUMNS], rows)]
    return "\n\n".join(parts) + "\n"


def _table(names: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    lines = [list(names), ["---"] * len(names), *rows]
    return "\n".join("| " + " | ".join("" if cell is None else str(cell) for cell in line) + " |" for line in lines)


def _output(row: Row) -> str:
    if row.get("system") == BARE:
        return "layers"
    return "overlay" if row["overlay"] else "scores"


def _value(row: Row) -> float:
    return round(row["value"] / 1e6, 2) if row["what"] == "pixels" else int(row["value"])


def draw(results: dict[str, Any], folder: Path) -> None:
    """Writes systems.png and growth.png, of what was measured."""
    fullest = next((row["backbone"] for row in results["rows"]), None)
    compared = [row for row in results["rows"] if row["backbone"] == fullest]
    if compared:
        figure = Figure(figsize=(8, 0.8 + 0.27 * len(compared)), layout="constrained")
        _draw_rows(figure.add_subplot(), compared, str(fullest))
        figure.savefig(folder / "systems.png", dpi=_DPI)
    grown = [what for what in _GROWTH if any(row["what"] == what for row in results["growth"])]
    if grown:
        figure = Figure(figsize=(3.4 * len(grown), 3.2), layout="constrained")
        for axes, what in zip(figure.subplots(1, len(grown), squeeze=False)[0], grown, strict=True):
            _draw_growth(axes, [row for row in results["growth"] if row["what"] == what], what)
        figure.savefig(folder / "growth.png", dpi=_DPI)


def _draw_rows(axes: Axes, rows: Sequence[Row], backbone: str) -> None:
    names = [
        f"{row['system']} {row['precision']}, {load_words(row['clients'], row['streams'])}, {_output(row)}"
        for row in rows
    ]
    rates = [row["images_per_second"] for row in rows]
    colors = [next(color for name, color in _COLORS.items() if row["system"].startswith(name)) for row in rows]
    bars = axes.barh(range(len(rows)), rates, color=colors)
    axes.bar_label(bars, fmt="%.1f", padding=3, fontsize=8)
    axes.set_yticks(range(len(rows)), names, fontsize=8)
    axes.invert_yaxis()
    axes.set_xlabel(f"images a second, {backbone}")
    axes.spines[["top", "right"]].set_visible(False)


def _draw_growth(axes: Axes, rows: Sequence[Row], what: str) -> None:
    for overlay, style in ((False, "-"), (True, "--")):
        points = [row for row in rows if row["overlay"] == overlay]
        if points:
            values = [_value(row) for row in points]
            axes.plot(values, [row["images_per_second"] for row in points], style, marker="o", label=_output(points[0]))
    ticks = sorted({_value(row) for row in rows})
    axes.set_xscale("log")
    axes.set_xticks(ticks, [f"{tick:,}" for tick in ticks], fontsize=8)
    axes.set_xticks([], minor=True)
    axes.set_ylim(0, 1.15 * max(row["images_per_second"] for row in rows))
    axes.set_xlabel(_GROWTH[what].split(",")[0])
    axes.set_ylabel("images a second")
    axes.legend(frameon=False, fontsize=8)
    axes.spines[["top", "right"]].set_visible(False)
