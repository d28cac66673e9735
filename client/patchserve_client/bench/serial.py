"""The latency of a server without load."""

from __future__ import annotations

import itertools
import time
from collections.abc import Sequence
from typing import Any, Final

from patchserve_client._calls import Call
from patchserve_client.bench.load import Connection

_WARM_UP_S: Final = 1.0
_MOST_CALLS: Final = 50


async def serial_latency_s(connections: Sequence[Connection], calls: Sequence[Call[Any]], timeout_s: float) -> float:
    """Send calls one after the other, over every connection; returns the median latency, in seconds.

    Raises:
        PatchserveError: a call failed.
    """
    latencies_s: list[float] = []
    started_s = time.monotonic()
    for connection, call in itertools.islice(zip(itertools.cycle(connections), itertools.cycle(calls)), _MOST_CALLS):
        sent_s = time.monotonic()
        await connection.send(call, timeout_s)
        latencies_s.append(time.monotonic() - sent_s)
        if len(latencies_s) > 2 * len(connections) and time.monotonic() - started_s > _WARM_UP_S:
            break
    return sorted(latencies_s)[len(latencies_s) // 2]
