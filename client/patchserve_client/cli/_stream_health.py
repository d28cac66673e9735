"""What a look at many results of a stream tells: it falls behind, or its reference was taken in another way."""

from __future__ import annotations

import shlex
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta

_TELL_INTERVAL_S = 10.0
_TOLD_SHARE = 0.05  # of the frames. A frame now and then is lost to the jitter of the network
_FIRST_FRAMES, _FIRST_SPAN = 20, timedelta(seconds=10)  # both, so that it is not the same item all the time
_FEWEST_FRAMES = 8  # of a stream that ends before that
_LARGE_SHARE = 0.9
_CLOSE = (0.88, 1.7)  # times the threshold. docs/accuracy.md has the measured ratios


class Lag:
    """How old the frames of a live source are when their results arrive, and how many were left out."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self.longest_s: float | None = None
        self._clock = clock
        self._told_at_s = clock()
        self._told_left_out_count = 0
        self._frame_count = 0

    def result(self, capture_time: datetime, left_out_count: int, now: datetime | None = None) -> str | None:
        """Count a result. Returns what to tell, now and then while frames are left out; None: nothing."""
        lag_s = ((now or datetime.now(UTC)) - capture_time).total_seconds()
        self.longest_s = max(self.longest_s or 0.0, lag_s)
        self._frame_count += 1
        elapsed_s = self._clock() - self._told_at_s
        if elapsed_s < _TELL_INTERVAL_S:
            return None
        left_out, inspected = left_out_count - self._told_left_out_count, self._frame_count
        self._told_at_s, self._told_left_out_count, self._frame_count = self._clock(), left_out_count, 0
        if left_out < _TOLD_SHARE * (left_out + inspected):
            return None
        return (
            f"Falling behind: {left_out} of {left_out + inspected} frames were left out at the source in "
            f"{elapsed_s:.0f} s, and results are {lag_s:.1f} s behind the camera."
        )


class ReferenceFit:
    """Notices when nearly all of the first frames score close to the threshold.

    Another camera, compression or size than the reference's changes every patch of every item a little. Intact
    items in images of the same kind score well below the threshold, and damage changes a few patches much.
    """

    def __init__(self, source: str, *, is_folder: bool) -> None:
        self._command = f"patchserve reference {'load' if is_folder else 'capture'} {shlex.quote(source)}"
        self._ratios: list[float] = []
        self._first_time: datetime | None = None
        self._is_decided = False

    def result(self, ratio: float, capture_time: datetime | None) -> str | None:
        """Count a result. Returns what to tell; None: nothing."""
        if self._is_decided:
            return None
        self._ratios.append(ratio)
        self._first_time = self._first_time or capture_time
        is_long_enough = (
            capture_time is None or self._first_time is None or capture_time - self._first_time >= _FIRST_SPAN
        )
        return self._decision() if is_long_enough and len(self._ratios) >= _FIRST_FRAMES else None

    def end(self) -> str | None:
        """The stream has ended. Returns what to tell; None: nothing."""
        return None if self._is_decided or len(self._ratios) < _FEWEST_FRAMES else self._decision()

    def _decision(self) -> str | None:
        self._is_decided = True
        low, high = _CLOSE
        close = [ratio for ratio in self._ratios if low < ratio <= high]
        if len(close) < _LARGE_SHARE * len(self._ratios):
            return None
        return (
            f"{len(close)} of the first {len(self._ratios)} frames score close to the threshold ({min(close):.2f} to "
            f"{max(close):.2f} x). Intact items should score well below it. Either these are all damaged, or the "
            "reference was taken in another way than these frames, with another camera, compression or size. Make it "
            f"from intact items in the same way: {self._command}"
        )
