"""Prints one table: python -m gpu [--device cuda] [--precision auto]. benchmarks/gpu/run.sh runs it."""

from __future__ import annotations

import argparse
import os
import platform
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

from patchserve_server.bootstrap.process import configure_process

configure_process()

import numpy as np
import torch

from gpu import decoding_part, engine, files, networks, serving
from gpu.inputs import SENT_PX, write_sent_images, write_weights
from gpu.options import SMALL, Options, Scale
from gpu.parts import Part, run_parts
from gpu.table import HEAD, Case, Output
from patchserve_server.domain.errors import StartupError
from patchserve_server.engine.backbone.device_runtime import DTYPES
from patchserve_server.engine.backbone.devices import resolve_device

WEIGHTS = {
    "engine": 95,
    "served": 80,
    "files": 25,
    "more": 25,
    "networks": 25,
    "lite": 20,
    "decoding": 25,
}


def main() -> None:
    arguments = _arguments()
    started_s = time.monotonic() - (max(0.0, time.time() - arguments.began) if arguments.began else 0.0)
    ends_s = started_s + 60 * arguments.minutes
    device = arguments.device
    with tempfile.TemporaryDirectory() as folder:
        options = Options(
            part="",
            folder=folder,
            device=device,
            precision=arguments.precision[-1],
            seconds=arguments.seconds,
            fronts=arguments.fronts or ("2" if device == "cpu" else "auto"),
            backbone=arguments.backbone,
            scale=SMALL if device == "cpu" else Scale(),
        )
        parts = [part for part in _parts(options, arguments.precision) if _is_wanted(part.name, arguments.only)]
        if not parts:
            raise SystemExit(f"--only {' '.join(arguments.only)}: no part has a name that begins so. See --help.")
        kept = os.environ.get("OUT")
        output = Output(Path(kept) if kept else None)
        output.row(_machine(device))
        output.row("Goals are those of an H100 or H200 and 16 cores. The bare network has its inputs on the device.")
        write_weights(arguments.backbone, options.weights(arguments.backbone))
        write_sent_images(options.images)
        output.row(_what_is_served(options))
        output.row(f"\n{HEAD}")
        run_parts(parts, options, ends_s, show=output.row, note=output.note)
    output.end(f"Done in {(time.monotonic() - started_s) / 60:.1f} minutes.")


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="benchmarks/gpu/run.sh", description=__doc__)
    parser.add_argument("--device", default="cuda", help="cuda, cuda:N; cpu: a trial only [default: cuda]")
    parser.add_argument(
        "--precision",
        nargs="+",
        default=["fp32", "auto"],
        choices=("auto", *DTYPES),
        help="of the engine; the last is measured whole, and serves [default: fp32 auto]",
    )
    parser.add_argument("--seconds", type=float, default=2.0, help="of each case, if there is time [default: 2]")
    parser.add_argument("--minutes", type=float, default=5.5, help="of everything, at most [default: 5.5]")
    parser.add_argument("--began", type=float, help="when that was, in seconds since 1970 [default: now]")
    parser.add_argument("--fronts", help="of the server: a number, or auto [default: auto; with --device cpu 2]")
    parser.add_argument("--backbone", default="wide_resnet50_2", choices=("wide_resnet50_2", engine.LITE))
    parser.add_argument(
        "--only",
        nargs="+",
        help="parts whose names begin so: engine, served, files, networks, lite, decoding",
    )
    arguments = parser.parse_args()
    try:
        arguments.device = str(resolve_device(arguments.device))
    except StartupError as error:
        parser.error(str(error))
    return arguments


def _parts(options: Options, precisions: list[str]) -> list[Part]:
    """The most important first."""
    main, *others = reversed(precisions)

    def part(name: str, cases: Any, weight: str, precision: str = "") -> Part:
        found: list[Case[Any]] = cases(replace(options, part=name))
        return Part(name, precision, WEIGHTS[weight], found)

    return [
        part("engine", engine.cases, "engine", main),
        part("served, decode cpu", serving.cases, "served"),
        part("served, decode device", serving.cases, "served"),
        part("files", files.cases, "files"),
        *(part(f"engine in {each}", engine.cases, "more", each) for each in others),
        part("networks", networks.cases, "networks", "each"),
        part("lite", engine.cases, "lite", main),
        part("decoding", decoding_part.cases, "decoding"),
    ]


def _is_wanted(name: str, only: list[str] | None) -> bool:
    return only is None or name.startswith(tuple(only))


def _what_is_served(options: Options) -> str:
    sizes = [path.stat().st_size for path in options.images.iterdir()]
    sent = f"Callers send JPEG files of {SENT_PX[0]} x {SENT_PX[1]} px, {sum(sizes) / len(sizes) / 1000:.0f} KB."
    return f"{sent} A served row is one window of at most {2 * options.seconds:g} s, other rates are medians."


def _machine(device: str) -> str:
    name = torch.cuda.get_device_name(device) if device != "cpu" else platform.processor() or platform.machine()
    versions = f"Python {platform.python_version()}, torch {torch.__version__}, NumPy {np.__version__}"
    warning = " A trial on the CPU: its numbers say nothing of a GPU." if device == "cpu" else ""
    return f"{name}, {os.cpu_count()} cores, {versions}.{warning}"


if __name__ == "__main__":
    main()
