"""`patchserve top`."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import sys
from collections.abc import Sequence
from threading import Event
from typing import Annotated

import typer

from patchserve_client import AsyncClient
from patchserve_client.cli._connection import Settings, connected
from patchserve_client.cli._durations import INTERVAL
from patchserve_client.cli._failures import FAILED
from patchserve_client.cli._formats import TEXT, OutputFormat, OutputOption
from patchserve_client.cli._sources import set_by_ctrl_c
from patchserve_client.cli._top_output import Output, printed_samples
from patchserve_client.top.watched_server import Sample, State, WatchedServer

_WINDOW_S = 10.0
_POLL_S = 0.1  # how soon Ctrl-C is noticed


@connected
def top(
    settings: Settings,
    servers: Annotated[
        list[str] | None, typer.Argument(metavar="HOST:PORT", help="Servers to watch, instead of that of --server.")
    ] = None,
    *,
    interval: Annotated[
        float, typer.Option(**INTERVAL, show_default="2s", help="Time between two looks at the servers.")
    ] = 2.0,
    once: Annotated[bool, typer.Option("--once", help="Look once, over one interval, and exit.")] = False,
    output: OutputOption = TEXT,
) -> None:
    """Watch what servers do: rates, queue, latency, failures, verdicts of each reference, and drift; until Ctrl-C.

    Rates and latencies are those of the last ten seconds. A server that is away is asked again until it is back. On a
    terminal, a screen is kept up to date; otherwise each look is printed.

    Exit codes: 0 success; 1 with --once: a server is not serving.
    """
    watched = [dataclasses.replace(settings, server=server) for server in servers or [settings.server]]
    with set_by_ctrl_c() as end:
        last = asyncio.run(_watch(watched, interval, end, output, once=once))
    if once and any(sample.state is not State.SERVING for sample in last):
        raise typer.Exit(FAILED)


async def _watch(
    watched: Sequence[Settings], interval_s: float, end: Event, output: OutputFormat, *, once: bool
) -> list[Sample]:
    async with contextlib.AsyncExitStack() as cleanup:
        window = max(1, round(_WINDOW_S / interval_s))
        servers = [
            WatchedServer(
                one.server, await cleanup.enter_async_context(one.client_of(AsyncClient)), window, one.timeout
            )
            for one in watched
        ]
        show = cleanup.enter_context(_opened(output, once=once))
        samples = await _look(servers, interval_s)
        if not once:
            show(samples)
        while await _waited(interval_s, end):
            samples = await _look(servers, interval_s)
            show(samples)
            if once:
                break
        return samples


def _opened(output: OutputFormat, *, once: bool) -> contextlib.AbstractContextManager[Output]:
    if output is TEXT and not once and sys.stdout.isatty():
        from patchserve_client.cli._top_screen import on_screen  # noqa: PLC0415 - Rich is imported only if it is shown

        return on_screen()
    return printed_samples(output)


async def _look(servers: Sequence[WatchedServer], interval_s: float) -> list[Sample]:
    return list(await asyncio.gather(*(server.sample(interval_s) for server in servers)))


async def _waited(seconds: float, end: Event) -> bool:
    """Sleep. False: Ctrl-C."""
    for _ in range(max(1, round(seconds / _POLL_S))):
        if end.is_set():
            break
        await asyncio.sleep(min(seconds, _POLL_S))
    return not end.is_set()
