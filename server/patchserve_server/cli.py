"""The commands `patchserve-server serve`, `token create` and `store check|restore`."""

from __future__ import annotations

import argparse
import asyncio
import logging
import sys
from datetime import datetime
from importlib.metadata import version

from pydantic import ValidationError
from pydantic_settings import CliApp

from patchserve_server.access.tokens import is_valid_name, new_token, parse_expiry
from patchserve_server.bootstrap import serve
from patchserve_server.bootstrap.process import configure_process
from patchserve_server.cli_store import add_store_commands
from patchserve_server.config import Settings
from patchserve_server.domain.callers import Scope
from patchserve_server.domain.errors import StartupError

PROGRAM = "patchserve-server"


def main() -> None:
    """Exit codes: 0 after a drain, 1 if the server cannot start, 2 for invalid flags, 130 after a second signal."""
    if sys.argv[1:2] == ["serve"]:  # Settings parses the flags of `serve`, argparse parses everything else
        _serve(_read_settings(sys.argv[2:]))
    else:
        arguments = _parser().parse_args()
        sys.exit(arguments.run(arguments))


def _serve(settings: Settings) -> None:
    configure_process()
    logging.basicConfig(stream=sys.stderr, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    logging.getLogger("patchserve_server").setLevel(settings.log_level.upper())
    try:
        asyncio.run(serve(settings, lambda line: print(line, flush=True)))  # noqa: T201
    except StartupError as error:
        sys.exit(f"{PROGRAM}: {error.message}")


def _read_settings(flags: list[str]) -> Settings:
    try:
        return CliApp.run(Settings, cli_args=flags)
    except ValidationError as error:
        for problem in error.errors():
            flag = "--" + "-".join(str(part) for part in problem["loc"]).replace("_", "-")
            print(f"{PROGRAM}: {flag} {problem['input']!r}: {problem['msg']}", file=sys.stderr)  # noqa: T201
        sys.exit(2)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(PROGRAM, description="A gRPC inference server for visual anomaly detection.")
    parser.add_argument("--version", action="version", version=version("patchserve"))
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("serve", help="run the server; `serve --help` lists its flags", add_help=False)
    token = commands.add_parser("token", help="create a bearer token for --auth-tokens")
    create = token.add_subparsers(required=True).add_parser("create", help="print a token and its line for the file")
    scopes = [scope.value for scope in Scope]
    create.add_argument("--name", required=True, type=_token_name, help="the caller's name, for the log")
    create.add_argument("--scope", required=True, action="append", choices=scopes, help="a scope; may be repeated")
    create.add_argument("--expires", type=_expiry, metavar="TIME", help="date or time in ISO 8601, as 2030-12-31 (UTC)")
    create.set_defaults(run=_create_token)
    add_store_commands(commands)
    return parser


def _token_name(text: str) -> str:
    if not is_valid_name(text):
        message = "a name has 1 to 64 of A-Z a-z 0-9 . _ @ - and starts with a letter or a digit"
        raise argparse.ArgumentTypeError(message)
    return text


def _expiry(text: str) -> datetime:
    try:
        return parse_expiry(text)
    except ValueError as error:
        message = "use an ISO 8601 date or time, such as 2030-12-31 or 2030-12-31T18:00Z"
        raise argparse.ArgumentTypeError(message) from error


def _create_token(arguments: argparse.Namespace) -> int:
    token, line = new_token(arguments.name, {Scope(scope) for scope in arguments.scope}, arguments.expires)
    print(f"{token}\n{line}")  # noqa: T201
    explanation = (
        "The first line is the token: give it to the caller now, because it is not shown again. "
        "Add the second line to the file of --auth-tokens."
    )
    print(explanation, file=sys.stderr)  # noqa: T201
    return 0


if __name__ == "__main__":
    main()
