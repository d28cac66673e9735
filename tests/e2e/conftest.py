"""One real server shared by the tests of a process. Each test uses its own reference ids, and deletes `default`."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress

import grpc
import pytest
from e2e.harness import CARDS, ServerProcess, Stub, connect, load, server_process

from patchserve.v1.reference_pb2 import DeleteReferenceRequest, Reference


@pytest.fixture(scope="session")
def server() -> Iterator[ServerProcess]:
    with server_process("--http-port", "0") as running:
        yield running


@pytest.fixture
def stub(server: ServerProcess) -> Iterator[Stub]:
    with connect(server.address) as connected:
        yield connected


@pytest.fixture
def default_reference(stub: Stub) -> Iterator[str]:
    """For tests that load the reference `default` into the shared server: it is deleted after them."""
    yield "default"
    with suppress(grpc.RpcError):  # a test that failed early has not loaded it
        stub.DeleteReference(DeleteReferenceRequest(reference_id="default"))


@pytest.fixture(scope="session")
def cards(server: ServerProcess) -> Reference:
    """The reference `cards` of six drawn cards. Tests only read it."""
    with connect(server.address) as connected:
        return load(connected, CARDS, 6)
