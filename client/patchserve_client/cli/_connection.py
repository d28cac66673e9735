"""The options that every command has: which server, and how to talk to it. They go before or after the command."""

from __future__ import annotations

import dataclasses
import functools
import inspect
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib.metadata import version as installed_version
from pathlib import Path
from typing import Annotated, Any

import typer

from patchserve_client import Client, PatchserveError, TlsConfig, Unauthenticated, Unavailable
from patchserve_client._connection import DEFAULT_LOAD_TIMEOUT_S, DEFAULT_SERVER, DEFAULT_TIMEOUT_S, TokenSource

INTERRUPTED = 130  # as a shell reports it
_DEFAULT_WAIT = f"{DEFAULT_TIMEOUT_S:g}, for a load {DEFAULT_LOAD_TIMEOUT_S:g}"
_PEM: dict[str, Any] = {"metavar": "FILE.pem", "exists": True, "dir_okay": False}


@dataclass(frozen=True, slots=True)
class Settings:
    """The connection that a command line asks for."""

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
        """A client of these settings.

        Raises:
            typer.BadParameter: they do not make sense.
        """
        tls = None
        try:
            if self.tls or self.ca or self.cert or self.key:
                tls = TlsConfig(self.ca, self.cert, self.key)
            return Client(
                self.server,
                timeout_s=self.timeout or DEFAULT_TIMEOUT_S,
                load_timeout_s=self.timeout or DEFAULT_LOAD_TIMEOUT_S,
                tls=tls,
                token=self._token_source(),
                insecure_token=self.insecure_token,
            )
        except ValueError as error:
            raise typer.BadParameter(str(error)) from error

    def _token_source(self) -> TokenSource:
        """A file is read for every call: whoever renews it need not start us again. It wins over the variable."""
        file = self.token_file
        return self.token if file is None else lambda: file.read_text().strip()


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"patchserve {installed_version('patchserve')}")
        raise typer.Exit


def remember_connection(
    ctx: typer.Context,
    *,
    version: Annotated[  # noqa: ARG001 - its callback prints it
        bool,
        typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version and exit."),
    ] = False,
    server: Annotated[
        str | None,
        typer.Option(metavar="HOST:PORT", envvar="PATCHSERVE_SERVER", help=f"The server. [default: {DEFAULT_SERVER}]"),
    ] = None,
    timeout: Annotated[
        float | None,
        typer.Option(min=0.001, metavar="SECONDS", help=f"How long to wait for an answer. [default: {_DEFAULT_WAIT}]"),
    ] = None,
    tls: Annotated[
        bool | None, typer.Option("--tls", help="Encrypt the connection; implied by the next three.")
    ] = None,
    ca: Annotated[
        Path | None, typer.Option(**_PEM, help="Who may sign the server's certificate. [default: well-known ones]")
    ] = None,
    cert: Annotated[Path | None, typer.Option(**_PEM, help="The client's own certificate.")] = None,
    key: Annotated[Path | None, typer.Option(**_PEM, help="The key of --cert.")] = None,
    token: Annotated[
        str | None,
        typer.Option(
            metavar="TOKEN",
            envvar="PATCHSERVE_TOKEN",
            help="The bearer token; the variable keeps it out of process lists.",
        ),
    ] = None,
    token_file: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            exists=True,
            dir_okay=False,
            help="A file with the token, read for every call.",
        ),
    ] = None,
    insecure_token: Annotated[
        bool | None, typer.Option("--insecure-token", help="Send the token unencrypted to another machine.")
    ] = None,
) -> None:
    """What stands before the command. Every command takes the same options after it, and those win."""
    ctx.obj = Settings(
        server or DEFAULT_SERVER, timeout, bool(tls), ca, cert, key, token or None, token_file, bool(insecure_token)
    )


_CONTEXT, _VERSION, *_OPTIONS = inspect.signature(remember_connection, eval_str=True).parameters.values()


def connected(command: Callable[..., None]) -> Callable[..., None]:
    """A command whose first argument is Settings: adds the options above to its own, and tells its errors."""

    @functools.wraps(command)
    def run(ctx: typer.Context, **given: Any) -> None:  # noqa: ANN401 - whatever the options hold
        late = {option.name: given.pop(option.name) for option in _OPTIONS}
        typed = {name: value for name, value in late.items() if _is_typed(ctx, name)}
        settings = dataclasses.replace(ctx.obj, **typed)
        with _errors_told(settings.server):
            command(settings, **given)

    own = list(inspect.signature(command, eval_str=True).parameters.values())[1:]
    parameters = [_CONTEXT, *own, *_OPTIONS]
    run.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    run.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
    return run


def _is_typed(ctx: typer.Context, option: str) -> bool:
    """Not from a variable, which must not win over what is typed before the command."""
    source = ctx.get_parameter_source(option)
    return source is not None and source.name == "COMMANDLINE"


@contextmanager
def _errors_told(server: str) -> Iterator[None]:
    try:
        yield
    except PatchserveError as error:
        fail(_explained(error, server))
    except BrokenPipeError:
        raise  # who reads our output has had enough: Typer ends quietly
    except OSError as error:
        fail(f"{error.filename}: {error.strerror}" if error.filename else str(error))
    except (KeyboardInterrupt, RuntimeError) as error:
        # In the middle of a lock of gRPC's, Ctrl-C leaves it as "cannot release un-acquired lock".
        if not any(isinstance(one, KeyboardInterrupt) for one in (error, error.__context__)):
            raise
        typer.echo("Interrupted.", err=True)
        raise typer.Exit(INTERRUPTED) from None


def fail(message: str) -> None:
    """Says why on stderr, in one line, and ends with code 1."""
    typer.echo(f"Error: {' '.join(message.split())}", err=True)
    raise typer.Exit(1) from None


def _explained(error: PatchserveError, server: str) -> str:
    if isinstance(error, Unavailable) and not error.reason:
        advice = "Start one with `patchserve-server serve` or `make serve`, or name another with --server."
        refused = "Connection refused" in error.message  # the usual case, in which gRPC's own words add nothing
        return f"No server answers at {server}. {advice}" if refused else f"{error.message}. {advice}"
    name = f"{error.code}, {error.reason}" if error.reason else error.code
    text = f"{error.message} ({name})"
    if error.request_id:
        text += f" The server's log has more under request {error.request_id}."
    if error.reason == "REFERENCE_NOT_FOUND":
        text += " From here: `patchserve reference load` and `patchserve reference list`."
    if isinstance(error, Unauthenticated):
        text += " Give a token with PATCHSERVE_TOKEN, --token-file or --token."
    return text
