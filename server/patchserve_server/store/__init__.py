"""Where references live beyond a call: in memory, or on disk as docs/format.md states."""

from patchserve_server.store.disk import DiskReferenceStore
from patchserve_server.store.memory import MemoryReferenceStore

__all__ = ["DiskReferenceStore", "MemoryReferenceStore"]
