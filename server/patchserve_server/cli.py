"""`patchserve-server serve` and `patchserve-server token create`."""

from __future__ import annotations

import argparse
import asyncio
import logging
import sys
from datetime import datetime
from importlib.metadata import version

from pydantic import ValidationError
from pydantic_settings import CliApp

from patchserve_server.access.tokens import expiry, is_name, new_token
from patchserve_server.bootstrap import serve
from patchserve_server.bootstrap.process import configure_process
from patchserve_server.config import Settings
from patchserve_server.domain.callers import Scope
from patchserve_server.domain.errors import StartupError

PROGRAM = "patchserve-server"


def main() -> None:
    """Exits 0 after a drain, 1 where the server cannot start, 2 for flags that do not fit, 130 on a second signal."""
    parser = argparse.ArgumentParser(PROGRAM, description="A gRPC inference server for visual anomaly detection.")
    parser.add_argument("--version", action="version", version=version("patchserve"))
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("serve", help="run the server; `serve --help` lists its flags", add_help=False)
    token = commands.add_parser("token", help="make a bearer token for --auth-tokens")
    _add_token_flags(token.add_subparsers(required=True).add_parser("create", help="print a token and its line"))
    if sys.argv[1:2] != ["serve"]:
        _create_token(parser.parse_args())
        return
    settings = _settings(sys.argv[2:])
    logging.basicConfig(stream=sys.stderr, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    logging.getLogger("patchserve_server").setLevel(settings.log_level.upper())
    configure_process()
    try:
        asyncio.run(serve(settings, lambda line: print(line, flush=True)))  # noqa: T201
    except StartupError as error:
        sys.exit(f"{PROGRAM}: {error.message}")


def _add_token_flags(parser: argparse.ArgumentParser) -> None:
    scopes = [scope.value for scope in Scope]
    parser.add_argument("--name", required=True, type=_token_name, help="whose token it is, for the log")
    parser.add_argument("--scope", required=True, action="append", choices=scopes, help="a right; may be given again")
    parser.add_argument("--expires", type=_expiry, metavar="TIME", help="an ISO date or time, such as 2030-12-31 (UTC)")


def _token_name(text: str) -> str:
    if not is_name(text):
        message = "a name is 1 to 64 of A-Z a-z 0-9 . _ @ - and begins with a letter or a digit"
        raise argparse.ArgumentTypeError(message)
    return text


def _expiry(text: str) -> datetime:
    try:
        return expiry(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError("an ISO 8601 date or time, such as 2030-12-31 or 2030-12-31T18:00Z") from error


def _create_token(asked: argparse.Namespace) -> None:
    token, line = new_token(asked.name, {Scope(scope) for scope in asked.scope}, asked.expires)
    print(f"{token}\n{line}")  # noqa: T201
    what = "The first line is the token: give it to its caller, it is not shown again. The second is for --auth-tokens."
    print(what, file=sys.stderr)  # noqa: T201


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
