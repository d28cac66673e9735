"""InferStream over a WebSocket, called as over gRPC: so the same tests run over both."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Coroutine, Iterator
from contextlib import ExitStack, contextmanager, suppress
from typing import Any, Self, TypeVar
from urllib.parse import quote, urlencode

import grpc
from e2e.harness import Stub
from e2e.streaming import Request
from google.protobuf import json_format
from google.rpc import status_pb2
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed

from patchserve.v1 import stream_pb2

Response = stream_pb2.InferStreamResponse
T = TypeVar("T")

_loop = asyncio.new_event_loop()  # of all WebSockets; not made on demand, which two threads could do at once
threading.Thread(target=_loop.run_forever, daemon=True).start()


class SocketError(grpc.RpcError):
    """The status that ended a stream, as an error of gRPC."""

    def __init__(self, status: status_pb2.Status) -> None:
        super().__init__(status.message)
        self.status = status

    def code(self) -> grpc.StatusCode:
        return next(code for code in grpc.StatusCode if code.value[0] == self.status.code)

    def details(self) -> str:
        return str(self.status.message)

    def trailing_metadata(self) -> Any:
        return (("grpc-status-details-bin", self.status.SerializeToString()),)


grpc.Call.register(SocketError)


def query_of(config: stream_pb2.StreamConfig) -> str:
    """The config as a query, without the reference id, which is in the path."""
    pairs: list[tuple[str, str]] = []

    def add(value: Any, path: str) -> None:
        if isinstance(value, dict):
            for name, inner in value.items():
                add(inner, f"{path}.{name}" if path else name)
        elif path != "reference_id":
            pairs.append((path, json.dumps(value) if isinstance(value, bool) else str(value)))

    add(json_format.MessageToDict(config, preserving_proto_field_name=True), "")
    return urlencode(pairs)


class SocketStream:
    """A WebSocket that threads use. The blocking client of `websockets` cannot read while a `send` of it waits."""

    def __init__(self, connection: ClientConnection) -> None:
        self._connection = connection

    def send(self, message: str | bytes) -> None:
        _run(self._connection.send(message))

    def recv(self, timeout_s: float) -> str | bytes:
        return _run(asyncio.wait_for(self._connection.recv(), timeout_s))

    def close(self) -> None:
        _run(self._connection.close())

    @property
    def close_code(self) -> int | None:
        return self._connection.close_code

    @property
    def close_reason(self) -> str | None:
        return self._connection.close_reason


@contextmanager
def open_stream(http_url: str, reference_id: str, query: str = "", **options: Any) -> Iterator[SocketStream]:
    """The WebSocket of a stream."""
    url = f"{http_url.replace('http', 'ws', 1)}/v1/references/{quote(reference_id, safe='')}:inferStream?{query}"
    stream = SocketStream(_run(_connect(url, **options)))
    try:
        yield stream
    finally:
        stream.close()


async def _connect(url: str, **options: Any) -> ClientConnection:
    return await connect(url, max_size=None, compression=None, **options)


def _run(work: Coroutine[Any, Any, T]) -> T:
    return asyncio.run_coroutine_threadsafe(work, _loop).result()


def parsed(text: str | bytes) -> Response | status_pb2.Status:
    """A message of the server: a response, or at the end the status."""
    value = json.loads(text)
    if "status" in value:
        return json_format.ParseDict(value["status"], status_pb2.Status())
    return json_format.ParseDict(value, Response())


class SocketCall:
    """A stream that sends what the requests yield, while somebody iterates over its responses."""

    def __init__(self, http_url: str, requests: Iterator[Request], timeout_s: float) -> None:
        first = next(requests)
        self._timeout_s = timeout_s
        self._resources = ExitStack()
        connection = open_stream(http_url, first.config.reference_id or "default", query_of(first.config))
        self._socket = self._resources.enter_context(connection)
        threading.Thread(target=self._send, args=[requests], daemon=True).start()

    def _send(self, requests: Iterator[Request]) -> None:
        with suppress(ConnectionClosed):
            for request in requests:
                frame = json_format.MessageToDict(request.frame, preserving_proto_field_name=True)
                frame.pop("image", None)
                self._socket.send(json.dumps(frame))
                if request.HasField("frame"):  # else the text of the next one follows: an error
                    self._socket.send(request.frame.image)
            self._socket.send('{"end": true}')

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> Response:
        message = parsed(self._socket.recv(self._timeout_s))
        if isinstance(message, Response):
            return message
        self._resources.close()
        if message.code:
            raise SocketError(message)
        raise StopIteration

    def cancel(self) -> None:
        self._resources.close()


class SocketStub:
    """All other methods go over gRPC."""

    def __init__(self, stub: Stub, http_url: str) -> None:
        self._stub = stub
        self._http_url = http_url

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stub, name)

    def InferStream(self, requests: Any, timeout: float = 60) -> SocketCall:  # noqa: N802 - as gRPC's
        return SocketCall(self._http_url, iter(requests), timeout)
