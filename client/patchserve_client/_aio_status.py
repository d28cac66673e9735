"""The status that a server sent, where grpcio's asyncio API puts another in its place."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager
from typing import Any, TypeVar

import grpc

_T = TypeVar("_T")

_MADE_UP = "Internal error from Core"
_WAIT_S = 2.0
_LOOK_EVERY_S = 0.01


@asynccontextmanager
async def server_status_first(call: grpc.aio.Call) -> AsyncIterator[None]:
    """Raises what the server said when it ended `call` while requests were still being written.

    A write that fails because the call has ended makes grpcio report an INTERNAL error of its own
    (https://github.com/grpc/grpc/issues/36066). Where the server's status was there already it is overwritten, so it is
    noted as it comes; else it comes a moment later and overwrites in its turn.
    """
    noted: list[grpc.aio.AioRpcError] = []

    def note(ended: grpc.aio.Call) -> None:  # only called once, with whichever status comes first
        noted.append(_at_once(_status(ended)))

    call.add_done_callback(note)
    try:
        yield
    except (grpc.aio.AioRpcError, asyncio.InvalidStateError) as error:  # InvalidStateError: a write after the end
        said = noted[0] if noted else await _status(call)
        waited_s = 0.0
        while said.details() == _MADE_UP and waited_s < _WAIT_S:
            await asyncio.sleep(_LOOK_EVERY_S)
            waited_s += _LOOK_EVERY_S
            said = await _status(call)
        if said.code() is grpc.StatusCode.OK:
            raise
        raise said from error


async def _status(call: grpc.aio.Call) -> grpc.aio.AioRpcError:
    """The end of a call as an error; waits for it."""
    return grpc.aio.AioRpcError(
        await call.code(),
        grpc.aio.Metadata(),
        await call.trailing_metadata() or grpc.aio.Metadata(),
        await call.details(),
    )


def _at_once(coroutine: Coroutine[Any, Any, _T]) -> _T:
    """What a coroutine returns that has nothing to wait for, as a call's own are once it is done."""
    try:
        coroutine.send(None)
    except StopIteration as returned:
        result: _T = returned.value
        return result
    coroutine.close()
    raise RuntimeError("A call that is done had no status.")
