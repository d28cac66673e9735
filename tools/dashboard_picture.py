"""Draws the dashboard of deploy/ into docs/images: a real Prometheus scrapes a real server under load for two minutes.

    make dashboard-picture

Matplotlib draws what Grafana would be sent: the queries of the dashboard, each in its place.
"""

from __future__ import annotations

import functools
import io
import itertools
import re
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import matplotlib as mpl
import matplotlib.pyplot as plt
from e2e.dashboard import DASHBOARD, Panel, panels
from e2e.monitored import Monitored, monitored_server
from e2e.prometheus import Prometheus, prometheus
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from PIL import Image, ImageEnhance

from patchserve_client import Client, OverflowPolicy, PatchserveError

REPO = Path(__file__).resolve().parents[1]
PARCELS = REPO / "samples" / "parcels"
GOOD = sorted((PARCELS / "train" / "good").iterdir())
INTACT = [*GOOD, *sorted((PARCELS / "test" / "good").iterdir())]
DAMAGED = sorted(path for path in (PARCELS / "test").rglob("*.jpg") if path.parent.name != "good")
PICTURE = REPO / "docs" / "images" / "dashboard.png"
LOAD_S = 120
STEP_S = 2
RELOAD_EVERY = 10  # mistakes
WINDOW = "10s"  # of a rate
DAMAGED_EVERY = 12  # parcels
DARK_FROM = 0.75  # of the time: then somebody switches a lamp off
CELL_INCHES = (0.6, 0.28)
UNITS = {"s": (1e3, "ms"), "bytes": (2**-20, "MiB"), "percentunit": (100, "%"), "reqps": (1, "/s"), "ops": (1, "/s")}


def main() -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        with (
            monitored_server(folder, backbone="efficientnet_lite2", threads=1) as server,
            prometheus([server.metrics], folder, access=server.scrape_access()) as watching,
        ):
            started_s = time.time()
            put_under_load(server, started_s + LOAD_S)
            draw(watching, started_s, time.time(), PICTURE)


def put_under_load(server: Monitored, until_s: float) -> None:
    """One caller, then more and more, a camera that is too fast, and now and then what a caller gets wrong."""
    with server.client() as client, ThreadPoolExecutor(8) as pool:
        client.load_reference(GOOD, "parcels")
        client.load_reference(GOOD[:4], "few")
        jobs = [pool.submit(call, client, until_s, 0.05 + number * LOAD_S / 8) for number in range(6)]
        jobs += [pool.submit(stream, client, until_s), pool.submit(misuse, client, until_s)]
        for job in jobs:
            job.result()


def call(client: Client, until_s: float, wait_s: float) -> None:
    time.sleep(wait_s)
    for number, image in enumerate(line(until_s)):
        client.infer(image, "few" if number % 5 == 0 else "parcels", overlay=number % 3 == 0)
        time.sleep(0.05)


def stream(client: Client, until_s: float) -> None:
    """A camera that sends twenty frames a second."""

    def frames() -> Iterator[bytes]:
        for image in line(until_s):
            yield image
            time.sleep(0.05)

    for _ in client.infer_stream(frames(), "parcels", max_in_flight=2, overflow=OverflowPolicy.DROP_OLDEST):
        pass


def line(until_s: float) -> Iterator[bytes]:
    """Parcels, one in twelve damaged; at the end it is dark."""
    for number in itertools.count():
        if time.time() > until_s:
            return
        nth, rest = divmod(number, DAMAGED_EVERY)
        path = INTACT[number % len(INTACT)] if rest else DAMAGED[nth % len(DAMAGED)]
        is_dark = time.time() > until_s - (1 - DARK_FROM) * LOAD_S
        yield darkened(path) if is_dark else path.read_bytes()


@functools.cache
def darkened(path: Path) -> bytes:
    buffer = io.BytesIO()
    ImageEnhance.Brightness(Image.open(path)).enhance(0.5).save(buffer, "JPEG")
    return buffer.getvalue()


def misuse(client: Client, until_s: float) -> None:
    for number in itertools.count():
        if time.time() > until_s:
            return
        try:
            client.infer(b"no image" if number % 2 else GOOD[0], "nowhere", timeout_s=0.01 if number % 3 == 0 else 5)
        except PatchserveError:
            time.sleep(2)
        if not number % RELOAD_EVERY:
            client.load_reference(GOOD[:4], "few")


def draw(watching: Prometheus, start_s: float, end_s: float, picture: Path) -> None:
    mpl.rcParams.update({"font.size": 7, "axes.titlesize": 8, "axes.spines.top": False, "axes.spines.right": False})
    shown = panels(WINDOW)
    height = max(panel.place["y"] + panel.place["h"] for panel in shown)
    figure = plt.figure(figsize=(24 * CELL_INCHES[0], height * CELL_INCHES[1]))
    for row in DASHBOARD["panels"]:
        if row["type"] == "row":
            figure.text(0.01, 1 - (row["gridPos"]["y"] + 0.75) / height, row["title"], size=10, weight="bold")
    for panel in shown:
        draw_panel(place(figure, panel, height), panel, watching, start_s, end_s)
    buffer = io.BytesIO()
    figure.savefig(buffer, dpi=100)
    Image.open(buffer).convert("RGB").quantize(64, dither=Image.Dither.NONE).save(picture, optimize=True)


def place(figure: Figure, panel: Panel, height: int) -> Axes:
    """Axes inside the panel's cells: a margin for the title above, and for the ticks below and at the left."""
    at = panel.place
    left, bottom = (at["x"] + 0.9) / 24, 1 - (at["y"] + at["h"] - 0.9) / height
    return figure.add_axes((left, bottom, (at["w"] - 1.3) / 24, (at["h"] - 2.1) / height))


def draw_panel(axes: Axes, panel: Panel, watching: Prometheus, start_s: float, end_s: float) -> None:
    factor, unit = UNITS.get(panel.unit, (1, {"d": "days"}.get(panel.unit, "")))
    axes.set_title(f"{panel.title} ({unit})" if unit else panel.title, loc="left")
    if panel.kind in ("stat", "table"):
        draw_values(axes, panel, watching, factor)
        return
    axes.xaxis.set_major_formatter("{x:.0f} s")
    if panel.kind == "heatmap":
        draw_heatmap(axes, watching.over(panel.queries[0][0], start_s, end_s, STEP_S), start_s)
        return
    lines = [(name, line) for query, name in panel.queries for line in watching.over(query, start_s, end_s, STEP_S)]
    for name, line in lines:
        times, values = zip(*((at - start_s, float(value) * factor) for at, value in line["values"]), strict=True)
        axes.plot(times, values, linewidth=1.2, label=named(name, line["metric"]))
    axes.set_xlim(0, end_s - start_s)
    top = 1.35 * axes.get_ylim()[1] or 1  # room for the legend
    axes.set_ylim(0, min(top, 105) if panel.unit == "percentunit" else top)
    axes.grid(alpha=0.25)
    if len(lines) > 1:
        axes.legend(fontsize=6, frameon=False, loc="upper left", ncols=2)


def draw_values(axes: Axes, panel: Panel, watching: Prometheus, factor: float) -> None:
    axes.axis("off")
    (query, _), *_ = panel.queries
    ((labels, value),) = watching.query(query).items()
    if panel.kind == "table":
        shown = [f"{name}: {text}" for name, text in labels if name not in ("__name__", "job", "instance")]
        axes.text(0, 1, "\n".join(shown), va="top", size=7)
    else:
        axes.text(0.5, 0.4, f"{value * factor:.3g}", ha="center", va="center", size=20)


def draw_heatmap(axes: Axes, buckets: Sequence[Mapping[str, Any]], start_s: float) -> None:
    """Buckets of a histogram, which Prometheus counts up to their limit, one above the other."""
    ordered = sorted(
        (bucket for bucket in buckets if bucket["metric"]["le"] != "+Inf"), key=lambda one: float(one["metric"]["le"])
    )
    times = [at - start_s for at, _ in ordered[0]["values"]]
    below = [0.0] * len(times)
    rows = []
    for bucket in ordered:
        counts = dict(bucket["values"])
        upto = [float(counts.get(at, 0)) for at, _ in ordered[0]["values"]]
        rows.append([max(0.0, high - low) for high, low in zip(upto, below, strict=True)])
        below = upto
    limits = [0.0, *(float(bucket["metric"]["le"]) for bucket in ordered)]
    axes.pcolormesh([*times, times[-1] + STEP_S], limits, rows, cmap="magma_r")
    axes.axhline(0.5, color="tab:green", linewidth=0.8)


def named(template: str, labels: Mapping[str, str]) -> str:
    """Grafana's name of a line: {{label}} is replaced by its value."""
    for key, value in labels.items():
        template = template.replace("{{" + key + "}}", value)
    return re.sub(r"\{\{\w+\}\}", "", template).strip()


if __name__ == "__main__":
    main()
