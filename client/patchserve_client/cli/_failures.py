"""The end of a command that fails: one line on stderr, and an exit code."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import NoReturn

import typer

from patchserve_client import NotFound, PatchserveError, Unauthenticated, Unavailable
from patchserve_client.cli._output import print_error, print_note
from patchserve_client.cli._wording import in_shell_words

FAILED = 1
INTERRUPTED = 130  # the shell's code for Ctrl-C

_START_A_SERVER = "Start one with `patchserve-server serve` or `make serve`, or choose another with --server."


@contextmanager
def exit_on_error(similar_reference: Callable[[str], str | None] = lambda _: None) -> Iterator[None]:
    """Report errors of the client and of files, and exit.

    `similar_reference` returns the reference id that a caller who typed an unknown one may have meant.

    Raises:
        typer.Exit: with code 1, or 130 after Ctrl-C.
    """
    try:
        yield
    except PatchserveError as error:
        similar = similar_reference(error.resource_name) if isinstance(error, NotFound) else None
        fail(_explanation(error) + (f' Did you mean "{similar}"?' if similar else ""))
    except BrokenPipeError:
        raise  # the reader of our output has closed it: Typer exits without a message
    except OSError as error:
        fail(f"{error.filename}: {error.strerror}" if error.filename else str(error))
    except (KeyboardInterrupt, RuntimeError) as error:
        if not is_interrupt(error):
            raise
        print_note("Interrupted.")
        raise typer.Exit(INTERRUPTED) from None


def is_interrupt(error: BaseException) -> bool:
    """Whether it is Ctrl-C. Inside one of gRPC's locks that is RuntimeError("cannot release un-acquired lock")."""
    return any(isinstance(cause, KeyboardInterrupt) for cause in (error, error.__context__))


def fail(message: str) -> NoReturn:
    """Print the message in one line on stderr and exit with code 1."""
    print_error(message)
    raise typer.Exit(FAILED) from None


def message_of(error: PatchserveError) -> str:
    """The error's message in one line and in the words of the shell."""
    return in_shell_words(" ".join(error.message.split()))


def _explanation(error: PatchserveError) -> str:
    """The error as text, with advice."""
    text = message_of(error)
    if isinstance(error, Unavailable) and not error.reason:
        if not text.startswith("No server answers"):
            return text  # it says what to do
        is_refused = "Connection refused" in text  # the common case: gRPC's text has no further information
        return f"{text.partition(': ')[0] if is_refused else text}. {_START_A_SERVER}"
    name = f"{error.code}, {error.reason}" if error.reason else error.code
    text += f" ({name})"
    if error.request_id:
        text += f" The server's log has details under request id {error.request_id}."
    if error.reason == "REFERENCE_NOT_FOUND" and "patchserve reference" not in text:
        text += " See `patchserve reference list`, or load one with `patchserve reference load`."
    if isinstance(error, Unauthenticated) and "--token" not in text:
        text += " Set a token with PATCHSERVE_TOKEN, --token-file or --token."
    return text
