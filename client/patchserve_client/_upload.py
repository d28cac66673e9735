"""A client-streaming call for synchronous code. gRPC reads the requests in its own thread."""

from __future__ import annotations

import concurrent.futures
from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

import grpc

from patchserve_client._connection import Connection
from patchserve_client._errors import PatchserveError, translate_errors

_Request = TypeVar("_Request")
_Response = TypeVar("_Response")


def upload(
    start: Callable[[Iterator[_Request]], grpc.Future[_Response]], requests: Iterable[_Request], connection: Connection
) -> _Response:
    """Start a call, send it the requests, and return its response. The call is cancelled if the caller is interrupted.

    Raises:
        PatchserveError: the call failed.
        Exception: the exception of `requests`. The call is then cancelled: the server must not use a part of them.
    """
    started: concurrent.futures.Future[grpc.Future[_Response]] = concurrent.futures.Future()
    errors: list[Exception] = []

    def read_requests() -> Iterator[_Request]:
        try:
            yield from requests
        except Exception as error:  # noqa: BLE001 - raised in the caller's thread; gRPC would log it and hide it
            errors.append(error)
            started.result().cancel()

    call = start(read_requests())
    started.set_result(call)
    try:
        with translate_errors(connection):
            return call.result()
    except PatchserveError:
        if not errors:
            raise
    finally:
        call.cancel()
    raise errors[0]
