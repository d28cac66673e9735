"""Opens the store of references and the catalog over it."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Final, TypeAlias, TypeVar, cast

from patchserve_server.bootstrap.folders import store_cache_folder
from patchserve_server.bootstrap.pools import Pools
from patchserve_server.config import Settings
from patchserve_server.domain.errors import StartupError, StorageUnavailableError
from patchserve_server.domain.ports import Detector
from patchserve_server.domain.words import counted
from patchserve_server.fronts.connected_fronts import ConnectedFronts
from patchserve_server.serving.catalog import Catalog
from patchserve_server.serving.observation import Observation
from patchserve_server.serving.observed_store import ObservedSharedReferences, ObservedStore
from patchserve_server.serving.shared_store_view import SharedStoreView, Sharing
from patchserve_server.serving.store_sync import StoreSync
from patchserve_server.store import FolderReferenceStore, MemoryReferenceStore
from patchserve_server.store.objects import open_object_storage
from patchserve_server.store.shared import DigestCache, SharedReferenceStore

START_PATIENCE_S: Final = 30.0
_RETRY_S: Final = 1.0
_MIB: Final = 2**20

T = TypeVar("T")
_CatalogOf: TypeAlias = Callable[..., Catalog]

_log = logging.getLogger(__name__)


async def open_catalog(
    settings: Settings,
    detector: Detector,
    pools: Pools,
    resources: ExitStack,
    *,
    max_bytes: int,
    observation: Observation,
    fronts: ConnectedFronts | None = None,
) -> Catalog:
    """The catalog of all references of the store. Of an engine process: with its fronts. `resources` closes the store.

    Raises:
        StartupError: the store cannot be used.
    """
    catalog_of = partial(
        Catalog,
        detector=detector,
        storage=pools.storage,
        opening=pools.opening,
        max_bytes=max_bytes,
        events=observation.events,
        known=None if fronts is None else fronts.known,
        everybody_knows=None if fronts is None else fronts.everybody_knows,
    )
    if settings.store_url is not None:
        return await _open_shared(
            settings.store_url, settings, catalog_of, pools, resources=resources, observation=observation
        )
    _warn_of_unused_cache(settings)
    loop = asyncio.get_running_loop()
    store = await loop.run_in_executor(pools.storage, _open_own, settings.store_folder, resources)
    catalog = catalog_of(ObservedStore(store, observation.events))
    await catalog.load_all()
    if settings.store_folder is not None:
        damaged = f", {catalog.damaged_count} of them damaged" if catalog.damaged_count else ""
        found = counted(catalog.usable_count + catalog.damaged_count, "reference")
        _log.info("Found %s in %s%s; %d open", found, settings.store_folder, damaged, len(catalog.open_ids()))
    return catalog


def _warn_of_unused_cache(settings: Settings) -> None:
    # Not what is set: the processes of a server give each other all settings.
    fields = type(settings).model_fields
    unused = [name for name in ("store_cache", "store_cache_mib") if getattr(settings, name) != fields[name].default]
    if unused:
        flags = " and ".join(f"--{name.replace('_', '-')}" for name in unused)
        store = "no --store" if settings.store_folder is None else f"the folder {settings.store_folder}"
        _log.warning("No effect of %s with %s: only what is read from a bucket is copied there", flags, store)


def _open_own(folder: Path | None, resources: ExitStack) -> MemoryReferenceStore | FolderReferenceStore:
    if folder is None:
        _log.info("References are kept in memory only; --store keeps them over a restart")
        return MemoryReferenceStore()
    store = FolderReferenceStore(folder)
    resources.callback(store.close)
    return store


async def _open_shared(
    url: str,
    settings: Settings,
    catalog_of: _CatalogOf,
    pools: Pools,
    *,
    resources: ExitStack,
    observation: Observation,
) -> Catalog:
    loop = asyncio.get_running_loop()
    store = await loop.run_in_executor(pools.storage, _open_bucket, url, settings, resources)
    shared = ObservedSharedReferences(store, observation.events)
    sharing = Sharing(url, shared, pools.polling, pools.looking_up)
    catalog = catalog_of(ObservedStore(store, observation.events), sharing=sharing)
    view = cast(SharedStoreView, catalog.shared)
    await _reached(url, view.poll)
    _log.info("Found %s in %s", counted(catalog.usable_count, "reference"), url)
    sync = asyncio.create_task(StoreSync(sharing, view, pools.maintaining).run())
    resources.callback(sync.cancel)
    return catalog


def _open_bucket(url: str, settings: Settings, resources: ExitStack) -> SharedReferenceStore:
    folder = store_cache_folder(settings)
    try:
        cache = DigestCache(folder, settings.store_cache_mib * _MIB)
    except OSError as error:
        message = f"--store-cache {folder}: {error.strerror}. Name a folder that the server's user can write to."
        raise StartupError(message) from error
    store = SharedReferenceStore(open_object_storage(url), cache)
    resources.callback(store.close)
    return store


async def _reached(name: str, attempt: Callable[[], Awaitable[T]]) -> T:
    """What an attempt returns. It is repeated for a while if the store cannot be reached; not if there is none.

    Raises:
        StartupError: the store cannot be reached, or not be used.
    """
    give_up_at_s, is_first = time.monotonic() + START_PATIENCE_S, True
    while True:
        try:
            return await attempt()
        except StorageUnavailableError as error:
            if error.is_absent:
                raise StartupError(
                    f"--store {name}: {error.message} Create it, or correct its name, the region or the endpoint: the "
                    "variables of the provider are in docs/stores.md."
                ) from error
            if time.monotonic() + _RETRY_S > give_up_at_s:
                raise StartupError(
                    f"--store {name}: {error.message} The server has tried for {START_PATIENCE_S:g} s. "
                    "`patchserve-server doctor` says what is wrong."
                ) from error
            if is_first:
                _log.warning("The store %s cannot be reached, which is tried again: %s", name, error.message)
            is_first = False
            await asyncio.sleep(_RETRY_S)
