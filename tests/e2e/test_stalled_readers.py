"""Callers that do not read, leave early or are late: they get a status if they read it, and leave no trace."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import grpc
import pytest
from e2e.harness import Stub, refusal
from e2e.in_process import in_process_server
from fakes.detector import FakeDetector
from fakes.gray import gray_png
from fakes.images import encoded, noise
from fakes.waiting import wait_until

from patchserve.v1 import inference_pb2, reference_pb2

LARGE = inference_pb2.InferRequest(image=encoded(noise(1200), "BMP"), output={"overlay": True})  # type: ignore[arg-type]
STALLED = (grpc.StatusCode.DEADLINE_EXCEEDED, "READER_STALLED")


@contextmanager
def server(**settings: Any) -> Iterator[grpc.Channel]:
    options = [("grpc.max_receive_message_length", 2**26), ("grpc.http2.bdp_probe", 0)]
    with (
        in_process_server(detector=FakeDetector(), **settings) as address,
        grpc.insecure_channel(address, options) as channel,
    ):
        Stub(channel).LoadReference(reference_pb2.LoadReferenceRequest(images=[gray_png(100)]))
        yield channel


def unread_call(channel: grpc.Channel) -> Any:
    """A call whose response, of 0.8 MB, is not read before somebody iterates over it."""
    infer = channel.stream_stream(
        "/patchserve.v1.PatchCoreService/Infer",
        request_serializer=inference_pb2.InferRequest.SerializeToString,
        response_deserializer=inference_pb2.InferResponse.FromString,
    )
    return infer(iter([LARGE]))


def test_a_caller_that_reads_late_gets_its_response_and_then_why_the_call_ended(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO)
    with server(stream_write_timeout_s=3) as channel:
        call = unread_call(channel)
        wait_until(lambda: "does not read its results" in caplog.text)
        assert len(next(call).overlay_png) > 2**19
        with pytest.raises(grpc.RpcError) as caught:
            next(call)
        assert refusal(caught.value)[:2] == STALLED
    assert [record for record in caplog.records if record.exc_info] == []


def test_a_call_that_is_never_read_is_reset(caplog: pytest.LogCaptureFixture) -> None:
    """So gRPC frees the response: the caller gets a status in its place."""
    caplog.set_level(logging.DEBUG, "patchserve_server")
    with server(stream_write_timeout_s=0.2) as channel:
        unread = [unread_call(channel) for _ in range(8)]
        wait_until(lambda: caplog.text.count("the call is reset") == len(unread))
        Stub(channel).Infer(inference_pb2.InferRequest(image=gray_png(100)), timeout=60)  # its response comes later
        for call in unread:
            with pytest.raises(grpc.RpcError) as caught:
                next(call)
            assert isinstance(caught.value, grpc.Call)
            assert caught.value.code() in (grpc.StatusCode.DEADLINE_EXCEEDED, grpc.StatusCode.CANCELLED)
    assert "stays in memory" not in caplog.text
    assert [record for record in caplog.records if record.exc_info] == []
