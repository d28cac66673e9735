"""`patchserve-server serve`: run the server."""

from __future__ import annotations

import argparse
import asyncio
import signal
import sys
from functools import partial

from pydantic import ValidationError

from patchserve_server.bootstrap import serve
from patchserve_server.bootstrap.process import configure_process, new_event_loop
from patchserve_server.cli import PROGRAM
from patchserve_server.cli.flags import add_flags, problem_text
from patchserve_server.cli.parser import Commands
from patchserve_server.config import Settings
from patchserve_server.domain.errors import StartupError
from patchserve_server.telemetry.logs import open_logs


def add_to(commands: Commands) -> None:
    usage = f"{PROGRAM} serve [FLAGS]"
    parser = commands.add_parser("serve", help="run the server", description=Settings.__doc__, usage=usage)
    add_flags(parser)
    parser.set_defaults(run=_run)


def _run(arguments: argparse.Namespace) -> None:
    settings = _read_settings({name: value for name, value in vars(arguments).items() if name in Settings.model_fields})
    if hasattr(signal, "SIGHUP"):
        signal.signal(signal.SIGHUP, signal.SIG_IGN)  # until the server can reload its files
    configure_process()
    try:
        with (
            open_logs(settings.log_level, settings.log_calls, settings.log_format),
            asyncio.Runner(loop_factory=partial(new_event_loop, settings)) as runner,
        ):
            runner.run(serve(settings, lambda line: print(line, flush=True)))  # noqa: T201
    except StartupError as error:
        sys.exit(f"{PROGRAM}: {error.message}")


def _read_settings(flags: dict[str, object]) -> Settings:
    """The settings from these flags and from variables; exits if one is invalid."""
    try:
        return Settings(**flags)  # type: ignore[arg-type] # pydantic parses the texts
    except ValidationError as error:
        for problem in error.errors():
            print(f"{PROGRAM} serve: {problem_text(problem, flags)}", file=sys.stderr)  # noqa: T201
        sys.exit(2)
