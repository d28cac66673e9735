"""What only the client for asyncio has: its event loop, and frames of either kind."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from fakes.either_client import async_items
from fakes.fake_server import FakeServer
from fakes.responses import png

from patchserve_client import AsyncClient, Frame, FrameResult, Health


def test_a_client_made_outside_of_a_loop_works_in_the_one_it_is_first_used_in(fake: FakeServer) -> None:
    client = AsyncClient(fake.address)

    async def use() -> Health:
        async with client:
            await client.load_reference([png()])
            results = [result async for result in client.infer_stream([png()])]
            assert len(results) == 1
            return await client.health()

    assert asyncio.run(use()) == Health(alive=True, ready=True)


def test_in_another_loop_it_says_whose_it_is(fake: FakeServer) -> None:
    client = AsyncClient(fake.address)
    with asyncio.Runner() as first, asyncio.Runner() as second:
        first.run(client.health())
        with pytest.raises(RuntimeError, match="first used in another event loop"):
            second.run(client.health())
        assert first.run(client.health()).ready
        first.run(client.close())


def test_settings_are_checked_before_there_is_a_loop(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="blank"):
        AsyncClient("local host")


def test_a_client_that_was_never_used_can_be_closed(fake: FakeServer) -> None:
    async def main() -> None:
        async with AsyncClient(fake.address):
            pass

    asyncio.run(main())


@pytest.mark.parametrize("make_frames", [list, iter, tuple, async_items], ids=["list", "iterator", "tuple", "async"])
def test_frames_of_either_kind_are_streamed(fake: FakeServer, make_frames: type) -> None:
    frames = [Frame(png("blue"), "first"), png("red"), Frame(png("blue"), "last")]
    results = asyncio.run(streamed(fake, make_frames(frames)))
    assert [result.frame_id for result in results] == ["first", "", "last"]
    assert [result.result.anomaly.is_anomalous for result in results if result.result] == [False, True, False]


async def streamed(fake: FakeServer, frames: object) -> list[FrameResult]:
    async with AsyncClient(fake.address) as client:
        return [result async for result in client.infer_stream(frames)]  # type: ignore[arg-type]


def test_an_iterable_that_blocks_does_not_block_the_loop(fake: FakeServer) -> None:
    loop_ran = threading.Event()

    def camera() -> Iterator[bytes]:
        assert threading.current_thread() is not threading.main_thread()
        yield png()
        assert loop_ran.wait(30)  # only the loop can set it
        yield png()

    async def main() -> int:
        count = 0
        async with AsyncClient(fake.address) as client:
            async for _ in client.infer_stream(camera()):
                count += 1
                loop_ran.set()
        return count

    assert asyncio.run(main()) == 2


def test_an_error_of_an_iterable_is_raised_after_the_results_before_it(fake: FakeServer) -> None:
    def frames() -> Iterator[bytes]:
        yield png()
        raise LookupError("no camera")

    async def main() -> None:
        async with AsyncClient(fake.address) as client:
            results = client.infer_stream(frames())
            assert (await anext(results)).error is None
            with pytest.raises(LookupError, match="no camera"):
                await anext(results)

    asyncio.run(main())
