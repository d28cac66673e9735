"""Envoy as deploy/envoy configures it, in front of servers that come, go and fail."""

from __future__ import annotations

import re
import subprocess
import threading
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import grpc
import pytest
from e2e.harness import Stub, load
from e2e.replicas import Replica, Replicas, replicas
from fakes.gray import gray_png
from fakes.waiting import wait_until

from patchserve.v1.inference_pb2 import InferRequest
from patchserve.v1.reference_pb2 import GetReferenceRequest, LoadReferenceRequest, LoadReferenceStreamRequest
from patchserve.v1.server_info_pb2 import GetServerInfoRequest, GetServerStatsRequest

IMAGE = gray_png(100)
NAMES = [f"part-{number}" for number in range(60)]
SLOW_S = 0.7
CHART = Path(__file__).resolve().parents[2] / "deploy" / "helm" / "patchserve"


@pytest.fixture(scope="module")
def hashing(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Replicas]:
    with replicas(tmp_path_factory.mktemp("hashing"), policy="by-reference") as fleet:
        yield fleet


@pytest.fixture(scope="module")
def slow_servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Replicas]:
    """Two servers that score for SLOW_S."""
    with replicas(tmp_path_factory.mktemp("slow"), 2, score_s=SLOW_S) as fleet:
        yield fleet


@pytest.fixture
def slow(slow_servers: Replicas) -> Replicas:
    """Those that an earlier test has killed run again, and each has the reference `slow`."""
    for server in slow_servers.servers:
        if server.process.poll() is not None:
            slow_servers.start_again(server)
    for server in slow_servers.servers:
        with server.stub() as stub:
            load(stub, "slow", 1)
    return slow_servers


def server_of(fleet: Replicas, stub: Stub, name: str) -> str:
    """The address of the server to which Envoy sends a call for this reference."""
    before = {address: host.calls for address, host in fleet.envoy.hosts().items()}
    stub.GetServerInfo(GetServerInfoRequest(), metadata=(("x-patchserve-reference", name),))
    (address,) = [address for address, host in fleet.envoy.hosts().items() if host.calls > before[address]]
    return address


def test_a_reference_has_one_server_and_only_the_share_of_a_server_that_leaves_moves(hashing: Replicas) -> None:
    with hashing.stub() as stub:
        first = {name: server_of(hashing, stub, name) for name in NAMES}
        shares = Counter(first.values())
        assert len(shares) == 3
        assert {name: server_of(hashing, stub, name) for name in NAMES} == first
        leaving = hashing.servers[0]
        hashing.remove(leaving)
        after = {name: server_of(hashing, stub, name) for name in NAMES}
        moved = {name for name in NAMES if after[name] != first[name]}
        of_leaving = {name for name in NAMES if first[name] == leaving.address}
        assert of_leaving <= moved
        assert len(moved - of_leaving) <= 2, "Maglev's table moves a few others"
        new = hashing.add()
        gained = Counter(server for name in NAMES if (server := server_of(hashing, stub, name)) != after[name])
        assert gained[new.address] > 0
        assert gained.total() - gained[new.address] <= 2


def test_calls_without_a_reference_reach_every_server(hashing: Replicas) -> None:
    before = {address: host.calls for address, host in hashing.envoy.hosts().items()}
    with hashing.stub() as stub:
        for _ in range(60):
            stub.GetServerInfo(GetServerInfoRequest())
    assert all(host.calls > before[address] for address, host in hashing.envoy.hosts().items())


def working(fleet: Replicas) -> Replica:
    """The server that works on a call, when there is one."""
    found: list[Replica] = []

    def is_working() -> bool:
        for server in fleet.servers:
            with server.stub() as stub:
                stats = stub.GetServerStats(GetServerStatsRequest())
            if stats.images_in_progress or stats.loads_in_progress:
                found.append(server)
        return bool(found)

    wait_until(is_working)
    return found[0]


def test_an_image_whose_server_is_killed_is_inspected_by_another_one(slow: Replicas) -> None:
    with slow.stub() as stub, ThreadPoolExecutor() as pool:
        call = pool.submit(stub.Infer, InferRequest(reference_id="slow", image=IMAGE))
        slow.kill(working(slow))
        assert call.result(30).reference_id == "slow"
        assert stub.Infer(InferRequest(reference_id="slow", image=IMAGE)).reference_id == "slow"


def test_a_load_whose_server_is_killed_is_left_to_its_caller(slow: Replicas) -> None:
    ended = threading.Event()

    def messages() -> Iterator[LoadReferenceStreamRequest]:
        yield LoadReferenceStreamRequest(start=LoadReferenceRequest(reference_id="new", images=[IMAGE]))
        ended.wait(30)

    with slow.stub() as stub, ThreadPoolExecutor() as pool:
        call = pool.submit(stub.LoadReferenceStream, messages())
        slow.kill(working(slow))
        with pytest.raises(grpc.RpcError) as caught:
            call.result(30)
        ended.set()
        assert caught.value.code() is grpc.StatusCode.UNAVAILABLE
        with pytest.raises(grpc.RpcError) as unknown:
            stub.GetReference(GetReferenceRequest(reference_id="new"))
        assert unknown.value.code() is grpc.StatusCode.NOT_FOUND


def test_with_no_server_a_call_fails_at_once_and_with_the_next_one_it_works_again(slow: Replicas) -> None:
    for server in slow.servers:
        slow.kill(server)
    with slow.stub() as stub:
        with pytest.raises(grpc.RpcError) as caught:
            stub.GetServerInfo(GetServerInfoRequest(), timeout=20)
        assert caught.value.code() is grpc.StatusCode.UNAVAILABLE
        slow.start_again(slow.servers[1])
        assert stub.GetServerInfo(GetServerInfoRequest(), timeout=20).backbone == "fake"


def before_stop() -> str:
    """What the Helm chart does in the pod of Envoy before it is stopped, without the wait."""
    template = CHART / "templates" / "envoy.yaml"
    (command,) = re.findall(r"exec 3<>/dev/tcp.*?(?=; sleep)", template.read_text(), re.DOTALL)
    return " ".join(command.split())


def test_an_envoy_that_drains_finishes_its_calls(slow: Replicas) -> None:
    with slow.stub() as stub, ThreadPoolExecutor() as pool:
        call = pool.submit(stub.Infer, InferRequest(reference_id="slow", image=IMAGE))
        working(slow)
        command = before_stop().replace("/127.0.0.1/9901", f"/127.0.0.1/{slow.envoy.admin_port}")
        asked = subprocess.run(["bash", "-c", command], capture_output=True, text=True, timeout=20, check=True)
        assert asked.stdout.strip() == "HTTP/1.1 200 OK"
        assert call.result(30).reference_id == "slow"
