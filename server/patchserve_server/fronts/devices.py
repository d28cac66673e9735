"""The devices of an engine, each in a process of its own, as a front uses them: the one with least to do is next."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator, Callable, Collection, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Final

from patchserve_server.domain.errors import EngineLostError
from patchserve_server.domain.reference import ReferenceInfo
from patchserve_server.domain.reference_id import ReferenceId, Revision
from patchserve_server.fronts.link import Link
from patchserve_server.fronts.pixels import SharedPixels
from patchserve_server.serving.tasks import retrieve_error

_REMEMBERED: Final = 4096

Key = tuple[ReferenceId, Revision]


class Device:
    """One process with a device, connected to this front."""

    def __init__(self, link: Link, pixels: SharedPixels | None) -> None:
        self.link = link
        self.pixels = pixels  # shared with it alone; None: it is on another machine
        self.in_progress = 0  # images and drawings of this front
        self._opened: dict[Key, None] = {}  # what it was asked to open, the last one last

    def opens(self, key: Key) -> None:
        """Remembers that a revision is open there, until it has not been used for long."""
        self._opened.pop(key, None)
        self._opened[key] = None
        if len(self._opened) > _REMEMBERED:
            del self._opened[next(iter(self._opened))]

    def cost(self, key: Key, spread: int) -> tuple[int, int]:
        """The less, the better: what there is to do, and how many banks are there already."""
        return self.in_progress + (0 if key in self._opened else spread), len(self._opened)


@dataclass(slots=True, eq=False)
class Pin:
    """A revision that a device has open for this front, or opens."""

    device: Device
    number: int
    opening: asyncio.Task[None]

    @property
    def is_open(self) -> bool:
        return self.opening.done() and not self.opening.cancelled() and self.opening.exception() is None


class HeldRevision:
    """A revision in use by this front: pinned on one device or more, for all its users."""

    def __init__(self, devices: Devices, info: ReferenceInfo) -> None:
        self._devices = devices
        self.info = info
        self.users = 0
        self._pins: dict[Device, Pin] = {}

    @property
    def _key(self) -> Key:
        return self.info.reference_id, self.info.revision

    async def pin(self) -> Pin:
        """The pin on the device that has least to do, of those that have it open. One opens it if none has.

        Raises:
            EngineLostError: there is no device.
            The errors of Catalog.use.
        """
        failed = set[Device]()
        while True:
            pins = [pin for pin in self._pins.values() if not pin.device.link.is_lost]
            is_open = [pin for pin in pins if pin.is_open]
            if is_open:
                best = min(is_open, key=lambda pin: pin.device.in_progress)
                self._open_elsewhere(best.device.in_progress)
                return best
            pin = pins[0] if pins else self._begin(self._devices.best(self._key, failed))
            try:
                await asyncio.shield(pin.opening)
            except EngineLostError:  # the device has ended, or has lost the engine that keeps the references
                self._drop(pin)
                failed.add(pin.device)
            except BaseException:
                if pin.opening.done():
                    self._drop(pin)
                raise

    def _open_elsewhere(self, in_progress: int) -> None:
        """Lets another device open it as well, if that has so much less to do."""
        others = [device for device in self._devices if device not in self._pins]
        spread = self._devices.spread
        best = min(others, key=lambda device: device.cost(self._key, spread), default=None)
        if best is not None and in_progress >= best.cost(self._key, spread)[0]:
            self._begin(best)

    def _begin(self, device: Device) -> Pin:
        number, (reference_id, revision) = self._devices.next_number(), self._key
        request = {"do": "pin", "pin": number, "id": reference_id, "revision": revision}

        async def open_reference() -> None:
            await device.link.ask(request)

        opening = asyncio.create_task(open_reference())
        opening.add_done_callback(retrieve_error)
        pin = self._pins[device] = Pin(device, number, opening)
        device.opens(self._key)
        return pin

    def _drop(self, pin: Pin) -> None:
        if self._pins.get(pin.device) is pin:
            del self._pins[pin.device]

    def unpin(self) -> None:
        """Its last user has left."""
        for pin in self._pins.values():
            pin.opening.cancel()  # does nothing if it is done
            pin.device.link.tell({"tell": "unpin", "pin": pin.number})
        self._pins.clear()


class Devices:
    """All devices that are connected to this front.

    `spread` is the number of images by which a device must have less to do before a bank is opened there as well.
    """

    def __init__(self) -> None:
        self.spread = 8
        self._devices: list[Device] = []
        self._held: dict[Key, HeldRevision] = {}
        self.next_number: Callable[[], int] = itertools.count(1).__next__

    def __iter__(self) -> Iterator[Device]:
        return (device for device in self._devices if not device.link.is_lost)

    def add(self, link: Link, pixels: SharedPixels | None) -> None:
        """Uses another device from now on. One whose link has ended is forgotten."""
        self._devices = [*self, Device(link, pixels)]

    def best(self, key: Key, without: Collection[Device] = ()) -> Device:
        """The device that has least to do, and rather one that has the bank already.

        Raises:
            EngineLostError: there is none.
        """
        found = (device for device in self if device not in without)
        device = min(found, key=lambda device: device.cost(key, self.spread), default=None)
        if device is None:
            raise EngineLostError
        return device

    def least_busy(self) -> Device:
        """The device that has least to do.

        Raises:
            EngineLostError: there is none.
        """
        device = min(self, key=lambda device: device.in_progress, default=None)
        if device is None:
            raise EngineLostError
        return device

    @asynccontextmanager
    async def hold(self, info: ReferenceInfo) -> AsyncIterator[HeldRevision]:
        """A revision, opened by a device first if needed. It stays open until the block ends.

        Raises:
            The errors of HeldRevision.pin.
        """
        key = info.reference_id, info.revision
        held = self._held.get(key)
        if held is None:
            held = self._held[key] = HeldRevision(self, info)
        held.users += 1
        try:
            await held.pin()
            yield held
        finally:
            held.users -= 1
            if not held.users:
                if self._held.get(key) is held:
                    del self._held[key]
                held.unpin()
            del held  # an error of its tasks may refer to this frame: a cycle
