"""CUDA graphs, with fakes of what torch has for them: what is left behind when a capture fails."""

from __future__ import annotations

import logging
import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import pytest
import torch
from torch import Tensor

from patchserve_server.engine.backbone.graphs import CudaGraphs, Pass

ON_GPU = torch.device("cuda", 1)


@dataclass
class Gpu:
    """Says what was asked of it, in order."""

    calls: list[str] = field(default_factory=list)
    fails_at_end: bool = False


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> Gpu:
    gpu = Gpu()

    class Stream:
        def __init__(self, device: torch.device) -> None:
            assert device == ON_GPU

        def wait_stream(self, _other: object) -> None:
            gpu.calls.append("wait")

    class Graph:
        def capture_begin(self, pool: object, capture_error_mode: str) -> None:
            gpu.calls.append(f"begin {pool} {capture_error_mode}")

        def capture_end(self) -> None:
            gpu.calls.append("end")
            if gpu.fails_at_end:
                raise RuntimeError("CUDA error: operation failed due to a previous error during capture\nMore of it.")

        def replay(self) -> None:
            gpu.calls.append("replay")

    @contextmanager
    def current(_stream: Stream) -> Iterator[None]:
        gpu.calls.append("aside")
        yield
        gpu.calls.append("back")

    pools = iter(("pool", "second pool", "third pool"))
    monkeypatch.setattr(torch.cuda, "graph_pool_handle", lambda: next(pools))
    monkeypatch.setattr(torch.cuda, "empty_cache", lambda: gpu.calls.append("release"))
    monkeypatch.setattr(torch.cuda, "Stream", Stream)
    monkeypatch.setattr(torch.cuda, "current_stream", Stream)
    monkeypatch.setattr(torch.cuda, "stream", current)
    monkeypatch.setattr(torch.cuda, "CUDAGraph", Graph)
    return gpu


def counting(failure: Exception | None = None, *, fails_at: int = 4, fails_from: int = 99) -> tuple[Pass, list[Tensor]]:
    """A pass, and its results: the first three runs warm it up, and the fourth is captured."""
    made = list[Tensor]()

    def run() -> tuple[Tensor, ...]:
        made.append(torch.zeros(1))
        if failure is not None and (len(made) == fails_at or len(made) >= fails_from):
            raise failure
        return (made[-1],)

    return run, made


def test_a_captured_pass_is_repeated_in_the_memory_of_its_capture(gpu: Gpu) -> None:
    run, made = counting()
    replay = CudaGraphs(ON_GPU).capture(run)
    assert gpu.calls == ["wait", "aside", "begin pool thread_local", "end", "back", "wait"]
    assert len(made) == 4
    assert replay()[0] is replay()[0] is made[-1]
    assert gpu.calls[-2:] == ["replay", "replay"]
    assert len(made) == 4


@pytest.mark.parametrize("at_end", [True, False])
def test_a_pass_that_cannot_be_captured_runs_as_it_is(gpu: Gpu, caplog: pytest.LogCaptureFixture, at_end: bool) -> None:
    gpu.fails_at_end = True
    run, made = counting(None if at_end else RuntimeError("operation not permitted when stream is capturing"))
    prepared = CudaGraphs(ON_GPU).capture(run)
    assert gpu.calls[-3:] == ["end", "back", "wait"]
    assert "runs without a CUDA graph" in caplog.text
    assert "More of it" not in caplog.text
    assert prepared()[0] is made[-1]


def test_a_capture_with_too_little_memory_is_made_once_more_with_what_torch_keeps(gpu: Gpu) -> None:
    run, made = counting(torch.OutOfMemoryError("CUDA out of memory."))
    replay = CudaGraphs(ON_GPU).capture(run)
    assert gpu.calls[3:] == ["end", "release", "begin second pool thread_local", "end", "back", "wait"]
    assert replay()[0] is made[-1]


def test_then_nothing_holds_what_the_capture_has_computed(gpu: Gpu, monkeypatch: pytest.MonkeyPatch) -> None:
    computed, alive = list[weakref.ref[Tensor]](), list[bool]()

    def run() -> tuple[Tensor, ...]:
        between = torch.zeros(1)
        computed.append(weakref.ref(between))
        if len(computed) == 4:
            raise torch.OutOfMemoryError("CUDA out of memory.")
        return (torch.zeros(1),)

    monkeypatch.setattr(torch.cuda, "empty_cache", lambda: alive.append(computed[3]() is not None))
    CudaGraphs(ON_GPU).capture(run)
    assert alive == [False]


def test_a_failed_capture_leaves_the_pool_of_those_before_it(gpu: Gpu) -> None:
    graphs = CudaGraphs(ON_GPU)
    graphs.capture(counting()[0])
    graphs.capture(counting(torch.OutOfMemoryError("CUDA out of memory."))[0])
    assert {call for call in gpu.calls if call.startswith("begin")} == {"begin pool thread_local"}


def test_too_little_memory_for_a_capture_is_said_as_that(gpu: Gpu, caplog: pytest.LogCaptureFixture) -> None:
    gpu.fails_at_end = True
    run, _ = counting(torch.OutOfMemoryError("CUDA out of memory."), fails_from=4)
    with caplog.at_level(logging.WARNING), pytest.raises(torch.OutOfMemoryError):
        CudaGraphs(ON_GPU).capture(run)
    assert gpu.calls[-1] == "end"
    assert not caplog.text
