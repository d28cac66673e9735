"""`patchserve-server serve`: run the server."""

from __future__ import annotations

import argparse
import asyncio
import sys
from collections.abc import Callable, Coroutine
from functools import partial
from typing import Any, TypeAlias

from patchserve_server.bootstrap import serve
from patchserve_server.bootstrap.process import configure_process, new_event_loop
from patchserve_server.cli import PROGRAM
from patchserve_server.cli.flags import add_flags, read, read_or_exit
from patchserve_server.cli.parser import Commands
from patchserve_server.config import Settings
from patchserve_server.domain.errors import StartupError
from patchserve_server.system.signals import ignore_reload
from patchserve_server.telemetry.logs import open_logs

Serve: TypeAlias = Callable[[Settings, Callable[[str], None], Callable[[], Settings]], Coroutine[Any, Any, None]]


def add_to(commands: Commands) -> None:
    usage = f"{PROGRAM} serve [FLAGS]"
    parser = commands.add_parser("serve", help="run the server", description=Settings.__doc__, usage=usage)
    add_flags(parser)
    parser.set_defaults(run=_run)


def _run(arguments: argparse.Namespace) -> None:
    run_server(arguments, "serve", serve)


def run_server(arguments: argparse.Namespace, command: str, serve: Serve) -> None:
    """Reads the settings and runs a server with them until a signal stops it."""
    settings = read_or_exit(arguments, command).settings
    ignore_reload()  # until the server can
    configure_process()
    try:
        with (
            open_logs(settings.log_level, settings.log_calls, settings.log_format),
            asyncio.Runner(loop_factory=partial(new_event_loop, settings)) as runner,
        ):
            runner.run(serve(settings, _announce, lambda: read(arguments).settings))
    except StartupError as error:
        sys.exit(f"{PROGRAM}: {error.message}")


def _announce(line: str) -> None:
    print(line, flush=True)  # noqa: T201 - the ready line
