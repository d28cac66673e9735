"""Stored content that breaks the format."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager

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


def current_damage_errors(reference_id: ReferenceId) -> AbstractContextManager[None]:
    """The same for the current revision of a reference."""
    what = f'The stored reference "{reference_id}" is damaged'
    advice = (
        "Load it again or delete it, or have the operator look for an intact revision: `patchserve-server store check`."
    )
    return damage_errors(reference_id, what, advice)


def previous_damage_errors(reference_id: ReferenceId) -> AbstractContextManager[None]:
    """The same for the previous revision."""
    return damage_errors(reference_id, f'The previous revision of reference "{reference_id}" cannot be restored')
