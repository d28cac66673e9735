"""Chooses some items of a sequence, spread over all of it."""

from __future__ import annotations

import random
from typing import Generic, TypeVar

_T = TypeVar("_T")


class EvenChoice(Generic[_T]):
    """Chooses `count` items of a sequence of unknown length, and holds fewer than twice as many meanwhile.

    The sequence is cut into equal parts, and each part gives the item at a random place. Items at equal distances would
    show the same few things again and again where things repeat, as on a belt. The same sequence has the same choice.
    """

    def __init__(self, count: int) -> None:
        self._count, self._part_length = count, 1
        self._place = 0  # in the current part
        self._random = random.Random(0)  # noqa: S311 - no secret
        self._kept: list[_T] = []

    def wants(self, number: int) -> bool:
        """Whether to add the item with this number. Numbers start at 0, and none is left out."""
        place = number % self._part_length
        if place == 0:
            self._place = self._random.randrange(self._part_length)
        return place == self._place

    def add(self, item: _T) -> list[_T]:
        """Keep an item that was wanted. Returns items that are not needed any more."""
        self._kept.append(item)
        if len(self._kept) < 2 * self._count:
            return []
        pairs = list(zip(self._kept[::2], self._kept[1::2], strict=True))
        sides = [self._random.randrange(2) for _ in pairs]
        self._kept = [pair[side] for pair, side in zip(pairs, sides, strict=True)]
        self._part_length *= 2
        return [pair[1 - side] for pair, side in zip(pairs, sides, strict=True)]

    def chosen(self) -> list[_T]:
        """The chosen items, in order. All, if there were fewer."""
        held = len(self._kept)
        count = min(self._count, held)
        return [self._kept[(2 * index + 1) * held // (2 * count)] for index in range(count)]
