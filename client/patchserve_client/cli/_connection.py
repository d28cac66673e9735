"""The connection options of every command. They can be written before or after the command."""

from __future__ import annotations

import dataclasses
import difflib
import errno
import functools
from contextlib import suppress
from dataclasses import dataclass, field
from importlib.metadata import version as installed_version
from pathlib import Path
from typing import Annotated, Any, TypeVar

import typer

from patchserve_client import Client, PatchserveError, TlsConfig
from patchserve_client._address import DEFAULT_SERVER
from patchserve_client._base import BaseClient
from patchserve_client._connection import DEFAULT_LOAD_TIMEOUT_S, DEFAULT_TIMEOUT_S, TokenSource, checked_token
from patchserve_client.cli._failures import exit_on_error
from patchserve_client.cli._paths import EXISTING_FILE
from patchserve_client.cli._signatures import Command, parameters_of, with_parameters
from patchserve_client.cli._wording import in_shell_words

_DEFAULT_TIMEOUTS = f"{DEFAULT_TIMEOUT_S:g}, for a load {DEFAULT_LOAD_TIMEOUT_S:g}"
_PANEL: dict[str, Any] = {"rich_help_panel": "Connection"}
_SUGGESTION_TIMEOUT_S = 2.0
_C = TypeVar("_C", bound=BaseClient)


@dataclass(frozen=True, slots=True)
class Settings:
    """The connection options of a command line. They have the names of the options."""

    server: str = DEFAULT_SERVER
    timeout: float | None = None
    tls: bool = False
    ca: Path | None = None
    cert: Path | None = None
    key: Path | None = None
    token: str | None = field(default=None, repr=False)
    token_file: Path | None = None
    insecure_token: bool = False

    def client(self) -> Client:
        """A new client with these settings.

        Raises:
            typer.BadParameter: the settings are not valid together.
        """
        return self.client_of(Client)

    def client_of(self, kind: type[_C]) -> _C:
        """Like `client`, of another kind."""
        tls = None
        try:
            if self.tls or self.ca or self.cert or self.key:
                tls = TlsConfig(self.ca, self.cert, self.key)
            return kind(
                self.server,
                timeout_s=self.timeout or DEFAULT_TIMEOUT_S,
                load_timeout_s=self.timeout or DEFAULT_LOAD_TIMEOUT_S,
                tls=tls,
                token=self._token_source(),
                insecure_token=self.insecure_token,
            )
        except ValueError as error:
            raise typer.BadParameter(in_shell_words(str(error))) from error

    def _token_source(self) -> TokenSource:
        """A token file is read for every call, so that the token can be renewed. It has precedence over --token."""
        file = self.token_file
        return self.token if file is None else lambda: _read_token(file)

    def similar_reference(self, reference_id: str) -> str | None:
        """The reference on the server whose id is most like this one; None if none is."""
        with suppress(PatchserveError), self.client() as client:
            known = [one.reference_id for one in client.list_references(timeout_s=_SUGGESTION_TIMEOUT_S)]
            return next(iter(difflib.get_close_matches(reference_id, known, n=1)), None)
        return None


def _read_token(file: Path) -> str:
    try:
        return checked_token(file.read_text(encoding="ascii").strip())
    except ValueError as error:  # reported as an error of this file
        raise OSError(errno.EINVAL, "This is not a file with one token and nothing else.", str(file)) from error


def _print_version(is_requested: bool) -> None:
    if is_requested:
        typer.echo(f"patchserve {installed_version('patchserve')}")
        raise typer.Exit


def read_settings(
    ctx: typer.Context,
    *,
    version: Annotated[  # noqa: ARG001 - its callback prints it
        bool,
        typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version and exit."),
    ] = False,
    server: Annotated[
        str | None,
        typer.Option(
            **_PANEL,
            metavar="HOST:PORT",
            envvar="PATCHSERVE_SERVER",
            show_default=DEFAULT_SERVER,
            help="Server address.",
        ),
    ] = None,
    timeout: Annotated[
        float | None,
        typer.Option(
            **_PANEL, min=0.001, metavar="SECONDS", show_default=_DEFAULT_TIMEOUTS, help="Deadline of a call."
        ),
    ] = None,
    tls: Annotated[
        bool | None,
        typer.Option(
            "--tls",
            **_PANEL,
            envvar="PATCHSERVE_TLS",
            help="Encrypt the connection. --ca, --cert and --key imply it.",
        ),
    ] = None,
    ca: Annotated[
        Path | None,
        typer.Option(
            **_PANEL,
            **EXISTING_FILE,
            metavar="FILE",
            envvar="PATCHSERVE_CA",
            show_default="those of gRPC",
            help="Authorities for the server's certificate (PEM).",
        ),
    ] = None,
    cert: Annotated[
        Path | None,
        typer.Option(
            **_PANEL, **EXISTING_FILE, metavar="FILE", envvar="PATCHSERVE_CERT", help="Client certificate (PEM)."
        ),
    ] = None,
    key: Annotated[
        Path | None,
        typer.Option(
            **_PANEL, **EXISTING_FILE, metavar="FILE", envvar="PATCHSERVE_KEY", help="Private key of --cert (PEM)."
        ),
    ] = None,
    token: Annotated[
        str | None,
        typer.Option(
            **_PANEL,
            metavar="TOKEN",
            envvar="PATCHSERVE_TOKEN",
            help="Bearer token. The variable keeps it out of process lists.",
        ),
    ] = None,
    token_file: Annotated[
        Path | None,
        typer.Option(
            **_PANEL,
            **EXISTING_FILE,
            metavar="FILE",
            envvar="PATCHSERVE_TOKEN_FILE",
            help="File with the token, read for every call.",
        ),
    ] = None,
    insecure_token: Annotated[
        bool | None,
        typer.Option("--insecure-token", **_PANEL, help="Allow sending the token unencrypted to another machine."),
    ] = None,
) -> None:
    """Read the options before the command. Every command also accepts them after it, with precedence."""
    ctx.obj = Settings(
        server or DEFAULT_SERVER, timeout, bool(tls), ca, cert, key, token or None, token_file, bool(insecure_token)
    )


_CONTEXT, _VERSION, *_OPTIONS = parameters_of(read_settings)


def connected(command: Command) -> Command:
    """Add the connection options to a command whose first argument is Settings, and report its errors."""

    @functools.wraps(command)
    def run(ctx: typer.Context, **arguments: Any) -> None:  # noqa: ANN401 - values of any option
        after_command = {option.name: arguments.pop(option.name) for option in _OPTIONS}
        typed = {name: value for name, value in after_command.items() if _is_typed(ctx, name)}
        settings = dataclasses.replace(ctx.obj, **typed)
        with exit_on_error(settings.similar_reference):
            command(settings, **arguments)

    _, *own_options = parameters_of(command)
    return with_parameters(run, [_CONTEXT, *own_options, *_OPTIONS])


def _is_typed(ctx: typer.Context, option: str) -> bool:
    """Whether the option was typed. An option before the command has precedence over an environment variable."""
    source = ctx.get_parameter_source(option)
    return source is not None and source.name == "COMMANDLINE"
