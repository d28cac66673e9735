"""The end of a command that fails: one line on stderr, and an exit code."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import typer

from patchserve_client import PatchserveError, Unauthenticated, Unavailable

INTERRUPTED = 130  # the shell's code for Ctrl-C


@contextmanager
def exit_on_error(server: str) -> Iterator[None]:
    """Report errors of the client and of files, and exit. `server` is the address for messages.

    Raises:
        typer.Exit: with code 1, or 130 after Ctrl-C.
    """
    try:
        yield
    except PatchserveError as error:
        fail(_explanation(error, server))
    except BrokenPipeError:
        raise  # the reader of our output has closed it: Typer exits without a message
    except OSError as error:
        fail(f"{error.filename}: {error.strerror}" if error.filename else str(error))
    except (KeyboardInterrupt, RuntimeError) as error:
        # Ctrl-C inside one of gRPC's locks becomes RuntimeError("cannot release un-acquired lock").
        if not any(isinstance(cause, KeyboardInterrupt) for cause in (error, error.__context__)):
            raise
        typer.echo("Interrupted.", err=True)
        raise typer.Exit(INTERRUPTED) from None


def fail(message: str) -> None:
    """Print the message in one line on stderr and exit with code 1."""
    typer.echo(f"Error: {' '.join(message.split())}", err=True)
    raise typer.Exit(1) from None


def _explanation(error: PatchserveError, server: str) -> str:
    """The error as text, with advice."""
    if isinstance(error, Unavailable) and not error.reason:
        advice = "Start one with `patchserve-server serve` or `make serve`, or choose another with --server."
        is_refused = "Connection refused" in error.message  # the common case: gRPC's text has no further information
        return f"No server answers at {server}. {advice}" if is_refused else f"{error.message}. {advice}"
    name = f"{error.code}, {error.reason}" if error.reason else error.code
    text = f"{error.message} ({name})"
    if error.request_id:
        text += f" The server's log has details under request id {error.request_id}."
    if error.reason == "REFERENCE_NOT_FOUND":
        text += " See `patchserve reference list`, or load one with `patchserve reference load`."
    if isinstance(error, Unauthenticated):
        text += " Set a token with PATCHSERVE_TOKEN, --token-file or --token."
    return text
