"""What can be read of an engine: its references, their memory, its queue, its device."""

from __future__ import annotations

from collections.abc import Iterator

from patchserve_server.domain.ports import Detector
from patchserve_server.domain.readings import Reading, Source
from patchserve_server.serving import process_memory
from patchserve_server.serving.batching import Batcher
from patchserve_server.serving.catalog import Catalog
from patchserve_server.serving.drawing import BatchedDrawing


def engine_readings(
    detector: Detector, catalog: Catalog, batcher: Batcher, drawing: BatchedDrawing | None, max_bank_bytes: int
) -> Source:
    """Reads an engine with this limit for open references."""

    def read() -> Iterator[Reading]:
        yield from _references(catalog)
        for state, nbytes in catalog.bytes_by_state().items():
            yield Reading("bank_bytes", nbytes, (state,))
        yield Reading("bank_limit_bytes", max_bank_bytes)
        yield Reading("store_synced_age_seconds", catalog.store_synced_age_s)
        yield Reading("queue_images", batcher.waiting + (0 if drawing is None else drawing.waiting))
        yield from _device_memory(detector)

    return read


def _references(catalog: Catalog) -> Iterator[Reading]:
    open_count, mismatched = len(catalog.open_ids()), catalog.mismatched_count
    closed = max(0, catalog.usable_count - open_count - mismatched)
    counts = {"open": open_count, "closed": closed, "mismatched": mismatched, "damaged": catalog.damaged_count}
    for state, count in counts.items():
        yield Reading("references", count, (state,))


def _device_memory(detector: Detector) -> Iterator[Reading]:
    memory, device = detector.device_memory(), detector.info.device
    kinds = {"used": process_memory.used_bytes(), "total": process_memory.total_bytes()}
    if memory is not None:
        kinds = {"used": memory.used_bytes, "free": memory.free_bytes, "total": memory.total_bytes}
    for kind, nbytes in kinds.items():
        if nbytes is not None:
            yield Reading("device_memory_bytes", nbytes, (device, kind))
