"""Prints one table: python -m gpu [--device cuda] [--precision auto]. benchmarks/gpu/run.sh runs it."""

from __future__ import annotations

import argparse
import os
import platform
import tempfile
import time
from pathlib import Path

import torch

from gpu.engine import Engine, Row
from gpu.inputs import write_weights
from gpu.serving import table as served_table
from patchserve_server.bootstrap.process import configure_process
from patchserve_server.engine.backbone.backbone import SharedBackbone
from patchserve_server.engine.backbone.device_runtime import DeviceRuntime, in_precision
from patchserve_server.engine.backbone.graphs import EagerGraphs
from patchserve_server.engine.backbone.loading import load_backbone
from patchserve_server.engine.backbone.transfers import DeviceTransfers
from patchserve_server.engine.detector import PatchCoreDetector
from patchserve_server.engine.factory import create_detector

BACKBONE = "wide_resnet50_2"


def main() -> None:
    parser = argparse.ArgumentParser(prog="benchmarks/gpu/run.sh", description=__doc__)
    parser.add_argument("--device", default="cuda", help="cuda, cuda:N; cpu tries the program out [default: cuda]")
    parser.add_argument("--precision", nargs="+", default=["fp32", "auto"], help="of the engine; the last also serves")
    parser.add_argument("--seconds", type=float, default=2.0, help="of each case [default: 2]")
    parser.add_argument("--fronts", type=int, default=max(1, (os.cpu_count() or 2) // 2 - 2), help="of the server")
    parser.add_argument("--only", choices=("engine", "served"), help="a part of the table")
    arguments = parser.parse_args()
    started_s = time.perf_counter()
    configure_process()
    print(_machine(arguments.device))
    print("\n| what | precision | images/s | ratio | to | goal |\n| --- | --- | --- | --- | --- | --- |")
    with tempfile.TemporaryDirectory() as folder:
        weights = Path(folder) / "random.safetensors"
        write_weights(weights)
        if arguments.only != "served":
            for precision in arguments.precision:
                _print_engine(weights, arguments.device, precision, arguments.seconds)
        if arguments.only != "engine":
            precision = arguments.precision[-1]
            rows = served_table(
                weights,
                Path(folder),
                device=arguments.device,
                precision=precision,
                seconds=2 * arguments.seconds,
                fronts=arguments.fronts,
            )
            _print(rows, precision)
    print(f"\nDone in {(time.perf_counter() - started_s) / 60:.1f} minutes.")


def _print_engine(weights: Path, device: str, precision: str, seconds: float) -> None:
    started_s = time.perf_counter()
    if device == "cpu":
        detector, batch = _on_cpu(weights, precision), 4
    else:
        detector, batch = create_detector(backbone=BACKBONE, weights=weights, device=device, precision=precision), 64
    detector.warm_up()
    name = detector.info.precision
    print(f"| start with {precision}: {time.perf_counter() - started_s:.1f} s | {name} | | | | |")
    _print(Engine(detector, seconds, batch).table(), name)
    if device != "cpu":
        used_mib = torch.cuda.max_memory_allocated() / 2**20
        print(f"| largest memory of the device: {used_mib:.0f} MiB | {name} | | | | |", flush=True)
        torch.cuda.empty_cache()


def _on_cpu(weights: Path, precision: str) -> PatchCoreDetector:
    """The engine of a GPU on the CPU: it shows that the program works, not how fast it is."""
    cpu = torch.device("cpu")
    backbone = load_backbone(BACKBONE, weights, cpu)
    name = "fp32" if precision == "auto" else precision
    module = in_precision(backbone.runtime.module, name)
    runtime = DeviceRuntime(module, name, EagerGraphs(), DeviceTransfers(cpu), sizes=(1, 2, 4))
    return PatchCoreDetector(SharedBackbone(backbone.identity, runtime))


def _print(rows: list[Row], precision: str) -> None:
    for row in rows:
        rate = f"{row.per_s:.0f}" if row.per_s else ""
        ratio = "" if row.ratio is None else f"{row.ratio:.2f}"
        goal = "" if row.goal is None else f"{row.goal:.2f}"
        print(f"| {row.what} | {precision} | {rate} | {ratio} | {row.to} | {goal} |", flush=True)


def _machine(device: str) -> str:
    name = torch.cuda.get_device_name(device) if device != "cpu" else platform.processor() or platform.machine()
    return f"{name}, {os.cpu_count()} cores, Python {platform.python_version()}, torch {torch.__version__}."


if __name__ == "__main__":
    main()
