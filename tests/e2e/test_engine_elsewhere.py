"""An engine of another machine and the fronts that use it: over TCP, with certificates of both."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import grpc
import pytest
from e2e.harness import ServerProcess, connect, load, refusal, until_stopped
from e2e.processes import PROGRAM, SeveralProcesses
from fakes.certificates import Authority
from fakes.gray import gray_png
from fakes.waiting import wait_until

from patchserve.v1.inference_pb2 import InferRequest
from patchserve.v1.reference_pb2 import GetReferenceRequest

REQUEST = InferRequest(image=gray_png(100))


class EngineProcess(SeveralProcesses):
    """`patchserve-server engine`, with a FakeDetector."""

    def __init__(self, *flags: str) -> None:
        ServerProcess.__init__(self, *flags, command="engine", program=PROGRAM)
        self.fronts = 0


class FrontsProcess(SeveralProcesses):
    """`patchserve-server serve --engine ADDRESS`."""

    def __init__(self, address: str, *flags: str, fronts: int = 1) -> None:
        super().__init__("--engine", address, *flags, fronts=fronts)


class Files:
    """The certificates of an engine and of its fronts."""

    def __init__(self, folder: Path) -> None:
        authority, ca = Authority(), folder / "ca.pem"
        ca.write_bytes(authority.certificate)
        cert, key = authority.write(folder, "engine")
        self.of_engine = ["--tls-cert", str(cert), "--tls-key", str(key), "--tls-client-ca", str(ca)]
        cert, key = authority.write(folder, "front")
        self.of_fronts = ["--engine-tls-cert", str(cert), "--engine-tls-key", str(key), "--engine-tls-ca", str(ca)]


@contextmanager
def both(engine_flags: list[str], front_flags: list[str]) -> Iterator[tuple[EngineProcess, FrontsProcess]]:
    with until_stopped(EngineProcess(*engine_flags)) as engine:
        address = engine.address.replace("127.0.0.1", "localhost")
        with until_stopped(FrontsProcess(address, *front_flags, fronts=2)) as fronts:
            yield engine, fronts


def test_fronts_use_an_engine_over_tcp_lose_it_and_have_it_back(tmp_path: Path) -> None:
    files, store = Files(tmp_path), tmp_path / "store"
    with (
        both(["--store", str(store), *files.of_engine], files.of_fronts) as (engine, fronts),
        fronts.stub_at(0) as one,
        fronts.stub_at(1) as other,
    ):
        revision = load(one, "default", 2).revision
        assert other.Infer(REQUEST).reference_revision == revision
        assert other.GetReference(GetReferenceRequest()).reference.revision == revision
        engine.kill("engine")
        wait_until(lambda: "The engine is lost" in fronts.log)
        with pytest.raises(grpc.RpcError) as caught:
            one.Infer(REQUEST)
        code, reason, details = refusal(caught.value)
        assert (code, reason) == (grpc.StatusCode.UNAVAILABLE, "ENGINE_LOST")
        assert "RetryInfo" in details
        for stub in (one, other):
            wait_until(lambda: answers(stub))  # noqa: B023
            assert stub.Infer(REQUEST).reference_revision == revision
    assert "cannot be used" not in fronts.log


def answers(stub: object) -> bool:
    try:
        stub.Infer(REQUEST)  # type: ignore[attr-defined]
    except grpc.RpcError:
        return False
    return True


def test_fronts_of_several_servers_share_an_engine_and_wait_until_it_is_there(tmp_path: Path) -> None:
    address = f"unix:{tmp_path}/engine"
    early = FrontsProcess(address)
    wait_until(lambda: f"The engine at {address} cannot be reached" in early.log)
    with (
        until_stopped(EngineProcess("--host", address)),
        until_stopped(early),
        until_stopped(FrontsProcess(address)) as late,
        connect(early.address) as one,
        connect(late.address) as other,
    ):
        revision = load(one, "default", 1).revision
        assert other.Infer(REQUEST).reference_revision == revision


def test_an_engine_that_others_could_use_does_not_start() -> None:
    server = ServerProcess("--host", "0.0.0.0", command="engine", program=PROGRAM)
    assert server.wait() == 1
    assert "Other machines can reach 0.0.0.0" in server.log
    assert "Traceback" not in server.log
