"""`patchserve bench`."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Annotated, Any

import typer

from patchserve_client.bench.arrivals import Arrivals
from patchserve_client.bench.measuring import Plan
from patchserve_client.cli._bench_plot import plot_path, write_plot
from patchserve_client.cli._bench_report import BenchReport
from patchserve_client.cli._bench_run import Request, measure, read_images
from patchserve_client.cli._connection import Settings, connected
from patchserve_client.cli._durations import INTERVAL
from patchserve_client.cli._failures import INTERRUPTED
from patchserve_client.cli._formats import TEXT, OutputOption
from patchserve_client.cli._image_files import ImagesArgument
from patchserve_client.cli._output import print_note
from patchserve_client.cli._sources import set_by_ctrl_c

_PANEL: dict[str, Any] = {"rich_help_panel": "The load"}


@connected
def bench(
    settings: Settings,
    images: ImagesArgument,
    *,
    reference: Annotated[str, typer.Option(metavar="ID", help="Reference to compare with.")] = "default",
    objective: Annotated[
        float, typer.Option(**INTERVAL, show_default="200ms", help="Largest latency at --percentile.")
    ] = 0.2,
    percentile: Annotated[
        float,
        typer.Option(
            min=1, max=100, metavar="P", show_default="99", help="Percentile of the latency that --objective limits."
        ),
    ] = 99.0,
    stream: Annotated[
        bool, typer.Option("--stream", **_PANEL, help="Send frames of one stream a channel instead of single calls.")
    ] = False,
    arrivals: Annotated[
        Arrivals, typer.Option(**_PANEL, help="Independent arrivals, or equal times between them.")
    ] = Arrivals.POISSON,
    start_rate: Annotated[
        float | None,
        typer.Option(
            **_PANEL,
            min=0.05,
            metavar="N",
            show_default="a quarter of what one call after the other reaches",
            help="Images a second of the first step.",
        ),
    ] = None,
    max_rate: Annotated[
        float, typer.Option(**_PANEL, min=0.05, metavar="N", show_default="10000", help="No step is faster.")
    ] = 10_000.0,
    step: Annotated[
        float,
        typer.Option(
            **_PANEL, **INTERVAL, show_default="5s", help="Length of a step; with few images up to 4 times it."
        ),
    ] = 5.0,
    channels: Annotated[
        int, typer.Option(**_PANEL, min=1, max=64, metavar="N", help="Connections that share the load.")
    ] = 2,
    overlay: Annotated[bool, typer.Option("--overlay", **_PANEL, help="Request an overlay of every image.")] = False,
    seed: Annotated[int, typer.Option(**_PANEL, metavar="N", help="Seed of the random arrivals.")] = 0,
    plot: Annotated[
        Path | None,
        typer.Option(
            parser=plot_path,
            metavar="FILE",
            help='Draw latency against throughput as a PNG file. Needs the extra "evaluate".',
        ),
    ] = None,
    output: OutputOption = TEXT,
) -> None:
    """Find how many images a second a running server inspects within a latency objective.

    The load is open: images are sent when they are due, whatever the answers do, and latencies count from that time.
    The rate doubles until the objective breaks or a call fails; then the limit is searched between the last two rates.
    Ctrl-C ends it with what was measured. A call may take 10 seconds, or --timeout. Run it on another machine than the
    server: it needs a processor, too.

    Exit codes: 0 a limit was found; 1 no rate keeps the objective, or the server failed; 2 wrong usage; 130 Ctrl-C.
    """
    plan = Plan(1000 * objective, percentile, arrivals, step, seed, start_rate, max_rate)
    request = Request(reference, read_images(images), channels, is_stream=stream, overlay=overlay)
    report = BenchReport(plan, request, output)
    with set_by_ctrl_c() as end:
        asyncio.run(measure(settings, request, plan, report, end))
    report.end()
    if plot is not None and report.steps:
        write_plot(report.steps, plan, plot)
    if end.is_set():
        print_note("Interrupted.")
        raise typer.Exit(INTERRUPTED)
    if report.limit is None:
        raise typer.Exit(1)
