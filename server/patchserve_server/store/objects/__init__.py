"""One bucket of an object store: a port, and its implementations."""

from patchserve_server.store.objects.memory import MemoryObjectStorage
from patchserve_server.store.objects.opening import open_object_storage
from patchserve_server.store.objects.probe import probe
from patchserve_server.store.objects.storage import (
    ListedObject,
    ObjectChangedError,
    ObjectError,
    ObjectExistsError,
    ObjectMissingError,
    ObjectStorage,
    ObjectTooLargeError,
    StoredObject,
    Version,
)

__all__ = [
    "ListedObject",
    "MemoryObjectStorage",
    "ObjectChangedError",
    "ObjectError",
    "ObjectExistsError",
    "ObjectMissingError",
    "ObjectStorage",
    "ObjectTooLargeError",
    "StoredObject",
    "Version",
    "open_object_storage",
    "probe",
]
