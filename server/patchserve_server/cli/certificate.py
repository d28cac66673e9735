"""`patchserve-server cert create`: create certificates for trying out TLS."""

from __future__ import annotations

import argparse
import shlex
import sys
from pathlib import Path

from patchserve_server.cli import PROGRAM
from patchserve_server.cli.parser import Commands, path_argument
from patchserve_server.domain.errors import StartupError

_MAX_DAYS = 825
_THIS_MACHINE = ["localhost", "127.0.0.1", "::1"]


def add_to(commands: Commands) -> None:
    title = "create certificates for trying out TLS"
    subcommands = commands.add_parser("cert", help=title, description=title).add_subparsers(
        title="commands", metavar="COMMAND", required=True
    )
    description = (
        "Create an authority and a certificate that it signed for a server: ca.pem, server.pem and server.key. They "
        "are for trying out; in production use those of your own authority."
    )
    parser = subcommands.add_parser("create", help="create ca.pem, server.pem, server.key", description=description)
    parser.add_argument(
        "--host", action="append", type=_host, metavar="HOST",
        help="name or IP address that clients connect to; may be repeated [default: localhost, 127.0.0.1 and ::1]",
    )  # fmt: skip
    parser.add_argument("--out", type=path_argument, default=Path("tls"), metavar="FOLDER", help="[default: tls]")
    valid_days = f"how long they are valid: 1 to {_MAX_DAYS} [default: 30]"
    parser.add_argument("--days", type=_days, default=30, metavar="DAYS", help=valid_days)
    parser.set_defaults(run=_run)


def _host(text: str) -> str:
    from patchserve_server.access.trial_certificates import host_name  # noqa: PLC0415 - imports cryptography

    try:
        host_name(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from error
    return text


def _days(text: str) -> int:
    if not (text.isascii() and text.isdigit() and 1 <= int(text) <= _MAX_DAYS):
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number from 1 to {_MAX_DAYS}")
    return int(text)


def _run(arguments: argparse.Namespace) -> None:
    from patchserve_server.access.trial_certificates import create_trial_certificates, host_name  # noqa: PLC0415

    hosts: list[str] = arguments.host or _THIS_MACHINE
    try:
        files = create_trial_certificates(arguments.out, [host_name(host) for host in hosts], arguments.days)
    except StartupError as error:
        sys.exit(f"{PROGRAM} cert create: {error.message}")
    cert, key, ca = (shlex.quote(str(path)) for path in (files.cert, files.key, files.ca))
    print(  # noqa: T201
        f"Wrote {files.cert}, {files.key} (keep it secret) and {files.ca} (for clients), valid for {arguments.days} "
        f"days and for {', '.join(hosts)}.\n"
        f"Server: {PROGRAM} serve{_listen(hosts[0])} --tls-cert {cert} --tls-key {key}\n"
        f"Client: patchserve --server {_authority(hosts[0])}:50051 --ca {ca} health"
    )


def _listen(host: str) -> str:
    if host in _THIS_MACHINE[:2]:
        return ""
    return " --host ::" if _is_ipv6(host) else " --host 0.0.0.0"


def _authority(host: str) -> str:
    return f"[{host.strip('[]')}]" if _is_ipv6(host) else host


def _is_ipv6(host: str) -> bool:
    return ":" in host
