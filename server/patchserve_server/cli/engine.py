"""`patchserve-server engine`: run an engine for the fronts of other machines."""

from __future__ import annotations

import argparse

from patchserve_server.bootstrap import serve_engine
from patchserve_server.cli import PROGRAM
from patchserve_server.cli.flags import add_flags
from patchserve_server.cli.parser import Commands
from patchserve_server.cli.serve import run_server
from patchserve_server.config import Settings


def add_to(commands: Commands) -> None:
    parser = commands.add_parser(
        "engine",
        help="run an engine for fronts of other machines",
        description="Run the part of a server that has the backbone, the references and the device, for `serve "
        "--engine` on other machines. --host and --port say where it listens; beyond this machine it needs --tls-cert, "
        f"--tls-key and --tls-client-ca. {Settings.__doc__}",
        usage=f"{PROGRAM} engine [FLAGS]",
    )
    add_flags(parser)
    parser.set_defaults(run=_run)


def _run(arguments: argparse.Namespace) -> None:
    run_server(arguments, "engine", serve_engine)
