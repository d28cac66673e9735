"""The values of the label `reference`: bounded, whatever callers load."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

OTHER: Final = "other"


class ReferenceNames:
    """Gives the first references their own name, and all others together one.

    A name is kept when its reference is deleted: else a caller could make new series without end.

    Args:
        limit: how many have their own; asked for each new name, because it may change.
    """

    def __init__(self, limit: Callable[[], int]) -> None:
        self._limit = limit
        self._names: dict[str, str] = {}

    def label(self, reference_id: str) -> str:
        """The value for this reference. Any thread may ask."""
        name = self._names.get(reference_id)
        if name is not None:
            return name
        if len(self._names) >= self._limit():
            return OTHER
        return self._names.setdefault(reference_id, str(reference_id))
