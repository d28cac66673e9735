"""When a stream reconnects after its connection is lost, and when it stops trying."""

from __future__ import annotations

import random
import time
from collections.abc import Callable

from patchserve_client._errors import PatchserveError, Unavailable

_FIRST_DELAY_S = 0.1
_LONGEST_DELAY_S = 2.0
# gRPC's message if a proxy has lost the server and resets the stream. The server's own errors have a reason.
_RESET_CODES = ("INTERNAL", "UNKNOWN")


class Backoff:
    """Growing delays between connections, for at most `resume_for_s` seconds without progress. 0: never reconnect."""

    def __init__(self, resume_for_s: float, clock: Callable[[], float] = time.monotonic) -> None:
        if not resume_for_s >= 0:
            raise ValueError(f"resume_for_s must be 0 or more seconds, not {resume_for_s}.")
        self._resume_for_s = resume_for_s
        self._clock = clock
        self.reset()

    @property
    def reconnects(self) -> bool:
        """Whether the stream reconnects after a lost connection."""
        return self._resume_for_s > 0

    def reset(self) -> None:
        """The stream made progress: start again with a short delay and the full time."""
        self._lost_at_s: float | None = None
        self._next_delay_s = _FIRST_DELAY_S

    def delay_s(self, error: PatchserveError) -> float | None:
        """Seconds to wait before the next connection, at least those that the server asks for.

        None: the error is final, or the time passes before.
        """
        now_s = self._clock()
        is_first_loss = self._lost_at_s is None
        self._lost_at_s = now_s if self._lost_at_s is None else self._lost_at_s
        remaining_s = self._lost_at_s + self._resume_for_s - now_s
        # An expired token gets one more connection: the token source may have a new token.
        expired_once = error.reason == "CREDENTIALS_EXPIRED" and is_first_loss
        told_s = error.retry_after_s or 0.0
        if remaining_s <= 0 or told_s > remaining_s or not (_is_connection_loss(error) or expired_once):
            return None
        # Jitter, so that the streams of a lost server do not all connect at the same moment.
        share = random.uniform(0.75, 1.25)  # noqa: S311 - not for secrets
        delay_s = max(self._next_delay_s * share, told_s * max(share, 1.0))
        self._next_delay_s = min(2 * self._next_delay_s, _LONGEST_DELAY_S)
        return min(remaining_s, delay_s)


def _is_connection_loss(error: PatchserveError) -> bool:
    is_reset = error.code in _RESET_CODES and not error.reason
    return is_reset or isinstance(error, Unavailable) or error.retry_after_s is not None
