"""A call's messages: counted, limited in time, and never kept after an error."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator

import pytest

from patchserve.v1 import inference_pb2
from patchserve_server.domain.errors import IdleCallError, InvalidInputError, MessageTimeoutError
from patchserve_server.rpc.methods import METHODS
from patchserve_server.rpc.parsing import parser_of
from patchserve_server.rpc.receiving import Requests
from patchserve_server.serving.admission import ONE, Admission, Capacity
from patchserve_server.serving.reading_places import ReadingPlaces
from patchserve_server.serving.reception import Holdings
from patchserve_server.serving.waiting_calls import WaitingCalls

INFER = "/patchserve.v1.PatchCoreService/Infer"
PARSER = parser_of(
    INFER, METHODS[INFER], inference_pb2.InferRequest.FromString, max_message_bytes=20_000, max_reference_images=1
)


class Scene:
    def __init__(self, received: AsyncIterator[bytes], timeout_s: float = 60) -> None:
        self.waiting = WaitingCalls()
        self.places = ReadingPlaces(self.waiting, count=1, per_client=1, keeps_s=0.0, max_queue=9)
        self.images = Admission("image", Capacity(4, 80_000), share=1, largest=ONE)
        self.permit = self.images.permit("a")
        self.requests = Requests(
            received,
            PARSER,
            waiting_calls=self.waiting,
            places=self.places,
            first_timeout_s=timeout_s,
            next_timeout_s=None,
            holdings=Holdings("a", {self.images: 0.0}, {}, self.permit.release),
            permit=self.permit,
            initial=ONE,
        )


class Feed:
    """Messages that a test sends one by one."""

    def __init__(self) -> None:
        self.queue: asyncio.Queue[bytes] = asyncio.Queue()

    def __aiter__(self) -> Feed:
        return self

    async def __anext__(self) -> bytes:
        return await self.queue.get()


async def test_a_message_is_counted_before_it_is_received_and_when_its_size_is_known() -> None:
    feed = Feed()
    at = Scene(feed)
    coming = asyncio.ensure_future(anext(at.requests))
    await asyncio.sleep(0)
    assert at.permit.capacity == ONE
    data = inference_pb2.InferRequest(image=b"image").SerializeToString()
    feed.queue.put_nowait(data)
    assert (await coming).image == b"image"
    assert at.permit.capacity == Capacity(1, len(data))
    assert len(at.waiting) == 0


async def test_a_message_that_does_not_come_ends_the_call() -> None:
    at = Scene(Feed(), timeout_s=0.01)
    with pytest.raises(MessageTimeoutError):
        await anext(at.requests)
    async with asyncio.timeout(60), at.places.place("other"):
        pass


async def test_a_call_that_is_ended_at_the_moment_when_its_message_comes_goes_no_further() -> None:
    """It has given back its permits already."""
    feed = Feed()
    at = Scene(feed)
    coming = asyncio.ensure_future(anext(at.requests))
    await asyncio.sleep(0)
    feed.queue.put_nowait(b"")
    assert at.waiting.end_overdue(at.images, IdleCallError("idle"))
    with pytest.raises(IdleCallError):
        await coming
    assert at.images.is_within_share("a", Capacity(4, 80_000)), "nothing is held"


@pytest.mark.parametrize("data", [b"\x0a", bytes(20_001), b"\x0a\x00" * 5000], ids=["malformed", "large", "parts"])
async def test_a_refused_message_is_not_kept(data: bytes) -> None:
    feed = Feed()
    at = Scene(feed)
    before = sys.getrefcount(data)
    feed.queue.put_nowait(data)
    with pytest.raises(InvalidInputError) as caught:
        await anext(at.requests)
    assert caught.value.__traceback__ is not None
    assert sys.getrefcount(data) == before, "not even by the traceback of the error"
