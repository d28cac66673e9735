"""A call that sends nothing gives way to one that needs what it holds."""

from __future__ import annotations

import asyncio
from contextlib import ExitStack
from typing import Any, cast

import pytest

from patchserve_server.domain.errors import IdleCallError, QueueFullError
from patchserve_server.serving.admission import NOTHING, ONE, Admission, Capacity, Permit
from patchserve_server.serving.application import Application
from patchserve_server.serving.reception import Holdings, Reception
from patchserve_server.serving.waiting_calls import Waiting


class Limits:
    """What an application limits."""

    def __init__(self, *, share: float = 1.0) -> None:
        self.calls = Admission("call", Capacity(8), share=share, largest=ONE)
        self.images = Admission("image", Capacity(2, 100), share=share, largest=Capacity(1, 100))
        self.loads = Admission("load", Capacity(2), share=share, largest=ONE)


class Scene:
    def __init__(self, stack: ExitStack, *, share: float = 1.0) -> None:
        self.limits = Limits(share=share)
        self.reception = Reception(8)
        self._stack = stack

    def admit(self, client: str) -> tuple[Permit, Holdings]:
        application = cast(Application, self.limits)
        admitted = self.reception.admitted(application, client, is_load=False, until_answered=ExitStack())
        return self._stack.enter_context(admitted)

    async def wait_with(self, permit: Permit, holdings: Holdings, *, keeps_s: float) -> asyncio.Task[Any]:
        """Lets the call wait for its body, with an image."""
        permit.grow(Capacity(1, 50))
        call = Waiting(holdings.client, {self.limits.images: keeps_s}, holdings.give_back, asyncio.timeout(None))
        task = asyncio.create_task(self.reception.waiting.receive(asyncio.Event().wait(), call, "late"))
        await asyncio.sleep(0)
        return task


@pytest.fixture
def scene() -> Any:
    with ExitStack() as stack:
        yield lambda **options: Scene(stack, **options)


async def test_images_are_taken_from_a_call_that_is_overdue(scene: Any) -> None:
    at = scene()
    slow = await at.wait_with(*at.admit("a"), keeps_s=0.0)
    kept = await at.wait_with(*at.admit("a"), keeps_s=1000.0)
    permit, _ = at.admit("b")
    permit.grow(Capacity(1, 40))
    with pytest.raises(IdleCallError):
        await slow
    assert at.limits.images.held == Capacity(2, 90)
    with pytest.raises(QueueFullError):
        permit.grow(Capacity(1, 60))
    assert permit.capacity == Capacity(1, 40)
    kept.cancel()


async def test_as_many_are_ended_as_it_takes(scene: Any) -> None:
    at = scene()
    slow = [await at.wait_with(*at.admit("a"), keeps_s=0.0) for _ in range(2)]
    permit, _ = at.admit("b")
    permit.grow(Capacity(1, 100))
    assert [type(result) for result in await asyncio.gather(*slow, return_exceptions=True)] == [IdleCallError] * 2
    permit.release()
    assert at.limits.images.held == NOTHING


async def test_beyond_its_share_a_client_takes_from_itself_only(scene: Any) -> None:
    at = scene(share=0.5)
    other = await at.wait_with(*at.admit("a"), keeps_s=0.0)
    permit, _ = at.admit("b")
    permit.grow(ONE)
    second, _ = at.admit("b")
    with pytest.raises(QueueFullError):
        second.grow(ONE)
    assert not other.done()
    other.cancel()
