"""Chooses some items of a sequence evenly."""

from __future__ import annotations

from typing import Generic, TypeVar

_T = TypeVar("_T")


class EvenChoice(Generic[_T]):
    """Chooses `count` items evenly from a sequence of unknown length, and holds fewer than twice as many meanwhile."""

    def __init__(self, count: int) -> None:
        self._count, self._stride = count, 1
        self._kept: list[_T] = []

    def wants(self, number: int) -> bool:
        """Whether to add the item with this number; the first has 0."""
        return number % self._stride == 0

    def add(self, item: _T) -> list[_T]:
        """Keep an item that was wanted. Returns items that are not needed any more."""
        self._kept.append(item)
        if len(self._kept) < 2 * self._count:
            return []
        rest, self._kept, self._stride = self._kept[1::2], self._kept[::2], 2 * self._stride
        return rest

    def chosen(self) -> list[_T]:
        """The chosen items, in order. All, if there were fewer."""
        held = len(self._kept)
        count = min(self._count, held)
        return [self._kept[(2 * index + 1) * held // (2 * count)] for index in range(count)]
