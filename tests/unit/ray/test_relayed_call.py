"""A call that Ray brings to a replica."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import grpc
import pytest
from grpc import aio
from grpc_status import rpc_status
from ray.exceptions import ActorDiedError
from ray.serve.grpc_util import gRPCInputStream

from patchserve_server.contract.status import status_of
from patchserve_server.domain.errors import InvalidInputError
from patchserve_server.ray.relayed_call import RelayedCall


class RayContext:
    """Ray's context of a call: it travels between processes."""

    def __init__(self, **metadata: str) -> None:
        self._metadata = [(key.replace("_", "-"), value) for key, value in metadata.items()]
        self.status: dict[str, Any] = {}

    def invocation_metadata(self) -> list[tuple[str, str]]:
        return self._metadata

    def set_code(self, code: grpc.StatusCode) -> None:
        self.status["code"] = code

    def set_details(self, details: str) -> None:
        self.status["details"] = details

    def set_trailing_metadata(self, trailing: list[tuple[str, Any]]) -> None:
        self.status |= dict(trailing)


async def stream_of(*messages: bytes, error: Exception | None = None) -> AsyncIterator[bytes]:
    for message in messages:
        yield message
    if error is not None:
        raise error


def call_of(messages: AsyncIterator[bytes], context: RayContext | None = None) -> RelayedCall:
    return RelayedCall(messages, context or RayContext())  # type: ignore[arg-type]


async def test_messages_come_one_after_the_other_until_the_end() -> None:
    call = call_of(stream_of(b"one", b""))
    assert [await call.read() for _ in range(4)] == [b"one", b"", aio.EOF, aio.EOF]


async def test_a_caller_that_leaves_cancels_its_call() -> None:
    left = asyncio.Event()
    left.set()
    with pytest.raises(asyncio.CancelledError):
        await call_of(gRPCInputStream(stream_of(b"one"), cancel_event=left)).read()


async def test_a_proxy_that_ends_takes_its_callers_along() -> None:
    with pytest.raises(asyncio.CancelledError):
        await call_of(stream_of(error=ActorDiedError())).read()


def test_the_deadline_is_the_one_of_the_proxy_and_no_metadata_of_the_caller() -> None:
    call = call_of(stream_of(), RayContext(grpc_timeout="5000m", traceparent="00-1"))
    remaining_s = call.time_remaining()
    assert remaining_s is not None
    assert 0 < remaining_s <= 5
    assert list(call.invocation_metadata()) == [("traceparent", "00-1")]
    assert call_of(stream_of()).time_remaining() is None


async def test_responses_are_written_no_faster_than_they_are_taken() -> None:
    call, written = call_of(stream_of()), 0

    async def answer() -> None:
        nonlocal written
        for number in range(5):
            await call.write(str(number).encode())
            written += 1

    taken: list[bytes] = []
    async for response in call.responses(asyncio.create_task(answer())):
        assert written <= len(taken) + 3
        taken.append(response)
    assert taken == [b"0", b"1", b"2", b"3", b"4"]


async def test_an_error_goes_back_with_its_details() -> None:
    context = RayContext()
    call = call_of(stream_of(), context)
    sent = rpc_status.to_status(status_of(InvalidInputError("image", "It is empty."), "7"))
    await call.abort(sent.code, sent.details, sent.trailing_metadata)
    assert call.has_failed
    assert context.status["code"] == grpc.StatusCode.INVALID_ARGUMENT
    assert context.status["details"] == "It is empty."
    assert b"INVALID_FIELD" in context.status["grpc-status-details-bin"]
