"""What a scan has found, in numbers."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Counts:
    """Images by what came of them."""

    intact: int = 0
    anomalous: int = 0
    failed: Mapping[str, int] = field(default_factory=dict)  # by reason
    size_bytes: int = 0  # of what was read

    @property
    def failed_count(self) -> int:
        return sum(self.failed.values())

    @property
    def image_count(self) -> int:
        return self.intact + self.anomalous + self.failed_count

    def __add__(self, other: Counts) -> Counts:
        return Counts(
            self.intact + other.intact,
            self.anomalous + other.anomalous,
            dict(Counter(self.failed) + Counter(other.failed)),
            self.size_bytes + other.size_bytes,
        )
