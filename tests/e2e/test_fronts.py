"""Several fronts and one engine: they are one server, and the death of one process costs its own work only."""

from __future__ import annotations

import os
import queue
import signal
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import grpc
import pytest
import requests
from e2e.harness import Stub, load, refusal
from e2e.processes import SeveralProcesses, server_of_processes
from fakes.event_stream import events
from fakes.gray import gray_png
from fakes.waiting import wait_until
from grpc_health.v1 import health_pb2, health_pb2_grpc

from patchserve.v1.inference_pb2 import InferRequest, InferResponse
from patchserve.v1.reference_pb2 import DeleteReferenceRequest, GetReferenceRequest, ListLoadsRequest
from patchserve.v1.server_info_pb2 import GetServerInfoRequest, GetServerStatsRequest
from patchserve.v1.stream_pb2 import Frame, InferStreamRequest, StreamConfig

IMAGE = gray_png(100)
OWN_CONNECTION = [("grpc.use_local_subchannel_pool", 1)]


@pytest.fixture(scope="module")
def server() -> Iterator[SeveralProcesses]:
    with server_of_processes("--http-port", "0") as running:
        yield running


def infer(stub: Stub, reference_id: str, timeout_s: float = 30) -> InferResponse:
    return stub.Infer(InferRequest(reference_id=reference_id, image=IMAGE), timeout=timeout_s)


def outcome_of(stub: Stub, reference_id: str = "default", timeout_s: float = 60) -> grpc.StatusCode:
    try:
        infer(stub, reference_id, timeout_s)
    except grpc.RpcError as error:
        return error.code()
    return grpc.StatusCode.OK


def is_ready(address: str) -> bool:
    with grpc.insecure_channel(address, OWN_CONNECTION) as channel:
        request = health_pb2.HealthCheckRequest(service="patchserve.v1.PatchCoreService")
        try:
            answer = health_pb2_grpc.HealthStub(channel).Check(request, timeout=5)
        except grpc.RpcError:
            return False
        return bool(answer.status == health_pb2.HealthCheckResponse.SERVING)


def test_a_change_through_one_front_is_seen_by_the_next_call_on_the_other(server: SeveralProcesses) -> None:
    with server.stub_at(0) as first, server.stub_at(1) as second:
        for count in range(1, 20):
            one, other = (first, second) if count % 2 else (second, first)
            revision = load(one, "shared", count % 3 + 1).revision
            assert infer(other, "shared").reference_revision == revision
            assert other.GetReference(GetReferenceRequest(reference_id="shared")).reference.revision == revision
        first.DeleteReference(DeleteReferenceRequest(reference_id="shared"))
        assert outcome_of(second, "shared") is grpc.StatusCode.NOT_FOUND
        assert not second.ListLoads(ListLoadsRequest()).loads


def test_every_front_says_the_same_about_the_server(server: SeveralProcesses) -> None:
    with server.stub_at(0) as one, server.stub_at(1) as other:
        answer = one.GetServerInfo(GetServerInfoRequest())
        assert answer == other.GetServerInfo(GetServerInfoRequest())
        assert answer.http_url == server.http_url


def test_every_front_shows_the_wall_with_pictures_of_all(server: SeveralProcesses) -> None:
    with server.stub_at(0) as one, server.stub_at(1) as other:
        load(one, "wall", 1)
        with events(f"{server.http_url}/watch/events?reference_id=wall") as stream:
            assert stream.next("snapshot").data["tiles"] == []
            for stub in (one, other):
                infer(stub, "wall")
            tiles = {tile["id"]: tile for tile in stream.tiles(2)}
        assert all(tile["thumbnail"] and tile["is_kept"] for tile in tiles.values())
        assert len({tile_id.partition("-")[0] for tile_id in tiles}) == 2, "of two processes"
    for _ in range(8):  # each on a new connection: whichever front has it
        scores = requests.get(f"{server.http_url}/watch/scores?reference_id=wall", timeout=30).json()["scores"]
        assert len(scores) == 2
        for tile_id in tiles:
            assert requests.get(f"{server.http_url}/watch/images/{tile_id}", timeout=30).content == IMAGE
            shown = requests.get(f"{server.http_url}/watch/inspections/{tile_id}", timeout=30).json()
            assert shown["overlay"]["image"].startswith("/9j/")


def test_what_one_front_has_counted_and_kept_is_told_by_all(server: SeveralProcesses) -> None:
    with server.stub_at(0) as one, server.stub_at(1) as other:
        load(one, "counted", 1)
        for stub in (one, one, other):
            infer(stub, "counted")
        for stub in (one, other):
            stats = stub.GetServerStats(GetServerStatsRequest())
            (counts,) = [each for each in stats.references if each.reference_id == "counted"]
            assert counts.intact + counts.anomalous == 3
            assert stats.processes == 2
    answer = requests.post(
        f"{server.http_url}/infer_json", files={"image": IMAGE}, data={"reference_id": "counted"}, timeout=30
    ).json()
    for _ in range(8):
        kept = requests.get(f"{server.http_url}/outputs/{answer['output_image']}", timeout=30)
        assert kept.content.startswith(b"\x89PNG")


def test_the_death_of_a_front_costs_its_own_calls_only() -> None:
    with (
        server_of_processes("--client-share", "1", "--max-pending-images", "4", score_s=3) as server,
        server.stub_at(0) as one,
        server.stub_at(1) as other,
        ThreadPoolExecutor(8) as pool,
    ):
        load(one, "default", 1)
        requests: queue.Queue[InferStreamRequest | None] = queue.Queue()
        requests.put(InferStreamRequest(config=StreamConfig()))
        kept = other.InferStream(iter(requests.get, None))
        assert next(kept).ready.max_in_flight
        lost = [pool.submit(outcome_of, one) for _ in range(5)]
        wait_until(lambda: "image limit reached" in server.log)  # for one of them: the others hold all places
        assert outcome_of(other) is grpc.StatusCode.RESOURCE_EXHAUSTED
        pid = server.kill("front 0")
        assert grpc.StatusCode.UNAVAILABLE in {call.result() for call in lost}
        requests.put(InferStreamRequest(frame=Frame(image=IMAGE)))
        assert next(kept).result.response.reference_id == "default"
        requests.put(None)
        assert not list(kept)
        together = [pool.submit(outcome_of, other) for _ in range(4)]  # the dead one holds nothing any more
        assert {call.result() for call in together} == {grpc.StatusCode.OK}
        wait_until(lambda: server.pid_of("front 0") not in (0, pid))
        with server.stub_at(0) as again:
            wait_until(lambda: outcome_of(again) is grpc.StatusCode.OK)
    assert "front 0 ended (code -9) and is started again" in server.log


def test_the_death_of_the_engine_ends_calls_at_once_and_is_over_soon(tmp_path: Path) -> None:
    with (
        server_of_processes("--store", str(tmp_path), score_s=2) as server,
        server.stub_at(0) as one,
        server.stub_at(1) as other,
        ThreadPoolExecutor(8) as pool,
    ):
        revision = load(one, "default", 2).revision
        requests: list[queue.Queue[InferStreamRequest | None]] = [queue.Queue(), queue.Queue()]
        streams = []
        for stub, sent in zip((one, other), requests, strict=True):
            sent.put(InferStreamRequest(config=StreamConfig()))
            streams.append(stub.InferStream(iter(sent.get, None)))
            assert next(streams[-1]).ready.reference_revision == revision
        waiting = [pool.submit(outcome_of, stub) for stub in (one, other)]
        server.kill("engine")
        assert {call.result() for call in waiting} == {grpc.StatusCode.UNAVAILABLE}
        for stream, sent in zip(streams, requests, strict=True):
            with pytest.raises(grpc.RpcError) as caught:
                next(stream)
            code, reason, _ = refusal(caught.value)
            assert (code, reason) == (grpc.StatusCode.UNAVAILABLE, "ENGINE_LOST")
            sent.put(None)
        for stub in (one, other):
            wait_until(lambda: outcome_of(stub) is grpc.StatusCode.OK)  # noqa: B023
            assert infer(stub, "default").reference_revision == revision
    assert "The engine is lost" in server.log


@pytest.mark.parametrize("name", ["engine", "front 0"])
def test_a_process_that_hangs_is_replaced_and_nobody_waits_for_it(name: str, tmp_path: Path) -> None:
    with (
        server_of_processes("--store", str(tmp_path), silence_s=2) as server,
        server.stub_at(0) as one,
        server.stub_at(1) as other,
    ):
        revision = load(one, "default", 1).revision
        pid = server.pid_of(name)
        os.kill(pid, signal.SIGSTOP)
        if name == "engine":  # calls end, and do not wait for their deadlines
            assert outcome_of(other) is grpc.StatusCode.UNAVAILABLE
            wait_until(lambda: server.log.count("The engine is lost") >= 2)  # each front is not ready then
        wait_until(lambda: server.pid_of(name) not in (0, pid))
        with server.stub_at(0) as again:
            wait_until(lambda: outcome_of(again) is grpc.StatusCode.OK)
            assert infer(again, "default").reference_revision == revision
    assert f"The {name} does not answer for 2 s and is killed" in server.log


def test_a_batch_that_nobody_waits_for_any_more_ends_its_engine(tmp_path: Path) -> None:
    with (
        server_of_processes("--store", str(tmp_path), "--max-timeout-s", "1", score_s=600, silence_s=2) as server,
        server.stub_at(0) as one,
    ):
        load(one, "default", 1)
        pid = server.pid_of("engine")
        assert outcome_of(one) in (grpc.StatusCode.DEADLINE_EXCEEDED, grpc.StatusCode.UNAVAILABLE)
        wait_until(lambda: server.pid_of("engine") not in (0, pid))
    assert "computes one batch for longer than --max-timeout-s and is killed" in server.log


def test_references_in_memory_are_lost_with_the_engine_and_the_log_says_so() -> None:
    with server_of_processes() as server, server.stub_at(0) as one:
        load(one, "default", 1)
        server.kill("engine")
        wait_until(lambda: outcome_of(one) is grpc.StatusCode.NOT_FOUND)
        wait_until(lambda: is_ready(server.address))  # the other front may be a moment later
    assert "References were kept in memory only, and are lost" in server.log


def test_the_limits_hold_over_all_fronts_together() -> None:
    with (
        server_of_processes("--client-share", "1", "--max-pending-images", "4", score_s=3) as server,
        server.stub_at(0) as one,
        server.stub_at(1) as other,
        ThreadPoolExecutor(16) as pool,
    ):
        load(one, "default", 1)
        codes = [call.result() for call in [pool.submit(outcome_of, stub) for stub in (one, other) * 8]]
        assert codes.count(grpc.StatusCode.OK) == 4
        assert codes.count(grpc.StatusCode.RESOURCE_EXHAUSTED) == 12


def test_a_stop_answers_what_was_accepted_on_every_front() -> None:
    with (
        server_of_processes(score_s=1) as server,
        server.stub_at(0) as one,
        server.stub_at(1) as other,
        ThreadPoolExecutor(8) as pool,
    ):
        load(one, "default", 1)
        requests: list[queue.Queue[InferStreamRequest | None]] = [queue.Queue(), queue.Queue()]
        streams = []
        for stub, sent in zip((one, other), requests, strict=True):
            sent.put(InferStreamRequest(config=StreamConfig()))
            streams.append(stub.InferStream(iter(sent.get, None)))
            assert next(streams[-1]).ready.max_in_flight
            sent.put(InferStreamRequest(frame=Frame(frame_id="a", image=IMAGE)))
            sent.put(InferStreamRequest(frame=Frame(frame_id="b", image=IMAGE)))
        for stream in streams:
            assert next(stream).result.frame_id == "a"
        stopping = pool.submit(server.stop)
        for stream, sent in zip(streams, requests, strict=True):
            found: list[str | None] = []
            with pytest.raises(grpc.RpcError) as caught:
                found.extend(response.WhichOneof("payload") for response in stream)
            assert set(found) == {"notice", "result"}
            assert len(found) == 2
            assert refusal(caught.value)[1] == "DRAINING"
            sent.put(None)
        assert stopping.result() == 0


def test_a_second_signal_ends_every_process() -> None:
    server = SeveralProcesses("--drain-delay-s", "60")
    server.wait_ready()
    pids = [server.pid_of(name) for name in ("engine", "front 0", "front 1")]
    server.process.send_signal(signal.SIGTERM)
    wait_until(lambda: "Stopping" in server.log)
    assert server.stop() == 130
    wait_until(lambda: not any(is_alive(pid) for pid in pids))


def is_alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


@pytest.mark.parametrize(
    ("flags", "expected"),
    [
        (["--host", "unix:/tmp/patchserve-fronts.sock"], "--fronts above 1 needs an address with ports"),
        (["--save-outputs", "/tmp/patchserve-fronts-outputs"], "--save-outputs works with one front only"),
        (["--tls-cert", "/nonexistent", "--tls-key", "/nonexistent"], "--tls-cert"),
    ],
)
def test_what_several_fronts_cannot_do_is_said_at_the_start(flags: list[str], expected: str) -> None:
    server = SeveralProcesses(*flags)
    assert server.wait() == 1
    assert expected in server.log
    assert "Traceback" not in server.log
    assert "exception" not in server.log
