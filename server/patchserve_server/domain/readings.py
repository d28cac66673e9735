"""What there is, as whoever watches the server can read it at any time, in our words."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Final, TypeAlias

_log: Final = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Reading:
    """One number: its name, such as `bank_bytes`, and which part of it, such as ("open",)."""

    name: str
    value: float
    labels: tuple[str, ...] = ()


Source: TypeAlias = Callable[[], Iterable[Reading]]
"""Reads some numbers. Called from any thread; it returns at once."""


class Readings:
    """All numbers that can be read. Nothing is computed until somebody does."""

    def __init__(self) -> None:
        self._sources: tuple[Source, ...] = ()

    def add(self, source: Source) -> None:
        self._sources = (*self._sources, source)

    def __iter__(self) -> Iterator[Reading]:
        for source in self._sources:
            try:
                yield from tuple(source())
            except Exception:  # noqa: BLE001 - the others can still be read
                _log.exception("Something cannot be read")
