"""Calls by method name with messages as JSON, as the cases describe them, over the generated stubs."""

from __future__ import annotations

import base64
import json
import queue
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
from google.protobuf import descriptor, json_format, message_factory
from google.protobuf.message import Message
from google.rpc import error_details_pb2  # noqa: F401 - the details inside of a google.rpc.Status are printed by name
from grpc_health.v1 import health_pb2

from patchserve.v1 import service_pb2
from patchserve_client import PatchserveError
from patchserve_client._address import parsed
from patchserve_client._connection import Connection
from patchserve_client._errors import translate_errors

TIMEOUT_S = 60.0
_CONNECTION = Connection(parsed("the-server"), TIMEOUT_S, TIMEOUT_S, None, None, 64)  # for messages
Json = dict[str, Any]


def method_of(rpc: str) -> descriptor.MethodDescriptor:
    file: descriptor.FileDescriptor = health_pb2.DESCRIPTOR if rpc == "Check" else service_pb2.DESCRIPTOR
    (service,) = file.services_by_name.values()
    return service.methods_by_name[rpc]


def outcome(responses: list[Json], error: PatchserveError | None, calls: list[Json]) -> Json:
    """The line that a runner prints for a case, without the name of the case."""
    return {
        "code": error.code if error else "OK",
        "error": error and error_json(error),
        "responses": responses,
        "calls": calls,
    }


def error_json(error: PatchserveError) -> Json:
    return {
        "reason": error.reason,
        "field_violations": [{"field": violation.field} for violation in error.field_violations],
        "precondition_violations": [
            {"type": violation.type, "subject": violation.subject} for violation in error.precondition_violations
        ],
        "resource_name": error.resource_name,
        "retry_after_s": error.retry_after_s,
    }


class Caller:
    """Calls over one channel."""

    def __init__(self, channel: grpc.Channel, images: Path, token: str | None) -> None:
        self._channel = channel
        self._images = images
        self._token = token

    def run(self, case: Json) -> Json:
        token = case.get("token", self._token)
        metadata = (("authorization", f"Bearer {token}"),) if token else ()
        call = _Call(self._channel, case["rpc"], metadata, case.get("timeout_s", TIMEOUT_S))
        calls = []
        for step in case.get("steps", [{"send": case.get("request")}]):
            if "send" in step:
                for _ in range(step.get("times", 1)):
                    call.send(self.filled(step["send"]))
            elif "await" in step:
                call.wait_for(step["await"])
            elif "call" in step:
                calls.append(self.run({"token": token, **step["call"]}))
            elif "until_loads" in step:
                self._wait_for_loads(step["until_loads"], token)
            elif "cancel" in step:
                call.cancel()
            else:
                raise ValueError(f"A step that this runner does not know: {step}")
        responses, error = call.end()
        return outcome(responses, error, calls)

    def filled(self, value: Any) -> Any:
        """The same value, with image names replaced by the images."""
        if isinstance(value, dict):
            return {key: self.filled(item) for key, item in value.items()}
        if isinstance(value, list):
            return [self.filled(item) for item in value]
        if isinstance(value, str) and value.startswith("@"):
            return base64.b64encode((self._images / value[1:]).read_bytes()).decode()
        return value

    def _wait_for_loads(self, count: int, token: str | None) -> None:
        while True:
            (response,) = self.run({"rpc": "ListLoads", "request": {}, "token": token})["responses"]
            if len(response.get("loads", [])) >= count:
                return


class _Call:
    """A call of any kind, as a stream of requests and a stream of responses."""

    def __init__(
        self, channel: grpc.Channel, rpc: str, metadata: tuple[tuple[str, str], ...], timeout_s: float
    ) -> None:
        method = method_of(rpc)
        self._request = message_factory.GetMessageClass(method.input_type)
        self._requests: queue.SimpleQueue[Message | None] = queue.SimpleQueue()
        self._changed = threading.Condition()
        self._responses: list[Json] = []
        self._error: PatchserveError | None = None
        call = channel.stream_stream(
            f"/{method.containing_service.full_name}/{rpc}",
            request_serializer=self._request.SerializeToString,
            response_deserializer=message_factory.GetMessageClass(method.output_type).FromString,
        )
        self._call = call(iter(self._requests.get, None), timeout=timeout_s, metadata=metadata)
        self._reading = threading.Thread(target=self._read, args=(self._call,))
        self._reading.start()

    def _read(self, call: Iterator[Message]) -> None:
        try:
            with translate_errors(_CONNECTION):
                for response in call:
                    with self._changed:
                        self._responses.append(json_format.MessageToDict(response, preserving_proto_field_name=True))
                        self._changed.notify()
        except PatchserveError as error:
            self._error = error
        finally:
            self._requests.put(None)
            with self._changed:
                self._changed.notify()

    def send(self, request: Json) -> None:
        """Queue a request. gRPC takes it when flow control allows."""
        self._requests.put(json_format.ParseDict(request, self._request()))

    def wait_for(self, count: int) -> None:
        with self._changed:
            self._changed.wait_for(lambda: len(self._responses) >= count or not self._reading.is_alive() or self._error)

    def cancel(self) -> None:
        self._call.cancel()

    def end(self) -> tuple[list[Json], PatchserveError | None]:
        self._requests.put(None)
        self._reading.join()
        return self._responses, self._error


def read_cases(path: Path) -> list[Json]:
    return json.loads(path.read_text())["cases"]  # type: ignore[no-any-return]
