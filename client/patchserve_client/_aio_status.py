"""The status that a server sent, where grpcio's asyncio API puts another in its place."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager
from typing import Any, TypeVar

import grpc

_T = TypeVar("_T")

_MADE_UP = "Internal error from Core"
_WAIT_S = 2.0  # for a status that is on its way; it comes with the same packet as a rule


@asynccontextmanager
async def server_status_first(call: grpc.aio.Call) -> AsyncIterator[None]:
    """Raises what the server said when it ended `call` while requests were still being written.

    A write that fails because the call has ended makes grpcio report INTERNAL, "Internal error from Core", whether the
    server's own status has come already or comes a moment later (https://github.com/grpc/grpc/issues/36066).
    """
    said = asyncio.get_running_loop().create_future()

    def note(ended: grpc.aio.Call) -> None:
        details = _at_once(ended.details())
        if details != _MADE_UP and not said.done():
            said.set_result((_at_once(ended.code()), _at_once(ended.trailing_metadata()), details))

    call.add_done_callback(note)
    try:
        yield
    except (grpc.aio.AioRpcError, asyncio.InvalidStateError) as error:  # InvalidStateError: a write after the end
        await asyncio.wait([said], timeout=_WAIT_S)
        if not said.done() or said.result()[0] is grpc.StatusCode.OK:
            raise
        code, trailing_metadata, details = said.result()
        raise grpc.aio.AioRpcError(code, grpc.aio.Metadata(), trailing_metadata, details) from error


def _at_once(coroutine: Coroutine[Any, Any, _T]) -> _T:
    """What a coroutine returns that has nothing to wait for, as a call's own are once it is done."""
    try:
        coroutine.send(None)
    except StopIteration as returned:
        result: _T = returned.value
        return result
    coroutine.close()
    raise RuntimeError("A call that is done had no status.")
