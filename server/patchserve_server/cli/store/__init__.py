"""`patchserve-server store`: looks after what a store keeps, in a folder or in a bucket."""

from __future__ import annotations

from patchserve_server.cli.parser import Commands
from patchserve_server.cli.store import checking, collecting, copying, restoring


def add_to(commands: Commands) -> None:
    title = "check, clean, copy or restore what a store keeps"
    subcommands = commands.add_parser("store", help=title, description=title).add_subparsers(
        title="commands", metavar="COMMAND", required=True
    )
    for command in (checking, collecting, copying, restoring):
        command.add_to(subcommands)
