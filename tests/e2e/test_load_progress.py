"""The progress of a load, asked of a real server while it loads."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import grpc
import pytest
from e2e.harness import ServerProcess, Stub
from fakes.images import card, encoded
from fakes.waiting import wait_until

from patchserve.v1 import reference_pb2
from patchserve_client import Client, LoadProgress, LoadStage

IMAGES = 6
STAGES = list(LoadStage)
SLOW_STAGES = {LoadStage.EMBED, LoadStage.CORESET, LoadStage.CALIBRATE}


class HeldLoad:
    """A streamed load with a coreset. Its last image is sent after `let_go`."""

    def __init__(self, stub: Stub, reference_id: str, seed: int = 0, last: bytes = b"") -> None:
        self._may_end = threading.Event()
        self._images = [encoded(card(seed + number)) for number in range(IMAGES)]
        if last:
            self._images[-1] = last
        self.call: Any = stub.LoadReferenceStream.future(self._messages(reference_id))

    def _messages(self, reference_id: str) -> Iterator[reference_pb2.LoadReferenceStreamRequest]:
        coreset = reference_pb2.CoresetOptions(ratio=0.2)
        start = reference_pb2.LoadReferenceRequest(reference_id=reference_id, coreset=coreset)
        yield reference_pb2.LoadReferenceStreamRequest(start=start)
        for image in self._images[:-1]:
            yield reference_pb2.LoadReferenceStreamRequest(image=image)
        assert self._may_end.wait(60)
        yield reference_pb2.LoadReferenceStreamRequest(image=self._images[-1])

    def let_go(self) -> None:
        self._may_end.set()


def wait_for_all_but_the_last_image(client: Client, reference_id: str) -> None:
    wait_until(lambda: [load.image_count for load in client.list_loads(reference_id)] == [IMAGES - 1])


def watched(stub: Stub, client: Client, reference_id: str, seed: int) -> list[LoadProgress]:
    """All reports of one load, from the moment when all images but one have arrived."""
    load = HeldLoad(stub, reference_id, seed)
    wait_for_all_but_the_last_image(client, reference_id)
    seen = client.list_loads(reference_id)
    load.let_go()
    while not load.call.done():
        seen += client.list_loads(reference_id)
    assert load.call.result().reference.image_count == IMAGES
    assert client.list_loads(reference_id) == []
    return seen


def test_progress_goes_from_stage_to_stage(server: ServerProcess, stub: Stub) -> None:
    before = datetime.now(UTC)
    stages: set[LoadStage | None] = set()
    with Client(server.address) as client:
        for attempt in range(20):  # a stage can pass between two questions
            seen = watched(stub, client, "watched", seed=100 * attempt)
            held = seen[0]
            assert (held.stage, held.steps_done, held.steps_total) == (LoadStage.RECEIVE, IMAGES - 1, 0)
            assert before <= held.start_time <= datetime.now(UTC)
            assert {load.start_time for load in seen} == {held.start_time}
            told = [(STAGES.index(load.stage), load.steps_done) for load in seen if load.stage is not None]
            assert len(told) == len(seen)
            assert told == sorted(told)
            later = [load for load in seen if load.stage is not LoadStage.RECEIVE]
            assert all(load.steps_done <= load.steps_total and load.image_count == IMAGES for load in later)
            stages |= {load.stage for load in seen}
            if stages >= SLOW_STAGES:
                break
    assert stages >= SLOW_STAGES


def test_a_failed_load_is_no_longer_listed(server: ServerProcess, stub: Stub) -> None:
    with Client(server.address) as client:
        load = HeldLoad(stub, "failing", last=b"no image")
        wait_for_all_but_the_last_image(client, "failing")
        load.let_go()
        with pytest.raises(grpc.RpcError):
            load.call.result()
        assert client.list_loads("failing") == []


def test_a_cancelled_load_is_no_longer_listed(server: ServerProcess, stub: Stub) -> None:
    with Client(server.address) as client:
        load = HeldLoad(stub, "cancelled")
        wait_for_all_but_the_last_image(client, "cancelled")
        assert [one.reference_id for one in client.list_loads()].count("cancelled") == 1
        load.call.cancel()
        load.let_go()
        wait_until(lambda: not client.list_loads("cancelled"))
