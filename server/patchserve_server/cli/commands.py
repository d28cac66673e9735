"""All commands of `patchserve-server`."""

from __future__ import annotations

from importlib.metadata import version

from patchserve_server.cli import PROGRAM, certificate, serve, store, token
from patchserve_server.cli.parser import Parser


def run() -> None:
    """Parse the command line and run its command."""
    arguments = _parser().parse_args()
    arguments.run(arguments)


def _parser() -> Parser:
    parser = Parser(PROGRAM, description="A gRPC inference server for visual anomaly detection.")
    parser.add_argument("--version", action="version", version=f"patchserve {version('patchserve')}")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    for command in (serve, token, certificate, store):
        command.add_to(commands)
    return parser
