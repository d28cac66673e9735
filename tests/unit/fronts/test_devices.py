"""Devices of a front: the one with least to do is next, and banks are open where they are used."""

from __future__ import annotations

import asyncio
from typing import Any, cast

import pytest
from fakes.gray import reference

from patchserve_server.domain.errors import EngineLostError, MemoryBudgetError
from patchserve_server.fronts.devices import Devices, Pin
from patchserve_server.fronts.link import Link

INFO = reference().info


class FakeLink:
    """The link to a device that opens at once, unless it has an error."""

    def __init__(self) -> None:
        self.is_lost = False
        self.error: Exception | None = None
        self.pinned: list[int] = []

    async def ask(self, request: dict[str, Any]) -> tuple[dict[str, Any], bytes]:
        await asyncio.sleep(0)
        if self.error is not None:
            raise self.error
        self.pinned.append(request["pin"])
        return {}, b""

    def tell(self, message: dict[str, Any]) -> None:
        self.pinned.remove(message["pin"])


def devices_of(*links: FakeLink) -> Devices:
    devices = Devices()
    for link in links:
        devices.add(cast(Link, link), None)
    return devices


async def take(devices: Devices, count: int) -> list[Pin]:
    """Where these many images go, one after the other."""
    pins = []
    async with devices.hold(INFO) as held:
        for _ in range(count):
            pins.append(pin := await held.pin())
            pin.device.in_progress += 1
            await asyncio.sleep(0.001)  # what is opened elsewhere is open
    return pins


async def test_a_bank_is_open_on_one_device_until_that_has_much_more_to_do() -> None:
    links = FakeLink(), FakeLink()
    devices = devices_of(*links)
    pins = await take(devices, devices.spread)
    assert len({pin.device for pin in pins}) == 1, "a few images are no reason to open it twice"
    pins = await take(devices, 40)
    loads = [device.in_progress for device in devices]
    assert abs(loads[0] - loads[1]) <= 1, "then the one with least to do is next"
    assert links[0].pinned == links[1].pinned == [], "the last user gives everything back"


async def test_other_banks_go_to_other_devices() -> None:
    devices = devices_of(FakeLink(), FakeLink())
    first, second = devices
    first.opens(("a", "1"))  # type: ignore[arg-type]
    assert devices.best((INFO.reference_id, INFO.revision)) is second


async def test_a_device_that_is_lost_is_left_out_and_without_any_the_engine_is_lost() -> None:
    one, other = FakeLink(), FakeLink()
    devices = devices_of(one, other)
    async with devices.hold(INFO) as held:
        pin = await held.pin()
        cast(FakeLink, pin.device.link).is_lost = True
        again = await held.pin()
        assert again.device is not pin.device
        cast(FakeLink, again.device.link).is_lost = True
        with pytest.raises(EngineLostError):
            await held.pin()


async def test_a_device_that_has_lost_the_engine_is_not_asked_again_and_again() -> None:
    one, other = FakeLink(), FakeLink()
    one.error = EngineLostError()
    devices = devices_of(one, other)
    async with asyncio.timeout(10), devices.hold(INFO) as held:
        assert cast(FakeLink, (await held.pin()).device.link) is other
        other.is_lost = True
        with pytest.raises(EngineLostError):
            await held.pin()


async def test_a_bank_that_cannot_be_opened_is_an_error_that_is_not_remembered() -> None:
    link = FakeLink()
    devices = devices_of(link)
    link.error = MemoryBudgetError("too large")
    with pytest.raises(MemoryBudgetError):
        async with devices.hold(INFO):
            pass
    link.error = None
    async with devices.hold(INFO):
        assert link.pinned
    assert not link.pinned
