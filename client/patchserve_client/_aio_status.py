"""The server's status of a call, even if grpcio's asyncio API replaced it with another status."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager
from typing import Any, TypeVar

import grpc

_T = TypeVar("_T")

_GRPCIO_TEXT = "Internal error from Core"
_TIMEOUT_S = 2.0
_POLL_INTERVAL_S = 0.01


@asynccontextmanager
async def server_status_first(call: grpc.aio.Call) -> AsyncIterator[None]:
    """Raise the server's own error if the server ended `call` while requests were still being written.

    If a write fails because the call has ended, grpcio reports an INTERNAL error
    (https://github.com/grpc/grpc/issues/36066). If the server's status came first, grpcio overwrites it, so this stores
    the first status. If it comes later, it overwrites grpcio's error, so this waits for it.
    """
    first_status: list[grpc.aio.AioRpcError] = []

    def store_first(ended_call: grpc.aio.Call) -> None:  # called once, with the first status
        first_status.append(_result_of(_status(ended_call)))

    call.add_done_callback(store_first)
    try:
        yield
    except (grpc.aio.AioRpcError, asyncio.InvalidStateError) as error:  # InvalidStateError: a write after the end
        status = first_status[0] if first_status else await _status(call)
        waited_s = 0.0
        while status.details() == _GRPCIO_TEXT and waited_s < _TIMEOUT_S:
            await asyncio.sleep(_POLL_INTERVAL_S)
            waited_s += _POLL_INTERVAL_S
            status = await _status(call)
        if status.code() is grpc.StatusCode.OK:
            raise
        raise status from error


async def _status(call: grpc.aio.Call) -> grpc.aio.AioRpcError:
    """The status of a call as an error. Waits until the call has ended."""
    return grpc.aio.AioRpcError(
        await call.code(),
        grpc.aio.Metadata(),
        await call.trailing_metadata() or grpc.aio.Metadata(),
        await call.details(),
    )


def _result_of(coroutine: Coroutine[Any, Any, _T]) -> _T:
    """The result of a coroutine that does not wait, such as the status methods of an ended call."""
    try:
        coroutine.send(None)
    except StopIteration as stop:
        result: _T = stop.value
        return result
    coroutine.close()
    raise RuntimeError("An ended call has no status.")
