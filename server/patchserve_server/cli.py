"""`patchserve-server serve`."""

from __future__ import annotations

import argparse
import asyncio
import logging
import sys
from importlib.metadata import version

from pydantic import ValidationError
from pydantic_settings import CliApp

from patchserve_server.config import Settings
from patchserve_server.domain.errors import StartupError

PROGRAM = "patchserve-server"


def main() -> None:
    """Exits 0 after a drain, 1 where the server cannot start, 2 for flags that do not fit, 130 on a second signal."""
    parser = argparse.ArgumentParser(PROGRAM, description="A gRPC inference server for visual anomaly detection.")
    parser.add_argument("--version", action="version", version=version("patchserve"))
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("serve", help="run the server; `serve --help` lists its flags", add_help=False)
    parser.parse_args(sys.argv[1:2])
    settings = _settings(sys.argv[2:])
    logging.basicConfig(stream=sys.stderr, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    logging.getLogger("patchserve_server").setLevel(settings.log_level.upper())
    # Imported late: --help and a bad flag need no torch.
    from patchserve_server.bootstrap import serve  # noqa: PLC0415

    try:
        asyncio.run(serve(settings, lambda line: print(line, flush=True)))  # noqa: T201
    except StartupError as error:
        sys.exit(f"{PROGRAM}: {error.message}")


def _settings(flags: list[str]) -> Settings:
    try:
        return CliApp.run(Settings, cli_args=flags)
    except ValidationError as error:
        for problem in error.errors():
            name = "--" + "-".join(str(part) for part in problem["loc"]).replace("_", "-")
            print(f"{PROGRAM}: {name} {problem['input']!r}: {problem['msg']}", file=sys.stderr)  # noqa: T201
        sys.exit(2)


if __name__ == "__main__":
    main()
