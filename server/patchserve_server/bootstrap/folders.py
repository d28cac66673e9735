"""Folders of the server beside its references."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from patchserve_server.config import Settings
from patchserve_server.domain.errors import StartupError
from patchserve_server.system.cache_folder import user_cache_folder

NETWORKS: Final = ".networks"  # in the store; no reference_id starts with a dot
MEASUREMENTS: Final = ".measurements"


def networks_folder(settings: Settings) -> Path | None:
    """Where quantized networks are kept; None: they are not."""
    folder = own_folder(settings)
    return None if folder is None else folder / NETWORKS


def measurements_folder(settings: Settings) -> Path | None:
    """Where measurements are kept; None: they are not."""
    folder = own_folder(settings)
    return user_cache_folder("measurements") if folder is None else folder / MEASUREMENTS


def own_folder(settings: Settings) -> Path | None:
    """A folder of this server that is kept over restarts: its store, or beside a shared one its cache; None: none."""
    return settings.store_folder if settings.store_url is None else store_cache_folder(settings)


def store_cache_folder(settings: Settings) -> Path:
    """Where copies of what is in a shared store are kept.

    Raises:
        StartupError: there is no folder for them.
    """
    folder = settings.store_cache or user_cache_folder("store")
    if folder is None:
        raise StartupError("The server's user has no home folder: name a folder with --store-cache.")
    return folder
