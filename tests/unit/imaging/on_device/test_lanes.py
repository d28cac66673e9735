"""Work of each thread is on a stream of its own, and its results are handed over to the stream outside."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from threading import Barrier
from typing import Any

import pytest
import torch

from patchserve_server.imaging.on_device.lanes import Lane, Lanes

CPU = torch.device("cpu")


class Stream:
    """A stream of a GPU, and what waits for it."""

    device = torch.device("cuda", 0)

    def __init__(self, name: str, log: list[str]) -> None:
        self.name, self._log = name, log

    def wait_stream(self, other: Stream) -> None:
        self._log.append(f"{self.name} waits for {other.name}")


class Result:
    """A tensor that remembers who reads it."""

    def __init__(self, log: list[str]) -> None:
        self._log = log

    def record_stream(self, stream: Stream) -> None:
        self._log.append(f"read by {stream.name}")


@pytest.fixture
def log(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What a GPU would be told."""
    told = list[str]()

    @contextmanager
    def on(stream: Stream) -> Iterator[None]:
        told.append(f"on {stream.name}")
        yield
        told.append(f"off {stream.name}")

    @contextmanager
    def nothing(_: object) -> Iterator[None]:
        yield

    monkeypatch.setattr(torch.cuda, "stream", on)
    monkeypatch.setattr(torch.cuda, "device", nothing)
    monkeypatch.setattr(torch.cuda, "current_stream", lambda _: Stream("outside", told))
    return told


def test_results_are_handed_over_without_a_wait_of_the_thread(log: list[str]) -> None:
    made: Any = Lane.on(CPU)
    lane: Any = Lane(made.scaler, made.painter, Stream("own", log))  # type: ignore[arg-type]
    with lane.entered():
        log.append("work")
    lane.hand_over([Result(log), Result(log)])
    assert log == ["on own", "work", "off own", "outside waits for own", "read by outside", "read by outside"]


def test_what_a_lane_keeps_is_made_on_its_own_stream(log: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """Only there is it known to be there before it is read."""
    sent = torch.Tensor.to
    monkeypatch.setattr(torch.cuda, "Stream", lambda _: Stream("own", log))

    def to(tensor: torch.Tensor, *_: object) -> torch.Tensor:
        log.append("copy")
        return sent(tensor, CPU)

    with monkeypatch.context() as patch:
        patch.setattr(torch.Tensor, "to", to)
        Lane.on(torch.device("cuda", 0))
    assert log[0] == "on own"
    assert log[-1] == "off own"
    assert "copy" in log


def test_a_cpu_has_no_streams(log: list[str]) -> None:
    lane = Lane.on(CPU)
    with lane.entered():
        pass
    lane.hand_over([torch.zeros(1)])
    assert log == []


def test_each_thread_has_a_lane_of_its_own_and_keeps_it() -> None:
    lanes, both = Lanes(CPU), Barrier(2)

    def own(_: int) -> tuple[Lane, Lane]:
        both.wait(30)
        return lanes.own, lanes.own

    with ThreadPoolExecutor(2) as pool:
        (one, again), (other, _) = pool.map(own, range(2))
    assert one is again
    assert one is not other
    assert one.scaler is not other.scaler
