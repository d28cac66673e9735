"""What transfers of objects share: their clients, the time that they may take, and contents of files."""

from __future__ import annotations

import math
import mmap
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Final

import obstore

from patchserve_server.store.objects.clients import Client, MakeClient
from patchserve_server.store.objects.requests import FailedRequestError, request
from patchserve_server.store.objects.retrying import TransientError

if TYPE_CHECKING:
    from obstore import ListStream, ObjectMeta

_REQUEST_S: Final = 4.0  # of a small object, and of a pause in an answer: a lost request leaves time for another
_LONGEST_S: Final = 3600.0
_SLOWEST_BYTES_PER_S: Final = 2 << 20  # of the network, below which a transfer is given up
_PAGE: Final = 1000


def transfer_s(nbytes: int) -> float:
    """The time that so many bytes may take, on top of that of a request."""
    return nbytes / _SLOWEST_BYTES_PER_S


class Clients:
    """A client for what is read, and clients for what is written: their timeout contains the time of the upload."""

    def __init__(self, make_client: MakeClient) -> None:
        self._make = make_client
        self.reader = make_client(_LONGEST_S, _REQUEST_S)
        self._writers: dict[int, Client] = {}  # by log2 of the times that a request may take
        self._making = threading.Lock()

    def writer(self, nbytes: int) -> Client:
        """The client for an upload of so many bytes."""
        power = math.ceil(math.log2((_REQUEST_S + transfer_s(nbytes)) / _REQUEST_S))
        with self._making:
            if power not in self._writers:
                request_s = _REQUEST_S * 2**power
                self._writers[power] = self._make(request_s, request_s)
            return self._writers[power]


class Pages:
    """The pages of one list. After a failure it goes on behind the last object."""

    def __init__(self, client: Client, prefix: str) -> None:
        self._client, self._prefix = client, prefix.rstrip("/") or None
        self._stream: ListStream[Sequence[ObjectMeta]] | None = None
        self._last: str | None = None

    def next(self) -> Sequence[ObjectMeta]:
        """The next page; empty: there are no more.

        Raises:
            TransientError: the next call asks again.
            FailedRequestError: it would fail again.
        """
        try:
            page = request(self._read)
        except (TransientError, FailedRequestError):
            self._stream = None
            raise
        if page:
            self._last = page[-1]["path"]
        return page

    def _read(self) -> Sequence[ObjectMeta]:
        if self._stream is None:
            self._stream = obstore.list(self._client, self._prefix, offset=self._last, chunk_size=_PAGE)
        return next(self._stream, [])


@contextmanager
def content_of(path: Path) -> Iterator[bytes | mmap.mmap]:
    """The content of a file, in memory that belongs to the file.

    Raises:
        OSError: it cannot be read.
    """
    with path.open("rb") as file:
        if not file.seek(0, 2):
            yield b""  # nothing cannot be mapped
            return
        # It is closed when nobody refers to it: a request that was given up may still do, for a moment.
        yield mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
