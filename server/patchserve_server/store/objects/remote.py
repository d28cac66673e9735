"""Objects in Amazon S3 and what speaks its protocol, Google Cloud Storage and Azure Blob Storage."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import UTC
from functools import partial
from mmap import mmap
from pathlib import Path
from typing import TYPE_CHECKING, Final

import obstore

from patchserve_server.store.objects.download import Download
from patchserve_server.store.objects.problems import Kind
from patchserve_server.store.objects.requests import FailedRequestError, request
from patchserve_server.store.objects.retrying import Retrying, unavailable
from patchserve_server.store.objects.storage import (
    ListedObject,
    ObjectChangedError,
    ObjectExistsError,
    ObjectMissingError,
    ObjectTooLargeError,
    StoredObject,
    Version,
)
from patchserve_server.store.objects.transfer import Clients, Pages, content_of, transfer_s

if TYPE_CHECKING:
    from obstore import GetOptions, ObjectMeta, PutMode, PutResult, UpdateVersion

_COPIED_BYTES: Final = 1 << 30  # what a copy within the service is given time for


class RemoteObjectStorage:
    """An ObjectStorage that obstore reaches over HTTP."""

    def __init__(self, name: str, service: str, clients: Clients, retrying: Retrying) -> None:
        self._name, self._service = name, service
        self._clients, self._retrying = clients, retrying

    @property
    def name(self) -> str:
        return self._name

    @property
    def service(self) -> str:
        return self._service

    def get(self, key: str, *, max_bytes: int, unless: Version | None = None) -> StoredObject | None:
        options: GetOptions = {"if_none_match": unless.e_tag} if unless is not None and unless.e_tag else {}
        with _errors("read", key):
            try:
                found = self._retrying.call("read", lambda _: self._get(key, max_bytes, options))
            except FailedRequestError as failed:
                if failed.kind is Kind.UNCHANGED:
                    return None
                raise
        return None if unless is not None and found.version.is_same(unless) else found

    def get_to_file(self, key: str, path: Path, *, max_bytes: int) -> None:
        with _errors("read", key), path.open("wb") as file:
            download = Download(key, file, max_bytes)
            attempt = partial(download.run, self._clients.reader)
            self._retrying.call("read", lambda _: attempt(), extra_s=transfer_s(max_bytes))

    def find(self, key: str) -> ListedObject | None:
        try:
            with _errors("read", key):
                return _listed(
                    self._retrying.call("read", lambda _: request(partial(obstore.head, self._clients.reader, key)))
                )
        except ObjectMissingError:
            return None

    def create(self, key: str, data: bytes) -> Version:
        def attempt(is_retry: bool) -> Version:
            try:
                return self._put(key, data, "create")
            except ObjectExistsError:
                if is_retry and (written := self._version_of(key, data)) is not None:
                    return written
                raise

        return self._write(key, len(data), attempt)

    def create_from_file(self, key: str, path: Path) -> Version:
        with content_of(path) as data:
            return self._write(key, len(data), lambda _: self._put(key, data, "create"))

    def replace(self, key: str, data: bytes, version: Version) -> Version:
        mode: UpdateVersion = {}
        if version.e_tag is not None:
            mode["e_tag"] = version.e_tag
        if version.version is not None:
            mode["version"] = version.version

        def attempt(is_retry: bool) -> Version:
            try:
                return self._put(key, data, mode)
            except (ObjectChangedError, ObjectMissingError):
                if is_retry and (written := self._version_of(key, data)) is not None:
                    return written
                raise ObjectChangedError(key, may_have_been_written=is_retry) from None

        return self._write(key, len(data), attempt)

    def put(self, key: str, data: bytes) -> Version:
        return self._write(key, len(data), lambda _: self._put(key, data, "overwrite"))

    def put_from_file(self, key: str, path: Path) -> Version:
        with content_of(path) as data:
            return self._write(key, len(data), lambda _: self._put(key, data, "overwrite"))

    def copy(self, key: str, new_key: str) -> None:
        client = self._clients.writer(_COPIED_BYTES)
        with _errors("written", key):
            copy = partial(obstore.copy, client, key, new_key)
            self._retrying.call("written", lambda _: request(copy), extra_s=transfer_s(_COPIED_BYTES))

    def delete(self, key: str) -> None:
        with suppress(ObjectMissingError), _errors("written", key):
            delete = partial(obstore.delete, self._clients.writer(0), key)
            self._retrying.call("written", lambda _: request(delete))

    def list(self, prefix: str) -> Iterator[ListedObject]:
        pages = Pages(self._clients.reader, prefix)
        while True:
            with _errors("listed", prefix):
                page = self._retrying.call("listed", lambda _: pages.next())
            if not page:
                return
            # A folder marker, as consoles of providers make them, comes as an object with the name of the folder.
            yield from (_listed(meta) for meta in page if meta["path"].startswith(prefix))

    def close(self) -> None:
        self._retrying.close()

    def _get(self, key: str, max_bytes: int, options: GetOptions) -> StoredObject:
        def read() -> StoredObject:
            result = obstore.get(self._clients.reader, key, options=options)
            if result.meta["size"] > max_bytes:
                raise ObjectTooLargeError(key, max_bytes)
            return StoredObject(bytes(result.bytes()), _version(result.meta))

        return request(read)

    def _put(self, key: str, data: bytes | mmap, mode: PutMode) -> Version:
        client = self._clients.writer(len(data))
        try:
            return _version(request(lambda: obstore.put(client, key, data, mode=mode, use_multipart=False)))
        except FailedRequestError as failed:
            if failed.kind is Kind.EXISTS:
                raise ObjectExistsError(key) from None
            if failed.kind is Kind.CHANGED:
                raise ObjectChangedError(key) from None
            raise

    def _version_of(self, key: str, data: bytes) -> Version | None:
        """The version of the stored object if it has this content."""
        try:
            stored = self._get(key, len(data), {})
        except ObjectTooLargeError:
            return None
        except FailedRequestError as failed:
            if failed.kind is Kind.MISSING:
                return None
            raise
        return stored.version if stored.data == data else None

    def _write(self, key: str, nbytes: int, attempt: Callable[[bool], Version]) -> Version:
        with _errors("written", key):
            return self._retrying.call("written", attempt, extra_s=transfer_s(nbytes))


@contextmanager
def _errors(action: str, key: str) -> Iterator[None]:
    try:
        yield
    except FailedRequestError as failed:
        if failed.kind is Kind.MISSING:
            raise ObjectMissingError(key) from None
        raise unavailable(action, failed.reason, is_absent=failed.kind is Kind.NO_BUCKET) from None


def _listed(meta: ObjectMeta) -> ListedObject:
    return ListedObject(meta["path"], meta["size"], meta["last_modified"].astimezone(UTC), _version(meta))


def _version(meta: ObjectMeta | PutResult) -> Version:
    try:
        return Version(_quoted(meta["e_tag"]), meta["version"])
    except ValueError:
        raise FailedRequestError(Kind.REFUSED, "it says no version of what it stores") from None


def _quoted(e_tag: str | None) -> str | None:
    """As requests need it. Lists of some services have it without quotation marks."""
    return e_tag if not e_tag or e_tag.endswith('"') else f'"{e_tag}"'
