"""Stored content that breaks the format."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from patchserve_server.domain.errors import ReferenceDamagedError
from patchserve_server.domain.reference_id import ReferenceId

_MAX_EXCERPT_CHARACTERS = 160


class DamageError(ValueError):
    """Content that breaks the format. The message completes "it is damaged: " and never contains a path."""


def printable(text: str) -> str:
    """A short excerpt in printable ASCII. A parser's message may quote the damaged file, so it can contain anything."""
    return ascii(text)[1:-1][:_MAX_EXCERPT_CHARACTERS]


@contextmanager
def damage_errors(reference_id: ReferenceId, what: str, advice: str = "") -> Iterator[None]:
    """Raise damage as an error for callers: `what` is damaged or does not work, and perhaps what to do.

    Raises:
        ReferenceDamagedError: for any damage.
    """
    try:
        yield
    except DamageError as error:
        raise ReferenceDamagedError(reference_id, f"{what}: {error}. {advice}".rstrip()) from error
