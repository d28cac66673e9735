"""`patchserve info` and `patchserve health`."""

from __future__ import annotations

import dataclasses
from typing import Annotated

import typer

from patchserve_client.cli._connection import Settings, connected
from patchserve_client.cli._output import say, say_json


@connected
def info(
    settings: Settings, as_json: Annotated[bool, typer.Option("--json", help="Print a JSON document.")] = False
) -> None:
    """Tell what the server is: version, backbone, weights, device and every limit."""
    with settings.client() as client:
        facts = dataclasses.asdict(client.server_info())
    if as_json:
        say_json(facts)
        return
    limits = facts.pop("limits")
    for name, value in {**facts, **limits}.items():
        say(f"{name:<21} {'-' if value in ('', None) else value}")


@connected
def health(settings: Settings) -> None:
    """Tell whether the server is alive and ready.

    Exit codes: 0 ready; 1 not ready, or no answer.
    """
    with settings.client() as client:
        found = client.health()
    say(f"alive: {'yes' if found.alive else 'no'}\nready: {'yes' if found.ready else 'no'}")
    if not found.ready:
        raise typer.Exit(1)
