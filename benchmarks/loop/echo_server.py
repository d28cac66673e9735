"""A server of grpc.aio that answers every call at once: `python -m loop.echo_server BYTES`, of the overlay.

Nothing that a server does with grpc.aio can cost less. It answers Infer and InferStream, so the same callers call it.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator
from typing import Any

import grpc
from grpc import aio

from patchserve.v1 import inference_pb2, stream_pb2

_SERVICE = "/patchserve.v1.PatchCoreService/"


class _Echo(grpc.GenericRpcHandler):
    def __init__(self, overlay_bytes: int) -> None:
        response = inference_pb2.InferResponse(
            reference_id="default", reference_revision="0" * 64, timing=inference_pb2.Timing(total_ms=1.0)
        )
        response.overlay_png = bytes(overlay_bytes)
        self._response = response
        self._serialized = response.SerializeToString()

    def service(self, details: grpc.HandlerCallDetails) -> Any:
        if details.method == f"{_SERVICE}Infer":
            return grpc.unary_unary_rpc_method_handler(self._infer)
        return grpc.stream_stream_rpc_method_handler(
            self._stream, stream_pb2.InferStreamRequest.FromString, stream_pb2.InferStreamResponse.SerializeToString
        )

    async def _infer(self, _request: bytes, _: Any) -> bytes:
        return self._serialized

    async def _stream(self, requests: AsyncIterator[Any], _: Any) -> AsyncIterator[Any]:
        async for request in requests:
            if request.WhichOneof("payload") == "config":
                yield stream_pb2.InferStreamResponse(ready=stream_pb2.StreamReady(max_in_flight=4))
            else:
                result = stream_pb2.FrameResult(frame_id=request.frame.frame_id, response=self._response)
                yield stream_pb2.InferStreamResponse(result=result)


async def main() -> None:
    server = aio.server()
    server.add_generic_rpc_handlers((_Echo(int(sys.argv[1])),))
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    print(f"echo listening on 127.0.0.1:{port}", flush=True)
    await server.wait_for_termination()


if __name__ == "__main__":
    asyncio.run(main())
