"""One real server for all tests that leave it as it was; each uses reference ids of its own."""

from __future__ import annotations

from collections.abc import Iterator

import grpc
import pytest
from e2e.harness import MESSAGE_OPTIONS, ServerProcess

from patchserve.v1 import service_pb2_grpc


@pytest.fixture(scope="session")
def server() -> Iterator[ServerProcess]:
    running = ServerProcess()
    running.wait_ready()
    yield running
    code = running.stop()
    assert code == 0, running.log
    log = "".join(running.log)
    assert "Traceback" not in log, log


@pytest.fixture
def stub(server: ServerProcess) -> Iterator[service_pb2_grpc.PatchCoreServiceStub]:
    with grpc.insecure_channel(server.address, options=MESSAGE_OPTIONS) as channel:
        yield service_pb2_grpc.PatchCoreServiceStub(channel)
