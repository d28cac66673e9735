"""Results as Markdown tables and as charts."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from throughput.comparison import ANOMALIB, BARE, FLASK, HTTP_FACE, PATCHSERVE
from throughput.host import host_sentence
from throughput.rounds import Row, describe_load

_COLUMNS = {
    "images/s": "images_per_second",
    "p50 ms": "p50_ms",
    "p95 ms": "p95_ms",
    "p99 ms": "p99_ms",
    "peak MiB": "peak_rss_mib",
    "CPU s per image": "cpu_s_per_image",
}
_SCALING = {
    "clients": "clients, scores only",
    "pixels": "megapixels per image, 8 clients",
    "bank_rows": "bank rows, 8 clients, scores only",
    "references": "references used in turn, 8 clients, scores only",
}
_STAGES = ("decode_ms", "embed_ms", "search_ms", "render_ms", "queue_ms", "total_ms")
_COLORS = {PATCHSERVE: "#33658a", HTTP_FACE: "#5a9bc4", BARE: "#9a9a9a", ANOMALIB: "#e09f3e", FLASK: "#d1495b"}
_DPI = 110
_MET = {True: "yes", False: "no", None: ""}


def markdown(results: dict[str, Any]) -> str:
    """The tables of docs/measurements.md."""
    parts = [host_sentence(results["host"])]
    if results["ratios"]:
        rows = [
            [name, ratio["value"], ratio["target"], _MET[ratio["met"]]] for name, ratio in results["ratios"].items()
        ]
        parts.append(_table(["ratio", "value", "target", "met"], rows))
    for backbone in dict.fromkeys(row["backbone"] for row in results["rows"]):
        rows = [
            [
                row["system"],
                row["precision"],
                describe_load(row["clients"], row["streams"]),
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
            "### Stage times with one client, measured by the server",
            _table(["backbone", "precision", "output", *names], rows),
        ]
    if results["mixed"]:
        rows = [
            [row["backbone"], row["precision"], row["references"], *(row[key] for key in _COLUMNS.values())]
            for row in results["mixed"]
        ]
        names = ["backbone", "precision", "references", *_COLUMNS]
        parts += ["### References used in turn, 8 clients, scores only", _table(names, rows)]
    for what, title in _SCALING.items():
        points = [row for row in results["scaling"] if row["what"] == what]
        if points:
            rows = [[_value(row), _output(row), *(row[key] for key in _COLUMNS.values())] for row in points]
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


def draw_charts(results: dict[str, Any], folder: Path) -> None:
    """Write systems.png and scaling.png, each if its part was measured."""
    backbone = next((row["backbone"] for row in results["rows"]), None)
    compared = [row for row in results["rows"] if row["backbone"] == backbone]
    if compared:
        figure = Figure(figsize=(8, 0.8 + 0.27 * len(compared)), layout="constrained")
        _draw_rows(figure.add_subplot(), compared, str(backbone))
        figure.savefig(folder / "systems.png", dpi=_DPI)
    curves = [what for what in _SCALING if any(row["what"] == what for row in results["scaling"])]
    if curves:
        figure = Figure(figsize=(3.4 * len(curves), 3.2), layout="constrained")
        for axes, what in zip(figure.subplots(1, len(curves), squeeze=False)[0], curves, strict=True):
            _draw_scaling(axes, [row for row in results["scaling"] if row["what"] == what], what)
        figure.savefig(folder / "scaling.png", dpi=_DPI)


def _draw_rows(axes: Axes, rows: Sequence[Row], backbone: str) -> None:
    names = [
        f"{row['system']} {row['precision']}, {describe_load(row['clients'], row['streams'])}, {_output(row)}"
        for row in rows
    ]
    rates = [row["images_per_second"] for row in rows]
    colors = [next(color for name, color in _COLORS.items() if row["system"].startswith(name)) for row in rows]
    bars = axes.barh(range(len(rows)), rates, color=colors)
    axes.bar_label(bars, fmt="%.1f", padding=3, fontsize=8)
    axes.set_yticks(range(len(rows)), names, fontsize=8)
    axes.invert_yaxis()
    axes.set_xlabel(f"images per second, {backbone}")
    axes.spines[["top", "right"]].set_visible(False)


def _draw_scaling(axes: Axes, rows: Sequence[Row], what: str) -> None:
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
    axes.set_xlabel(_SCALING[what].split(",")[0])
    axes.set_ylabel("images per second")
    axes.legend(frameon=False, fontsize=8)
    axes.spines[["top", "right"]].set_visible(False)
