"""A number of something, and its bytes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True, slots=True)
class Capacity:
    """A number of images (or calls, or loads) and their bytes."""

    count: int = 0
    bytes: int = 0

    def __add__(self, other: Capacity) -> Capacity:
        return Capacity(self.count + other.count, self.bytes + other.bytes)

    def __sub__(self, other: Capacity) -> Capacity:
        return Capacity(self.count - other.count, self.bytes - other.bytes)

    def at_least(self, other: Capacity) -> Capacity:
        return Capacity(max(self.count, other.count), max(self.bytes, other.bytes))

    def at_most(self, other: Capacity) -> Capacity:
        return Capacity(min(self.count, other.count), min(self.bytes, other.bytes))

    def fits(self, limit: Capacity) -> bool:
        return self.count <= limit.count and self.bytes <= limit.bytes

    def share(self, share: float, at_least: Capacity) -> Capacity:
        """This part of the capacity, but never less than `at_least`."""
        return Capacity(int(self.count * share), int(self.bytes * share)).at_least(at_least)


NOTHING: Final = Capacity()
ONE: Final = Capacity(1)
