"""Folders of the server beside its references."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from patchserve_server.config import Settings

NETWORKS: Final = ".networks"  # in the store; no reference_id starts with a dot
MEASUREMENTS: Final = ".measurements"


def networks_folder(settings: Settings) -> Path | None:
    """Where quantized networks are kept; None: they are not."""
    return None if settings.store is None else settings.store / NETWORKS


def measurements_folder(settings: Settings) -> Path | None:
    """Where measurements are kept; None: they are not."""
    from patchserve_server.engine.measurements import user_cache_folder  # noqa: PLC0415 - imports torch

    return user_cache_folder() if settings.store is None else settings.store / MEASUREMENTS
