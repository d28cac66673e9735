"""A server whose permits a test can count, with small limits and a detector that can be stopped."""

from __future__ import annotations

import threading
from contextlib import ExitStack
from typing import Any

import grpc
import pytest
from e2e.in_process import running_server
from fakes.detector import FakeDetector
from fakes.gray import gray_png
from fakes.images import encoded, noise
from fakes.waiting import wait_until

from patchserve.v1 import inference_pb2, reference_pb2
from patchserve_server.bootstrap import composition
from patchserve_server.serving.admission import NOTHING
from patchserve_server.serving.application import Application
from patchserve_server.web import server as web_server
from patchserve_server.web.connections import Connections

SMALL = gray_png(100)
UNREAD = encoded(noise(520), quality=60)  # its overlay of 0.8 MB fits into a message and into no buffer on the way
LARGE = encoded(noise(800), quality=60)  # its overlay of 1.9 MB does not fit into a message
IMAGES = {"small": SMALL, "unread": UNREAD, "large": LARGE, "broken": b"no image"}
LIMITS: dict[str, Any] = {
    "max_message_mib": 1,
    "max_pending_mib": 8,
    "max_pending_images": 6,
    "max_pending_loads": 2,
    "max_calls": 16,
    "client_share": 1.0,
    "stream_write_timeout_s": 0.2,
    "default_timeout_s": 5.0,
    "max_batch_size": 1,
}


class CountedServer:
    """The server, with the reference `default` of one image, its counters, and a channel to it.

    Args:
        stack: ends it.
        stop: begins the drain when it is set, like SIGTERM.
        settings: other than LIMITS.
    """

    def __init__(self, stack: ExitStack, stop: threading.Event | None = None, **settings: Any) -> None:
        self.detector = FakeDetector()
        applications: list[Application] = []
        create = composition.create_application

        async def create_and_keep(*arguments: Any) -> Application:
            applications.append(await create(*arguments))
            return applications[-1]

        self._connections: list[Connections] = []

        def create_connections(*arguments: Any) -> Connections:
            self._connections.append(Connections(*arguments))
            return self._connections[-1]

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(web_server, "Connections", create_connections)
            patch.setattr(composition, "create_application", create_and_keep)
            running = running_server(detector=self.detector, stop=stop, **LIMITS | settings)
            self.running = stack.enter_context(running)
        stack.callback(self.detector.gate.set)
        (self.application,) = applications
        options = [("grpc.http2.bdp_probe", 0), ("grpc.use_local_subchannel_pool", 1)]
        self.channel = stack.enter_context(grpc.insecure_channel(self.running.address, options))
        self.http_url = self.running.http_url

    def load_default(self, **options: Any) -> None:
        """Loads the reference `default`."""
        load: Any = self.channel.unary_unary("/patchserve.v1.PatchCoreService/LoadReference")
        load(reference_pb2.LoadReferenceRequest(images=[SMALL]).SerializeToString(), **options)

    def infer(self, **options: Any) -> None:
        """Inspects a small image over gRPC."""
        infer: Any = self.channel.unary_unary("/patchserve.v1.PatchCoreService/Infer")
        infer(inference_pb2.InferRequest(image=SMALL).SerializeToString(), **options)

    def held(self) -> list[Any]:
        at = self.application
        return [admission.held for admission in (at.calls, at.images, at.loads)]

    def http_connections(self) -> int:
        """How many are open."""
        (connections,) = self._connections
        return connections.count

    def wait_until_nothing_is_held(self) -> None:
        wait_until(lambda: self.held() == [NOTHING] * 3)
