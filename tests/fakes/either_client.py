"""One way to use both clients, so that a test can run with each."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from typing import Any, TypeAlias

from fakes.waiting import until
from patchserve_client import AsyncClient, Client, FrameResult

CallMethod: TypeAlias = Callable[..., Any]
"""(address, method, *arguments, client=its options, **options): call a method of a new client; list what it yields."""
StreamFrames: TypeAlias = Callable[..., list[FrameResult]]
"""(address, frames, stop_after=leave the loop after so many results, **options): stream through a new client."""


def call_sync(address: str, method: str, *args: Any, client: dict[str, Any] | None = None, **options: Any) -> Any:
    with Client(address, **(client or {})) as connected:
        result = getattr(connected, method)(*args, **options)
        return list(result) if isinstance(result, Iterator) else result


def call_asyncio(address: str, method: str, *args: Any, client: dict[str, Any] | None = None, **options: Any) -> Any:
    async def main() -> Any:
        async with AsyncClient(address, **(client or {})) as connected:
            result = getattr(connected, method)(*args, **options)
            return [item async for item in result] if hasattr(result, "__aiter__") else await result

    return asyncio.run(main())


def stream_sync(
    address: str, frames: Iterable[Any], *, stop_after: int | None = None, **options: Any
) -> list[FrameResult]:
    with Client(address) as client, contextlib.closing(client.infer_stream(frames, **options)) as results:
        return list(itertools.islice(results, stop_after))


def stream_asyncio(
    address: str, frames: Iterable[Any], *, stop_after: int | None = None, **options: Any
) -> list[FrameResult]:
    async def main() -> list[FrameResult]:
        results: list[FrameResult] = []
        async with AsyncClient(address) as client:
            async with contextlib.aclosing(client.infer_stream(async_items(frames), **options)) as stream:
                async for result in stream:
                    results.append(result)
                    if len(results) == stop_after:
                        break
            await wait_for_other_tasks()
        return results

    return asyncio.run(main())


async def async_items(items: Iterable[Any]) -> AsyncIterator[Any]:
    """The same items for asyncio; other tasks run after each."""
    for item in items:
        yield item
        await asyncio.sleep(0)


async def wait_for_other_tasks() -> None:
    """Return when only the current task exists."""
    await until(lambda: asyncio.all_tasks() == {asyncio.current_task()})
