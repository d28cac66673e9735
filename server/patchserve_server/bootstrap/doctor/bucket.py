"""The bucket of a store that several servers share."""

from __future__ import annotations

import statistics
import time
from collections.abc import Iterator
from contextlib import closing
from typing import Final

from patchserve_server.bootstrap.doctor.finding import Finding, fault, ok, warning
from patchserve_server.domain.errors import PatchserveError, StartupError, StorageUnavailableError
from patchserve_server.store.objects import ObjectStorage, open_object_storage, probe
from patchserve_server.store.objects.store_file import read_store_file

_REQUESTS: Final = 5
_SLOW_MS: Final = 500.0  # a change makes about eight requests, one after the other


def check_bucket(url: str) -> Iterator[Finding]:
    """Whether it can be reached, permits what a server does, keeps the conditions of writes, and answers fast.

    What is written to find that out is deleted again.
    """
    try:
        with closing(open_object_storage(url)) as storage:
            yield from _check(url, storage)
    except StartupError as error:
        yield fault("store", error.message, "Correct --store, or the variables of its provider: see docs/stores.md.")
    except StorageUnavailableError as error:
        advice = "Check the network, the name of the bucket, and the credentials with their rights: see docs/stores.md."
        yield fault("store", f"{url}: {error.message}", advice)
    except PatchserveError as error:
        yield fault("store", f"{url}: {error.message}", "Choose another prefix for --store.")


def _check(url: str, storage: ObjectStorage) -> Iterator[Finding]:
    found, times_ms = read_store_file(storage), []
    for _ in range(_REQUESTS):
        started_at_s = time.perf_counter()
        read_store_file(storage)
        times_ms.append(1000 * (time.perf_counter() - started_at_s))
    state = "the first start makes a store of it" if found is None else f"store {found.store_id[:8]}"
    yield ok("store", f"{url} ({storage.service}): {state}")
    probe(storage)
    yield ok("conditions", "writes that must not overwrite anything are refused where they would")
    time_ms = statistics.median(times_ms)
    if time_ms > _SLOW_MS:
        advice = "Put the bucket into the region of the servers: a change makes about eight requests."
        yield warning("latency", f"a small read takes {time_ms:.0f} ms", advice)
    else:
        yield ok("latency", f"a small read takes {time_ms:.1f} ms")
