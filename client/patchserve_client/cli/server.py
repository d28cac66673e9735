"""`patchserve info` and `patchserve health`."""

from __future__ import annotations

import dataclasses

import typer

from patchserve_client.cli._connection import Settings, connected
from patchserve_client.cli._output import JsonOption, print_facts, print_json, print_line


@connected
def info(settings: Settings, as_json: JsonOption = False) -> None:
    """Show the server's version, backbone and limits."""
    with settings.client() as client:
        facts = dataclasses.asdict(client.server_info())
    if as_json:
        print_json(facts)
    else:
        limits = facts.pop("limits")
        print_facts({**facts, **limits})


@connected
def health(settings: Settings, as_json: JsonOption = False) -> None:
    """Show whether the server is alive and ready.

    Exit codes: 0 ready; 1 not ready, or no answer.
    """
    with settings.client() as client:
        status = client.health()
    if as_json:
        print_json(dataclasses.asdict(status))
    else:
        print_line(f"alive: {'yes' if status.alive else 'no'}")
        print_line(f"ready: {'yes' if status.ready else 'no'}")
    if not status.ready:
        raise typer.Exit(1)
