"""Downloads an object into a file. A download that broke off goes on where it was."""

from __future__ import annotations

from typing import IO, TYPE_CHECKING, Final

import obstore

from patchserve_server.store.objects.clients import Client
from patchserve_server.store.objects.problems import Kind
from patchserve_server.store.objects.requests import FailedRequestError, request
from patchserve_server.store.objects.retrying import TransientError
from patchserve_server.store.objects.storage import ObjectTooLargeError

if TYPE_CHECKING:
    from obstore import GetOptions

_CHUNK_BYTES: Final = 4 << 20


class Download:
    """One object that is downloaded, in one request or several."""

    def __init__(self, key: str, file: IO[bytes], max_bytes: int) -> None:
        self._key, self._file, self._max_bytes = key, file, max_bytes
        self._written, self._e_tag = 0, ""  # of what is in the file

    def run(self, client: Client) -> None:
        """One request for all that is missing.

        Raises:
            TransientError: what has arrived is kept, and the next request asks for the rest.
            FailedRequestError: it would fail again.
            ObjectTooLargeError: the object is too large.
            OSError: the file cannot be written.
        """
        try:
            request(lambda: self._read(client))
        except FailedRequestError as failed:
            if failed.kind is not Kind.CHANGED:
                raise
            self._written = 0
            raise TransientError("the object was replaced while it was read") from None

    def _read(self, client: Client) -> None:
        options: GetOptions = {}
        if self._written and self._e_tag:
            options = {"range": {"offset": self._written}, "if_match": self._e_tag}
        else:
            self._written = 0
        result = obstore.get(client, self._key, options=options)
        size = result.meta["size"]
        if size > self._max_bytes:
            raise ObjectTooLargeError(self._key, self._max_bytes)
        self._e_tag = result.meta["e_tag"] or ""
        self._file.seek(self._written)
        self._file.truncate()
        for chunk in result.stream(_CHUNK_BYTES):
            self._written += self._file.write(chunk)
        if self._written != size:
            raise TransientError("its answer ended early")
