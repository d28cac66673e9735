"""The messages of a stream."""

from __future__ import annotations

import queue
from collections.abc import Iterable, Iterator

from patchserve.v1 import stream_pb2

Request = stream_pb2.InferStreamRequest


def config(reference_id: str, **fields: object) -> Request:
    return Request(config=stream_pb2.StreamConfig(reference_id=reference_id, **fields))  # type: ignore[arg-type]


def frame(number: int, image: bytes) -> Request:
    return Request(frame=stream_pb2.Frame(frame_id=f"f{number}", image=image))


class Feed:
    """Requests that a test sends one by one."""

    def __init__(self, *requests: Request) -> None:
        self._queue: queue.Queue[Request | None] = queue.Queue()
        for request in requests:
            self._queue.put(request)

    def send(self, request: Request) -> None:
        self._queue.put(request)

    def close(self) -> None:
        self._queue.put(None)

    def __iter__(self) -> Iterator[Request]:
        while (request := self._queue.get(timeout=60)) is not None:
            yield request


def results(responses: Iterable[stream_pb2.InferStreamResponse]) -> list[stream_pb2.FrameResult]:
    return [response.result for response in responses if response.WhichOneof("payload") == "result"]
