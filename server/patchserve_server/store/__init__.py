"""Stores of references: in memory, or in a folder as docs/format.md specifies."""

from patchserve_server.store.check import CheckedGeneration, CheckedReference, check_store, look_at_store
from patchserve_server.store.exported import ExportedFiles
from patchserve_server.store.folder import FolderReferenceStore
from patchserve_server.store.folder_lock import is_locked
from patchserve_server.store.memory import MemoryReferenceStore
from patchserve_server.store.reading import read_reference
from patchserve_server.store.restore import restore

__all__ = [
    "CheckedGeneration",
    "CheckedReference",
    "ExportedFiles",
    "FolderReferenceStore",
    "MemoryReferenceStore",
    "check_store",
    "is_locked",
    "look_at_store",
    "read_reference",
    "restore",
]
