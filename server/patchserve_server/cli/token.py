"""`patchserve-server token create`: create a bearer token for --auth-tokens."""

from __future__ import annotations

import argparse
import sys
from datetime import UTC, datetime
from pathlib import Path

from patchserve_server.access.tokens import append_token, is_valid_name, new_token, parse_expiry
from patchserve_server.cli import PROGRAM
from patchserve_server.cli.parser import Commands, path_argument
from patchserve_server.domain.callers import Scope
from patchserve_server.domain.errors import StartupError


def add_to(commands: Commands) -> None:
    title = "create a bearer token for --auth-tokens"
    subcommands = commands.add_parser("token", help=title, description=title).add_subparsers(
        title="commands", metavar="COMMAND", required=True
    )
    scopes = [scope.value for scope in Scope]
    description = (
        "Create a token and its line for the file of --auth-tokens. The token is shown once: give it to the caller."
    )
    parser = subcommands.add_parser("create", help="create a token", description=description)
    parser.add_argument("--name", required=True, type=_name, metavar="NAME", help="the caller's name, for the log")
    parser.add_argument(
        "--scope", required=True, action="append", choices=scopes, metavar="SCOPE",
        help=f"one of {', '.join(scopes)}; may be repeated",
    )  # fmt: skip
    parser.add_argument("--expires", type=_expiry, metavar="TIME", help="date or time in ISO 8601, as 2030-12-31 (UTC)")
    parser.add_argument(
        "--file", type=path_argument, metavar="FILE", help="add the line to this file; it is created if it is missing"
    )
    parser.add_argument(
        "--another", action="store_true", help="allow a second token of this name in --file, to replace the first one"
    )
    parser.set_defaults(run=_run)


def _name(text: str) -> str:
    if not is_valid_name(text):
        message = "a name has 1 to 64 of A-Z a-z 0-9 . _ @ - and starts with a letter or a digit"
        raise argparse.ArgumentTypeError(message)
    return text


def _expiry(text: str) -> datetime:
    try:
        time = parse_expiry(text)
    except ValueError as error:
        message = "use an ISO 8601 date or time, such as 2030-12-31 or 2030-12-31T18:00Z"
        raise argparse.ArgumentTypeError(message) from error
    if time <= datetime.now(UTC):
        raise argparse.ArgumentTypeError(f"{text} has passed, so the token would never be valid")
    return time


def _run(arguments: argparse.Namespace) -> None:
    token, line = new_token(arguments.name, {Scope(scope) for scope in arguments.scope}, arguments.expires)
    file: Path | None = arguments.file
    if file is None:
        print(f"{token}\n{line}")  # noqa: T201
        todo = "The first line is the token: give it to the caller now, because it is not shown again. Add the second "
        todo += "line to the file of --auth-tokens."
    else:
        try:
            append_token(file, line, another=arguments.another)
        except StartupError as error:
            sys.exit(f"{PROGRAM} token create: {error.message}")
        print(token)  # noqa: T201
        todo = f"Give this token to {arguments.name} now, because it is not shown again. {file} has its line; a "
        todo += "running server reads it within seconds."
    print(todo, file=sys.stderr)  # noqa: T201
