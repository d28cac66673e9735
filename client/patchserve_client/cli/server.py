"""`patchserve info` and `patchserve health`."""

from __future__ import annotations

import dataclasses

import typer

from patchserve_client.cli._connection import Settings, connected
from patchserve_client.cli._formats import TEXT, OutputOption, print_results
from patchserve_client.cli._output import print_facts, print_line


@connected
def info(settings: Settings, output: OutputOption = TEXT) -> None:
    """Show the server's version, backbone and limits."""
    with settings.client() as client:
        facts = dataclasses.asdict(client.server_info())
    if output is not TEXT:
        print_results(output, facts)
    else:
        limits, store = facts.pop("limits"), facts.pop("store")
        store["synced_age_s"] = round(store["synced_age_s"], 1)
        print_facts({**facts, **{f"store_{name}": value for name, value in store.items()}, **limits})


@connected
def health(settings: Settings, output: OutputOption = TEXT) -> None:
    """Show whether the server is alive and ready.

    Exit codes: 0 ready; 1 not ready, or no answer.
    """
    with settings.client() as client:
        status = client.health()
    if output is not TEXT:
        print_results(output, dataclasses.asdict(status))
    else:
        print_line(f"alive: {'yes' if status.alive else 'no'}")
        print_line(f"ready: {'yes' if status.ready else 'no'}")
    if not status.ready:
        raise typer.Exit(1)
