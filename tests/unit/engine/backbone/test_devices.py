"""Which device a name stands for, and what happens when it fails."""

from __future__ import annotations

import logging
import os
import types

import pytest
import torch

from patchserve_server.domain.errors import StartupError
from patchserve_server.engine.backbone.devices import Stopwatch, device_errors, resolve_device
from patchserve_server.engine.backbone.lost_device import EXIT_CODE, end_if_lost

CPU = torch.device("cpu")


@pytest.mark.parametrize("name", ["gpu", "cuda:", "cuda:x", "cpu:0", ""])
def test_an_unknown_device_is_rejected_with_the_known_ones(name: str) -> None:
    with pytest.raises(StartupError, match=f'Unknown device "{name}". Use auto, cpu, cuda or cuda:N'):
        resolve_device(name)


def test_without_cuda_auto_is_the_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert resolve_device("auto") == resolve_device("cpu") == CPU
    monkeypatch.setattr(torch.version, "cuda", "13.0")
    with pytest.raises(StartupError, match=r"used here: nvidia-smi must .* CUDA 13\.0 or newer\. Use --device cpu"):
        resolve_device("cuda")
    monkeypatch.setattr(torch.version, "cuda", None)
    with pytest.raises(StartupError, match=r"used here: torch .* is built without CUDA.*\. Use --device cpu"):
        resolve_device("cuda")


def test_with_cuda_auto_is_the_first_device(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert resolve_device("cpu") == CPU
    assert resolve_device("auto") == resolve_device("cuda") == torch.device("cuda", 0)
    assert resolve_device("cuda:1") == torch.device("cuda", 1)
    with pytest.raises(StartupError, match=r'no device "cuda:2" here\. The last one is cuda:1'):
        resolve_device("cuda:2")


def test_cuda_computes_reproducibly(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", True)
    monkeypatch.setattr(torch.backends.cudnn, "deterministic", False)
    resolve_device("cuda")
    assert not torch.backends.cudnn.allow_tf32
    assert torch.backends.cudnn.deterministic


def test_sums_of_products_on_cuda_are_float32(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    names = ("allow_tf32", "allow_fp16_reduced_precision_reduction", "allow_bf16_reduced_precision_reduction")
    products = torch.backends.cuda.matmul
    before = [getattr(products, name) for name in names]
    for name in names:
        setattr(products, name, True)
    try:
        resolve_device("cuda")
        assert [getattr(products, name) for name in names] == [False] * 3
        assert torch.get_float32_matmul_precision() == "highest"
    finally:
        for name, value in zip(names, before, strict=True):
            setattr(products, name, value)


class Event:
    """One of a GPU: it has a time only when what comes before it is done."""

    def __init__(self, **_: bool) -> None:
        self.is_done = False

    def record(self, _stream: object) -> None:
        self.at_ms = 2.0

    def synchronize(self) -> None:
        self.is_done = True

    def elapsed_time(self, end: Event) -> float:
        if not end.is_done:
            raise RuntimeError("Both events must be completed before calculating elapsed time.")
        return 1e-3


def test_a_stopwatch_waits_for_the_lap_that_it_tells(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "Event", Event)
    monkeypatch.setattr(torch.cuda, "current_stream", lambda _device: None)
    watch = Stopwatch(torch.device("cuda", 1))
    watch.lap()
    first_s, second_s = watch.laps_s()
    assert first_s == pytest.approx(1e-6)
    assert second_s >= 0


class Lost:
    def synchronize(self) -> None:
        raise RuntimeError("CUDA error: an illegal memory access was encountered\nMore of it.")


@pytest.fixture
def ended(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The exit codes with which the process would have ended."""
    codes = list[int]()
    monkeypatch.setattr(os, "_exit", codes.append)
    monkeypatch.setattr(logging, "shutdown", lambda: None)
    return codes


def test_a_process_whose_gpu_is_lost_ends_and_says_so(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, ended: list[int]
) -> None:
    monkeypatch.setattr(torch.cuda, "current_stream", lambda _device: Lost())
    with pytest.raises(RuntimeError, match="cuBLAS"), device_errors(torch.device("cuda", 1)):
        raise RuntimeError("cuBLAS: CUBLAS_STATUS_EXECUTION_FAILED")
    assert ended == [EXIT_CODE]
    assert "cuda:1 is lost (CUDA error: an illegal memory access was encountered)" in caplog.text


@pytest.mark.parametrize(
    ("device", "error", "is_lost"),
    [
        ("cpu", RuntimeError("a bug"), True),
        ("cuda", ValueError("wrong input"), True),
        ("cuda", torch.OutOfMemoryError("CUDA out of memory."), True),
        ("cuda", RuntimeError("a bug"), False),
    ],
)
def test_other_errors_end_no_process(
    monkeypatch: pytest.MonkeyPatch, ended: list[int], device: str, error: Exception, is_lost: bool
) -> None:
    working = types.SimpleNamespace(synchronize=lambda: None)
    monkeypatch.setattr(torch.cuda, "current_stream", lambda _device: Lost() if is_lost else working)
    end_if_lost(torch.device(device), error)
    assert not ended
