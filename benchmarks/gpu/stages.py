"""Where the time of a call of the detector goes: by stage, on the host and on the device, and by kernel."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Any
from unittest.mock import patch

import torch
from torch._C._autograd import DeviceType
from torch.autograd.profiler_util import FunctionEventAvg
from torch.profiler import ProfilerActivity, profile

from patchserve_server.engine.backbone.device_runtime import DeviceRuntime
from patchserve_server.engine.backbone.devices import synchronize
from patchserve_server.engine.patchcore import device_outcome
from patchserve_server.engine.patchcore.device_plan import DevicePlan
from patchserve_server.engine.patchcore.pipeline import Pipeline
from patchserve_server.engine.patchcore.scorer import PatchCoreScorer

_SHOWN_KERNELS = 14
_PROFILED_CALLS = 30  # a profile of more is long to read
_LONGEST_NAME = 70


@dataclass
class _Stage:
    host_s: float = 0.0
    marks: list[tuple[torch.cuda.Event, torch.cuda.Event]] = field(default_factory=list)

    @property
    def device_ms(self) -> float:
        return float(sum(begin.elapsed_time(end) for begin, end in self.marks))


@dataclass(frozen=True)
class Stages:
    """The means of calls."""

    call_ms: float
    table: str


def stages(scorer: PatchCoreScorer, detect: Callable[[], object], seconds: float) -> Stages:
    """Measures the stages of calls. On the device, a stage is from its first kernel to its last, with what waits."""
    runtime = scorer.pipeline.runtime
    assert isinstance(runtime, DeviceRuntime)
    is_gpu, found = runtime.device.type == "cuda", dict[str, _Stage]()
    targets: list[tuple[Any, str, str]] = [
        (runtime.transfers, "to_device", "copy in"),
        (runtime, "layers_of", "network"),
        (Pipeline, "vectors_of_tiles", "patch vectors"),
        (device_outcome, "search_on_device", "search"),
        (Pipeline, "patch_scores", "patch scores"),
        (DevicePlan, "maps", "maps"),
        (runtime.transfers, "to_host", "copy out, and the wait for all before"),
        (device_outcome.Searched, "resolve", "searches again"),
    ]
    with ExitStack() as stack:
        for owner, name, what in targets:
            timed = _timed(getattr(owner, name), found.setdefault(what, _Stage()), is_gpu=is_gpu)
            stack.enter_context(patch.object(owner, name, timed))
        detect()
        for stage in found.values():
            stage.host_s, stage.marks = 0.0, []
        calls, started_s = 0, time.perf_counter()
        while (whole_s := time.perf_counter() - started_s) < seconds or not calls:
            detect()
            calls += 1
        synchronize(runtime.device)
    lines = ["| stage | host ms | device ms |", "| --- | --- | --- |"]
    for name, stage in found.items():
        device = f"{stage.device_ms / calls:.3f}" if is_gpu else ""
        lines.append(f"| {name} | {1000 * stage.host_s / calls:.3f} | {device} |")
    rest_s = whole_s - sum(stage.host_s for stage in found.values())
    lines.append(f"| everything else | {1000 * rest_s / calls:.3f} | |")
    lines.append(f"| a call | {1000 * whole_s / calls:.3f} | |")
    return Stages(1000 * whole_s / calls, "\n".join(lines))


def _timed(run: Callable[..., Any], stage: _Stage, *, is_gpu: bool) -> Callable[..., Any]:
    def timed(*arguments: Any, **named: Any) -> Any:
        begin = _mark() if is_gpu else None
        started_s = time.perf_counter()
        try:
            return run(*arguments, **named)
        finally:
            stage.host_s += time.perf_counter() - started_s
            if begin is not None:
                stage.marks.append((begin, _mark()))

    return timed


def _mark() -> torch.cuda.Event:
    event = torch.cuda.Event(enable_timing=True)  # type: ignore[no-untyped-call]
    event.record()
    return event


def kernels(device: torch.device, detect: Callable[[], object], seconds: float) -> tuple[float, str]:
    """The share of the time in which the device computes, and its kernels; on a CPU, its operations.

    What follows in this process may be slower, or may fail: profile last.
    """
    is_gpu = device.type == "cuda"
    activities = [ProfilerActivity.CPU, ProfilerActivity.CUDA] if is_gpu else [ProfilerActivity.CPU]
    with profile(activities=activities, acc_events=True) as profiler:
        calls, started_s = 0, time.perf_counter()
        while ((whole_s := time.perf_counter() - started_s) < seconds and calls < _PROFILED_CALLS) or not calls:
            detect()
            calls += 1
        synchronize(device)
    averages = profiler.key_averages()
    busy_us = {event.key: self_us(event, is_gpu=is_gpu) for event in averages}
    launches = {event.key: event.count for event in averages}
    busy_s = sum(busy_us.values()) / 1e6
    lines = ["| kernel | ms in a call | share of all | times in a call |", "| --- | --- | --- | --- |"]
    for name in sorted(busy_us, key=busy_us.__getitem__, reverse=True)[:_SHOWN_KERNELS]:
        if busy_us[name]:
            share = busy_us[name] / 1e6 / busy_s
            short = name[:_LONGEST_NAME].replace("|", "/")
            lines.append(f"| {short} | {busy_us[name] / 1e3 / calls:.3f} | {share:.2f} | {launches[name] / calls:g} |")
    lines.append(f"| all | {1000 * busy_s / calls:.3f} | {busy_s / whole_s:.2f} of the time | |")
    return busy_s / whole_s, "\n".join(lines)


def self_us(event: FunctionEventAvg, *, is_gpu: bool) -> float:
    if not is_gpu:
        return float(event.self_cpu_time_total)
    # What runs on the device itself: operations of the host have the time of their kernels too. An event's type may be
    # another object, so `is` would not find it.
    return float(event.self_device_time_total) if event.device_type == DeviceType.CUDA else 0.0
