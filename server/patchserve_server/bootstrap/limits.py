"""The limits of the server, from its settings, and the admissions that enforce some of them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from patchserve_server.config import Settings
from patchserve_server.domain.events import Events
from patchserve_server.imaging import MAX_SIDE_PX
from patchserve_server.rpc.reading import ReadingLimits
from patchserve_server.serving.admission import Admission, Capacity
from patchserve_server.serving.application import ServerLimits
from patchserve_server.serving.ledger import Ledger
from patchserve_server.system.limits import open_files_limit

MIB = 2**20
_MIN_LARGE_PLACES = 6
_EXTRA_CONNECTIONS = 64
_LARGEST_BATCH = 8
_LARGEST_BATCH_OF_GPU = 64  # the largest pass of the network there


@dataclass(frozen=True, slots=True)
class Admissions:
    """The admissions for calls, images and loads."""

    calls: Admission
    images: Admission
    loads: Admission

    def grant_pending(self) -> None:
        """Grants what waits and fits now: another process has released something."""
        for admission in (self.calls, self.images, self.loads):
            admission.grant_pending()


def open_admissions(
    settings: Settings, events: Events, ledgers: Callable[[int], Ledger | None] = lambda _: None
) -> Admissions:
    """The admissions. `ledgers`: those that are shared with other processes, by number."""
    share, single, message = settings.client_share, Capacity(1), Capacity(1, settings.max_message_mib * MIB)
    images = image_capacity(settings)
    return Admissions(
        calls=Admission("call", Capacity(settings.max_calls), share=share, largest=single, ledger=ledgers(0)),
        images=Admission("image", images, share=share, largest=message, on_rejection=events.refused, ledger=ledgers(1)),
        loads=Admission("load", Capacity(settings.max_pending_loads), share=share, largest=single, ledger=ledgers(2)),
    )


def image_capacity(settings: Settings) -> Capacity:
    """What all images in progress may hold together; at least one largest message."""
    return Capacity(settings.max_pending_images, MIB * max(settings.max_pending_mib, settings.max_message_mib))


def batch_size(settings: Settings, device: str) -> int:
    """The largest number of images in a batch on this device.

    A CPU runs as many images at a time as it has threads. More of them in a batch save nothing, and are all answered
    as late as the last one.
    """
    if settings.max_batch_size is not None:
        return settings.max_batch_size
    return (
        min(_LARGEST_BATCH, max(_LARGEST_BATCH // 2, 2 * settings.threads))
        if device == "cpu"
        else _LARGEST_BATCH_OF_GPU
    )


def images_in_progress(settings: Settings, max_batch_size: int, *, decode: str) -> int:
    """How many images are processed at once. `decode`: where, as `DetectorInfo.decode`.

    Enough for the running batch, the next one, and the threads that decode and draw. A device that draws has one more
    batch of them.
    """
    batches = 3 if decode == "device" else 2
    return batches * max_batch_size + 2 * settings.threads


def server_limits(settings: Settings, admissions: Admissions, *, max_batch_size: int) -> ServerLimits:
    return ServerLimits(
        max_image_bytes=settings.max_image_mib * MIB,
        max_image_pixels=settings.max_image_megapixels * 1_000_000,
        max_image_side_px=MAX_SIDE_PX,
        max_message_bytes=settings.max_message_mib * MIB,
        max_reference_images=settings.max_reference_images,
        max_pending_images=settings.max_pending_images,
        max_in_flight=settings.max_in_flight,
        default_in_flight=min(settings.default_in_flight, settings.max_in_flight),
        default_timeout_s=settings.default_timeout_s,
        load_timeout_s=settings.load_timeout_s,
        max_bank_bytes=settings.max_bank_mib * MIB,
        max_pending_bytes=admissions.images.limit.bytes,
        max_pending_loads=settings.max_pending_loads,
        max_calls=settings.max_calls,
        max_batch_size=max_batch_size,
        stream_write_timeout_s=settings.stream_write_timeout_s,
        max_client_pending_images=admissions.images.client_limit.count,
        max_client_pending_bytes=admissions.images.client_limit.bytes,
        max_client_pending_loads=admissions.loads.client_limit.count,
        max_client_calls=admissions.calls.client_limit.count,
        max_connection_age_s=settings.max_connection_age_s,
        max_timeout_s=settings.max_timeout_s,
        max_load_timeout_s=settings.max_load_timeout_s,
        first_message_timeout_s=settings.first_message_timeout_s,
        max_idle_streams=settings.max_idle_streams,
    )


def reading_limits(settings: Settings) -> ReadingLimits:
    return ReadingLimits(
        settings.first_message_timeout_s,
        settings.max_calls,
        # As many of the largest messages as may be in progress, and a few more: most messages are smaller.
        large_places=max(_MIN_LARGE_PLACES, settings.max_pending_mib // settings.max_message_mib + 2),
        shares_places=settings.client_share < 1,
    )


def http_connections(settings: Settings) -> int:
    """How many connections the HTTP face takes: one for each call, and more, so that others are told that it is full.

    At most half of the files that the process may open: the others are for gRPC and the store.
    """
    wanted = settings.max_calls + _EXTRA_CONNECTIONS
    files = open_files_limit()
    return wanted if files is None else min(wanted, max(2, files // 2))
