"""What the store takes from the machine. A simulation gives it other clocks and random numbers, and no threads."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Protocol, TypeVar

T = TypeVar("T")
R = TypeVar("R")


class Each(Protocol):
    """Calls a function with each item and gives the results in order, as `map` does; perhaps in several threads."""

    def __call__(self, function: Callable[[T], R], items: Iterable[T], /) -> Iterator[R]: ...


def _utc_now() -> datetime:
    return datetime.now(UTC)


@dataclass(frozen=True, slots=True)
class Surroundings:
    """Clocks, sleep, random numbers and threads."""

    monotonic_s: Callable[[], float] = time.monotonic
    utc_now: Callable[[], datetime] = _utc_now
    sleep: Callable[[float], None] = time.sleep  # seconds
    rng: random.Random = field(default_factory=random.SystemRandom)
    each: Each = map

    def nonce(self) -> str:
        """A number that was never there before: 32 hexadecimal digits."""
        return f"{self.rng.getrandbits(128):032x}"
