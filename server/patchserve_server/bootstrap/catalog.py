"""Opens the store of references and the catalog over it."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Final

from patchserve_server.bootstrap.pools import Pools
from patchserve_server.config import Settings
from patchserve_server.domain.ports import Detector
from patchserve_server.domain.store_status import FOLDER, MEMORY
from patchserve_server.domain.words import counted
from patchserve_server.fronts.connected_fronts import ConnectedFronts
from patchserve_server.serving.catalog import Catalog
from patchserve_server.serving.observation import Observation
from patchserve_server.serving.observed_store import ObservedSharedReferences, ObservedStore
from patchserve_server.serving.shared_store_view import Sharing
from patchserve_server.serving.store_sync import StoreSync
from patchserve_server.store import FolderReferenceStore, MemoryReferenceStore

_MIB: Final = 2**20

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
        return await _open_shared(settings.store_url, settings, catalog_of, pools, resources, observation)
    loop = asyncio.get_running_loop()
    store = await loop.run_in_executor(pools.storage, _open_own, settings.store_folder, resources)
    status = MEMORY if settings.store_folder is None else FOLDER
    catalog = catalog_of(ObservedStore(store, observation.events), status=lambda: status)
    await catalog.load_all()
    if settings.store_folder is not None:
        damaged = f", {catalog.damaged_count} of them damaged" if catalog.damaged_count else ""
        found = counted(catalog.usable_count + catalog.damaged_count, "reference")
        _log.info("Found %s in %s%s; %d open", found, settings.store_folder, damaged, len(catalog.open_ids()))
    return catalog


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
    catalog_of: Callable[..., Catalog],
    pools: Pools,
    resources: ExitStack,
    observation: Observation,
) -> Catalog:
    store = await _reached(partial(_open_bucket, url, settings, resources), pools)
    shared = ObservedSharedReferences(store, observation.events)
    sharing = Sharing(shared, pools.polling, pools.looking_up)
    catalog = catalog_of(ObservedStore(store, observation.events), sharing=sharing)
    sync = StoreSync(url, shared, catalog.shared, pools.maintaining)
    await sync.begin()
    return catalog
