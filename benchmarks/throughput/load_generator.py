"""The load generator, in its own process: closed loops of clients that do not decode the images of their responses."""

from __future__ import annotations

import asyncio
import base64
import itertools
import json
import time
import uuid
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any

import aiohttp
import grpc

from patchserve.v1 import inference_pb2, service_pb2_grpc, stream_pb2
from throughput.closed_loop import ClosedLoop
from throughput.processes import serve_requests

FRAMES_IN_FLIGHT = 4  # per stream

# One connection for each client, as if they were on different machines.
_OPTIONS = [
    ("grpc.max_receive_message_length", 2**28),
    ("grpc.max_send_message_length", 2**28),
    ("grpc.use_local_subchannel_pool", 1),
]
_CALL_TIMEOUT_S = 120

Send = Callable[[int], Awaitable[Any]]  # sends the image with this number; returns the response's Timing or None


class StreamError(Exception):
    """A stream sent something other than a result."""


async def _send_in_turn(loop: ClosedLoop, send: Send, numbers: itertools.count[int]) -> None:
    """One client: sends the next image as soon as it has the response to the last one."""
    while not loop.is_done:
        sent_at_s = time.perf_counter()
        loop.record(sent_at_s, await send(next(numbers)))


async def body(request: dict[str, Any]) -> ClosedLoop:
    """An image as the body of each request, to the one address of the Flask service."""
    return await _http(request, [(request["address"], image, "image/jpeg") for image in request["images"]])


async def face(request: dict[str, Any]) -> ClosedLoop:
    """The HTTP face of patchserve: overlays by a form to /infer, scores as JSON by Infer of /v1."""
    (reference_id,) = request["reference_ids"]
    if request["overlay"]:
        fields = {"reference_id": reference_id}
        posts = [(f"{request['address']}/infer", *_form(fields, image)) for image in request["images"]]
    else:
        url = f"{request['address']}/v1/references/{reference_id}:infer"
        encoded = [base64.b64encode(image).decode() for image in request["images"]]
        posts = [(url, json.dumps({"image": image}).encode(), "application/json") for image in encoded]
    return await _http(request, posts)


def _form(fields: dict[str, str], image: bytes) -> tuple[bytes, str]:
    """A multipart body and its content type."""
    boundary = uuid.uuid4().hex
    head = b"".join(
        f'--{boundary}\r\nContent-Disposition: form-data; name="{name}"\r\n\r\n{value}\r\n'.encode()
        for name, value in fields.items()
    )
    head += (
        f'--{boundary}\r\nContent-Disposition: form-data; name="image"; filename="image.jpg"\r\n'
        "Content-Type: image/jpeg\r\n\r\n"
    ).encode()
    return head + image + f"\r\n--{boundary}--\r\n".encode(), f"multipart/form-data; boundary={boundary}"


async def _http(request: dict[str, Any], posts: Sequence[tuple[str, bytes, str]]) -> ClosedLoop:
    """Sends these (URL, body, content type) in turn."""
    loop, numbers = ClosedLoop(request["clients"], request["seconds"]), itertools.count()
    session = aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(limit=0), timeout=aiohttp.ClientTimeout(total=None), raise_for_status=True
    )

    async def send(number: int) -> None:
        url, data, content_type = posts[number % len(posts)]
        headers = {"content-type": content_type, "grpc-timeout": f"{_CALL_TIMEOUT_S}S"}
        async with session.post(url, data=data, headers=headers) as response:
            await response.read()

    async with session:
        await asyncio.gather(*(_send_in_turn(loop, send, numbers) for _ in range(request["clients"])))
    return loop


async def unary(request: dict[str, Any]) -> ClosedLoop:
    loop, numbers = ClosedLoop(request["clients"], request["seconds"]), itertools.count()
    output = inference_pb2.OutputOptions(overlay=request["overlay"])
    messages = [
        inference_pb2.InferRequest(reference_id=reference_id, image=image, output=output)
        for image in request["images"]
        for reference_id in request["reference_ids"]
    ]

    async def client() -> None:
        async with grpc.aio.insecure_channel(request["address"], options=_OPTIONS) as channel:
            stub = service_pb2_grpc.PatchCoreServiceStub(channel)

            async def send(number: int) -> Any:
                response = await stub.Infer(messages[number % len(messages)], timeout=_CALL_TIMEOUT_S)
                return response.timing

            await _send_in_turn(loop, send, numbers)

    await asyncio.gather(*(client() for _ in range(request["clients"])))
    return loop


async def streams(request: dict[str, Any]) -> ClosedLoop:
    loop, numbers = ClosedLoop(request["streams"] * FRAMES_IN_FLIGHT, request["seconds"]), itertools.count()
    images = request["images"]
    (reference_id,) = request["reference_ids"]
    config = stream_pb2.StreamConfig(
        reference_id=reference_id,
        output=inference_pb2.OutputOptions(overlay=request["overlay"]),
        max_in_flight=FRAMES_IN_FLIGHT,
    )

    async def client() -> None:
        async with grpc.aio.insecure_channel(request["address"], options=_OPTIONS) as channel:
            call = service_pb2_grpc.PatchCoreServiceStub(channel).InferStream()
            sent_at_s: dict[str, float] = {}

            async def send_frame() -> None:
                number = next(numbers)
                frame = stream_pb2.Frame(frame_id=str(number), image=images[number % len(images)])
                sent_at_s[frame.frame_id] = time.perf_counter()
                await call.write(stream_pb2.InferStreamRequest(frame=frame))

            await call.write(stream_pb2.InferStreamRequest(config=config))
            await _read(call, "ready")
            for _ in range(FRAMES_IN_FLIGHT):
                await send_frame()
            while sent_at_s:
                result = (await _read(call, "result")).result
                if result.WhichOneof("outcome") != "response":
                    raise StreamError(str(result.error))
                loop.record(sent_at_s.pop(result.frame_id), result.response.timing)
                if not loop.is_done:
                    await send_frame()
            await call.done_writing()

    await asyncio.gather(*(client() for _ in range(request["streams"])))
    return loop


async def _read(call: Any, expected: str) -> stream_pb2.InferStreamResponse:
    message = await call.read()
    if message is grpc.aio.EOF:
        raise StreamError(f"{await call.code()}: {await call.details()}")
    if message.WhichOneof("payload") != expected:
        raise StreamError(f"Expected {expected}, got: {message}")
    response: stream_pb2.InferStreamResponse = message
    return response


_KINDS = {"body": body, "face": face, "unary": unary, "streams": streams}


def _handle(request: dict[str, Any]) -> dict[str, Any]:
    request["images"] = [Path(path).read_bytes() for path in request["images"]]
    return asyncio.run(_KINDS[request["kind"]](request)).summary()


if __name__ == "__main__":
    serve_requests(lambda: ({}, _handle))
