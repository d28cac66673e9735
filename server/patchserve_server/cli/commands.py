"""All commands of `patchserve-server`."""

from __future__ import annotations

import errno
import os
import sys
from importlib.metadata import version

from patchserve_server.cli import PROGRAM, certificate, configuration, doctor, engine, serve, store, token
from patchserve_server.cli.parser import Parser


def run() -> None:
    """Parse the command line and run its command."""
    arguments = _parser().parse_args()
    try:
        arguments.run(arguments)
        sys.stdout.flush()
    except OSError as error:
        if error.errno not in (errno.EPIPE, errno.ENOSPC):
            raise
        # The output was closed, as `| head` does, or its disk is full. At its end Python would try again to write.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1 if error.errno == errno.EPIPE else f"{PROGRAM}: {error.strerror}")


def _parser() -> Parser:
    parser = Parser(PROGRAM, description="A gRPC inference server for visual anomaly detection.")
    parser.add_argument("--version", action="version", version=f"patchserve {version('patchserve')}")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    for command in (serve, engine, doctor, configuration, token, certificate, store):
        command.add_to(commands)
    return parser
