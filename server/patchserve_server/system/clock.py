"""Whether the system's clock is kept right."""

from __future__ import annotations

import ctypes
import sys

_TIMEX_BYTES = 512  # more than the struct of any architecture has
_ERROR = 5


def is_synchronized() -> bool | None:
    """Whether another clock keeps this one right, as by NTP; None: not known. Only Linux tells."""
    if sys.platform != "linux":
        return None
    adjtimex = getattr(ctypes.CDLL(None), "adjtimex", None)
    state = -1 if adjtimex is None else adjtimex(ctypes.create_string_buffer(_TIMEX_BYTES))
    return None if state < 0 else state != _ERROR
