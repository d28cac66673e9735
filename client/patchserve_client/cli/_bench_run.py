"""The work of `patchserve bench`: connections, requests, steps."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from threading import Event
from typing import Final

from patchserve_client import _calls
from patchserve_client._counted import counted
from patchserve_client.bench.load import Connection, Load, StreamLoad, UnaryLoad
from patchserve_client.bench.measuring import Measuring, Plan
from patchserve_client.bench.search import find_limit
from patchserve_client.bench.serial import serial_latency_s
from patchserve_client.cli._bench_report import BenchReport
from patchserve_client.cli._connection import Settings
from patchserve_client.cli._image_files import images_in, read_image
from patchserve_client.cli._output import print_note

_MAX_IMAGE_BYTES: Final = 256 * 2**20  # of all images, and of all requests on their way
_MAX_OUTSTANDING: Final = 5000
_TIMEOUT_S: Final = 10.0
_START_SHARE: Final = 0.25


@dataclass(frozen=True, slots=True)
class Request:
    """What is sent."""

    reference_id: str
    images: Sequence[bytes] = field(repr=False)
    channels: int
    is_stream: bool
    overlay: bool

    @property
    def max_outstanding(self) -> int:
        """How many requests may be on their way, so that memory is bounded."""
        mean_bytes = sum(map(len, self.images)) / len(self.images)
        return int(min(_MAX_OUTSTANDING, max(64, _MAX_IMAGE_BYTES / mean_bytes)))


def read_images(arguments: Iterable[str]) -> list[bytes]:
    """The images of the command line, as many as may be in memory.

    Raises:
        OSError: one cannot be read.
    """
    files = images_in(arguments)
    images: list[bytes] = []
    size_bytes = 0
    for file in files:
        images.append(read_image(file))
        size_bytes += len(images[-1])
        if size_bytes > _MAX_IMAGE_BYTES:
            print_note(f"Note: only {counted(len(images), 'image')} of {len(files)}: they are kept in memory.")
            break
    return images


async def measure(settings: Settings, request: Request, plan: Plan, report: BenchReport, end: Event) -> None:
    """Measure, and tell the report of each step.

    Raises:
        PatchserveError: the server does not inspect the images, with no load at all.
    """
    async with contextlib.AsyncExitStack() as cleanup:
        connections = [
            await cleanup.enter_async_context(settings.client_of(Connection)) for _ in range(request.channels)
        ]
        report.begin(await connections[0].server_info())
        timeout_s = settings.timeout or _TIMEOUT_S
        calls = [
            _calls.infer(image, request.reference_id, {"overlay": request.overlay, "max_regions": 0})
            for image in request.images
        ]
        latency_s = await serial_latency_s(connections, calls, timeout_s)
        if plan.start_rate is None:
            plan = replace(plan, start_rate=max(_START_SHARE / latency_s, 0.1))
        load: Load = UnaryLoad(connections, calls, timeout_s, request.max_outstanding)
        if request.is_stream:
            load = StreamLoad(connections, request.images, request.reference_id, request.overlay, timeout_s)
        measuring = Measuring(plan, load, end, report.step)
        await find_limit(measuring.measure, plan.start_rate or 1.0, plan.max_rate)
