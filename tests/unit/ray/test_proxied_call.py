"""A call in Ray's proxy: its deadline, and a stream that is not read."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

from patchserve_server.ray.deadline import HEADER, header_of, seconds_of
from patchserve_server.ray.proxied_call import MAX_UNREAD, Flow, ProxiedContext


class Context:
    """gRPC's context, as far as it is asked."""

    def __init__(self, remaining_s: float | None) -> None:
        self._remaining_s = remaining_s

    def invocation_metadata(self) -> tuple[tuple[str, str], ...]:
        return (("x-patchserve-reference", "belt"),)

    def time_remaining(self) -> float | None:
        return self._remaining_s

    def peer(self) -> str:
        return "ipv4:192.0.2.7:1"


@pytest.mark.parametrize("remaining_s", [0.0, 0.25, 30.0, 86400.0])
def test_the_deadline_goes_along_with_the_metadata(remaining_s: float) -> None:
    metadata = dict(ProxiedContext(Context(remaining_s)).invocation_metadata())
    assert metadata["x-patchserve-reference"] == "belt"
    assert seconds_of(str(metadata[HEADER])) == remaining_s


def test_a_call_without_a_deadline_has_none() -> None:
    context = ProxiedContext(Context(None))
    assert HEADER not in dict(context.invocation_metadata())
    assert seconds_of("") is None
    assert context.peer() == "ipv4:192.0.2.7:1"


@pytest.mark.parametrize("remaining_s", [-1.0, 1e9])
def test_a_deadline_out_of_range_is_the_nearest_that_the_header_can_say(remaining_s: float) -> None:
    assert len(header_of(remaining_s)) <= 9
    assert seconds_of(header_of(remaining_s)) in (0.0, 99_999.999)


async def endless() -> AsyncIterator[bytes]:
    while True:
        yield b"frame"


async def test_requests_wait_for_a_caller_that_does_not_read() -> None:
    flow, taken = Flow(), 0

    async def take() -> None:
        nonlocal taken
        async for _ in flow.requests(endless()):
            taken += 1
            await asyncio.sleep(0)

    taking = asyncio.create_task(take())
    for _ in range(3 * MAX_UNREAD):
        await asyncio.sleep(0)
    assert taken == MAX_UNREAD
    flow.sent()
    for _ in range(10):
        await asyncio.sleep(0)
    assert taken == MAX_UNREAD + 1
    taking.cancel()
