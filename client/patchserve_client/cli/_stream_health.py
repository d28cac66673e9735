"""What a look at many results of a stream tells: it falls behind, or its reference was taken in another way."""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import UTC, datetime

_TELL_INTERVAL_S = 10.0
_FIRST_FRAMES = 20
_FEWEST_FRAMES = 8
_LARGE_SHARE = 0.9
_A_BIT_ABOVE = (1.0, 1.5)  # times the threshold


class Lag:
    """How old the frames of a live source are when their results arrive, and how many were left out."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self.longest_s: float | None = None
        self._clock = clock
        self._told_at_s = clock()
        self._told_skipped_count = 0
        self._frame_count = 0

    def result(self, capture_time: datetime, skipped_count: int, now: datetime | None = None) -> str | None:
        """Count a result. Returns what to tell, now and then while frames are left out; None: nothing."""
        lag_s = ((now or datetime.now(UTC)) - capture_time).total_seconds()
        self.longest_s = max(self.longest_s or 0.0, lag_s)
        self._frame_count += 1
        elapsed_s = self._clock() - self._told_at_s
        if elapsed_s < _TELL_INTERVAL_S:
            return None
        skipped, inspected = skipped_count - self._told_skipped_count, self._frame_count
        self._told_at_s, self._told_skipped_count, self._frame_count = self._clock(), skipped_count, 0
        if not skipped:
            return None
        return (
            f"Falling behind: {skipped} of {skipped + inspected} frames were left out at the source in "
            f"{elapsed_s:.0f} s, and results are {lag_s:.1f} s behind the camera."
        )


class ReferenceFit:
    """Notices when nearly all of the first frames score a bit above the threshold.

    A camera, a compression or a size other than the reference's changes every patch a little. Damage changes some
    patches of some items much.
    """

    def __init__(self) -> None:
        self._ratios: list[float] | None = []  # None: decided

    def result(self, ratio: float) -> bool:
        """Count a result. Returns whether to warn now."""
        if self._ratios is None:
            return False
        self._ratios.append(ratio)
        return len(self._ratios) == _FIRST_FRAMES and self.end()

    def end(self) -> bool:
        """Decide with the frames so far. Returns whether to warn now."""
        ratios, self._ratios = self._ratios or [], None
        low, high = _A_BIT_ABOVE
        near = [ratio for ratio in ratios if low < ratio <= high]
        return len(ratios) >= _FEWEST_FRAMES and len(near) >= _LARGE_SHARE * len(ratios)


def fit_warning(source: str, *, is_folder: bool) -> str:
    """What to say about a reference that does not fit."""
    command = f"patchserve reference {'load' if is_folder else 'capture'} {source}"
    return (
        "Nearly all frames score just above the threshold. Either every item is damaged, or the reference was taken in "
        "another way than these frames (another camera, compression or size). Take it from intact items in the same "
        f"way: {command}"
    )
