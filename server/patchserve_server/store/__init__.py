"""Stores of references: in memory, or in a folder as docs/format.md specifies."""

from patchserve_server.store.folder import FolderReferenceStore
from patchserve_server.store.memory import MemoryReferenceStore

__all__ = ["FolderReferenceStore", "MemoryReferenceStore"]
