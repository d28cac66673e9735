"""Whatever callers do, in any order and in every method: when they are gone, nothing is held for them."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from typing import Any, ClassVar

import grpc
import pytest
from e2e.counted import IMAGES, LARGE, SMALL, UNREAD, CountedServer
from e2e.streaming import Feed, config, frame
from fakes.tensors import request_of_files
from fakes.waiting import wait_until
from grpc_health.v1 import health_pb2
from grpc_reflection.v1alpha import reflection_pb2
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, precondition, rule

from patchserve.kserve import open_inference_pb2 as pb
from patchserve.v1 import inference_pb2, reference_pb2
from patchserve_server.contract.methods import RequestSize
from patchserve_server.rpc.methods import METHODS
from patchserve_server.serving.admission import NOTHING

OUTPUT = inference_pb2.OutputOptions(overlay=True, heatmap_scale=inference_pb2.HEATMAP_SCALE_CALIBRATED)
OF_IMAGES = [name for name, method in METHODS.items() if method.request_size is RequestSize.LARGE]


def requests(method: str, image: bytes) -> list[bytes]:
    """Messages that a caller of the method sends."""
    streamed = reference_pb2.LoadReferenceStreamRequest
    other = reference_pb2.LoadReferenceRequest(reference_id="other")
    overlay = request_of_files("default", image, outputs=["overlay"])
    messages: dict[str, list[Any]] = {
        "Infer": [inference_pb2.InferRequest(image=image, output=OUTPUT)],
        "InferStream": [config("", output=OUTPUT), *(frame(number, image) for number in range(4))],
        "LoadReference": [reference_pb2.LoadReferenceRequest(reference_id="other", images=[image])],
        "LoadReferenceStream": [streamed(start=other), *(streamed(image=image) for _ in range(3))],
        "ModelInfer": [overlay],
        "ModelStreamInfer": [overlay] * 3,
        "ModelMetadata": [pb.ModelMetadataRequest(name="default")],
        "ModelReady": [pb.ModelReadyRequest(name="default")],
        "DeleteReference": [reference_pb2.DeleteReferenceRequest(reference_id="other")],
        "TuneReference": [reference_pb2.TuneReferenceRequest(reference_id="other", sensitivity=1.1)],
        "RestoreReference": [reference_pb2.RestoreReferenceRequest(reference_id="other")],
        "ServerReflectionInfo": [reflection_pb2.ServerReflectionRequest(list_services="")],
    }
    without_fields = [health_pb2.HealthCheckRequest()]
    return [message.SerializeToString() for message in messages.get(method.rpartition("/")[2], without_fields)]


class Caller:
    """A call that is made message by message."""

    def __init__(self, channel: grpc.Channel, method: str, image: bytes, timeout_s: float | None) -> None:
        self._ends = not METHODS[method].stays_open
        self._messages = requests(method, image)
        self._feed: Any = Feed()
        start: Any = channel.stream_stream(method)
        self.call: Any = start(iter(self._feed), timeout=timeout_s or 60)

    def send(self) -> None:
        """Sends the next message, if there is one."""
        if self._messages:
            self._feed.send(self._messages.pop(0))

    def send_garbage(self) -> None:
        self._feed.send(b"\xff\xff\xff")

    def finish(self) -> None:
        """Sends the rest and closes its side, as most callers do."""
        while self._messages:
            self.send()
        self._feed.close()

    def read_all(self) -> None:
        self.finish()
        if not self._ends:
            self.call.cancel()
        with suppress(grpc.RpcError):
            for _ in self.call:
                pass

    def cancel(self) -> None:
        self.call.cancel()
        self._feed.close()


ACTIONS: tuple[Callable[[Caller], None], ...] = (Caller.send, Caller.send_garbage, Caller.finish, Caller.cancel)


class Callers(RuleBasedStateMachine):
    """Callers of all methods, which send, stall, leave, are late, send garbage or ask for too much."""

    server: ClassVar[CountedServer]

    def __init__(self) -> None:
        super().__init__()
        self.callers: list[Caller] = []

    @rule(
        method=st.sampled_from(sorted(METHODS)) | st.sampled_from(OF_IMAGES),
        count=st.integers(1, 3),
        image=st.sampled_from(sorted(IMAGES)),
        timeout_s=st.sampled_from([None, None, 0.002, 0.05]),
        messages=st.integers(0, 5),
    )
    def call(self, method: str, count: int, image: str, timeout_s: float | None, messages: int) -> None:
        for _ in range(count):
            self.callers.append(Caller(self.server.channel, method, IMAGES[image], timeout_s))
            for _ in range(messages):
                self.callers[-1].send()

    @precondition(lambda self: self.callers)
    @rule(data=st.data(), act=st.sampled_from(ACTIONS))
    def act(self, data: st.DataObject, act: Callable[[Caller], None]) -> None:
        act(data.draw(st.sampled_from(self.callers)))

    @rule(is_open=st.booleans())
    def let_the_detector_work(self, is_open: bool) -> None:
        (self.server.detector.gate.set if is_open else self.server.detector.gate.clear)()

    @precondition(lambda self: self.callers)
    @rule()
    def wait_for_the_first_caller(self) -> None:
        self.server.detector.gate.set()
        self.callers.pop(0).read_all()

    def teardown(self) -> None:
        self.server.detector.gate.set()
        for position, caller in enumerate(self.callers):
            caller.finish()
            if position % 2:  # the others read nothing, until the server ends their calls
                caller.cancel()
        self.server.wait_until_nothing_is_held()
        for caller in self.callers:
            caller.cancel()


@pytest.fixture(scope="module")
def server() -> Iterator[CountedServer]:
    with ExitStack() as stack:
        counted = CountedServer(stack)
        counted.load_default()
        yield counted


def test_nothing_is_held_when_all_callers_are_gone(server: CountedServer) -> None:
    Callers.server = server
    machine: Any = Callers.TestCase
    machine.settings = settings(
        max_examples=40,
        stateful_step_count=30,
        suppress_health_check=list(HealthCheck),
        phases=(Phase.generate,),  # a failure is found by waiting, so making it smaller would take an hour
    )
    machine().runTest()


@pytest.mark.parametrize("image", [SMALL, UNREAD, LARGE], ids=["small", "unread", "large"])
def test_nothing_is_held_after_a_drain(image: bytes) -> None:
    """Of calls that wait for a message, for the detector and for a caller that does not read."""
    stop = threading.Event()
    with ExitStack() as stack:
        server = CountedServer(stack, stop)
        server.load_default()
        server.detector.gate.clear()
        callers = [Caller(server.channel, method, image, None) for method in sorted(METHODS)]
        for number, caller in enumerate(callers):
            for _ in range(number % 4):
                caller.send()
        wait_until(lambda: server.held()[0] != NOTHING)
        stop.set()
        server.detector.gate.set()
        server.wait_until_nothing_is_held()
        for caller in callers:
            caller.cancel()
