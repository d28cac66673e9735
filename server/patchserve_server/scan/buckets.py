"""Images and results in buckets, by their URLs."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import ExitStack
from typing import Final, Self

from patchserve_server.imaging import ImageLimits
from patchserve_server.scan.errors import UnreadableImageError
from patchserve_server.store.objects import (
    ObjectMissingError,
    ObjectStorage,
    ObjectTooLargeError,
    open_object_storage,
)
from patchserve_server.store.objects.retrying import RetryPolicy

_PATIENCE: Final = RetryPolicy(deadline_s=300.0)  # a scan of hours does not end with a pause of the service


def open_bucket(url: str) -> ObjectStorage:
    """The objects below a URL.

    Raises:
        StartupError: the URL is wrong, or the extra `store` is missing.
    """
    return open_object_storage(url, _PATIENCE)


class Buckets:
    """The buckets that URLs name, each opened once. Closed at the end of the block."""

    def __init__(self) -> None:
        self._open: dict[str, ObjectStorage] = {}
        self._opening = threading.Lock()
        self._resources = ExitStack()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._resources.close()

    def keys(self, url: str) -> Iterator[str]:
        """The keys of the objects below a URL, in their order.

        Raises:
            ScanError, StorageUnavailableError: they cannot be listed.
        """
        bucket, prefix = _split(url)
        return (found.key for found in self._bucket(bucket).list(f"{prefix}/" if prefix else ""))

    def read(self, url: str, limits: ImageLimits) -> bytes:
        """The bytes of an object.

        Raises:
            UnreadableImageError: it does not exist.
            ImageTooLargeError: it has more bytes than allowed.
            StorageUnavailableError: the bucket does not answer.
        """
        name, key = _split(url)
        bucket = self._bucket(name)
        try:
            found = bucket.get(key, max_bytes=limits.max_bytes)
        except ObjectMissingError as error:
            raise UnreadableImageError("It cannot be read: there is no such object.") from error
        except ObjectTooLargeError as error:
            size = bucket.find(key)
            limits.check_bytes(limits.max_bytes + 1 if size is None else size.size_bytes)
            raise UnreadableImageError("It cannot be read: it changes meanwhile.") from error
        if found is None:
            raise AssertionError("No version was excluded.")
        return found.data

    def _bucket(self, url: str) -> ObjectStorage:
        with self._opening:
            if url not in self._open:
                self._open[url] = bucket = open_bucket(url)
                self._resources.callback(bucket.close)
            return self._open[url]


def _split(url: str) -> tuple[str, str]:
    """The bucket's URL, and what follows: any characters, which the URL of a store may not have."""
    scheme, _, rest = url.partition("://")
    name, _, key = rest.partition("/")
    return f"{scheme}://{name}", key
