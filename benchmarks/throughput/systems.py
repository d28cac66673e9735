"""The systems that are compared, running, and one measurement of one of them."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc

from patchserve.v1 import reference_pb2, service_pb2_grpc
from throughput.flask_service import READY
from throughput.material import REFERENCE_ID, Material
from throughput.processes import NotStartedError, Worker, first_line, running, wait_for, watched, worker

_LISTENING = " listening on "
_LOAD_TIMEOUT_S = 600


@dataclass(frozen=True)
class Bench:
    """What systems are started with."""

    server: Path  # the program
    material: Material
    callers: Worker
    folder: Path


@dataclass(frozen=True)
class Case:
    """One row: a system under one load. No clients: it is called in its own process, one image at a time."""

    system: str
    backbone: str
    precision: str
    clients: int | None
    streams: int | None
    overlay: bool


@dataclass(frozen=True)
class Run:
    """A case for some seconds."""

    images_per_second: float
    latencies_ms: list[float]
    cpu_s_per_image: float
    peak_rss_mib: float
    stages: dict[str, float]  # the server's own account of an answer's time, where it gives one


def _run(asked: Worker, measured_pid: int, question: dict[str, Any]) -> Run:
    with watched(measured_pid) as usage:
        found = asked.ask(**question)
    return Run(
        images_per_second=found["images_per_second"],
        latencies_ms=found["latencies_ms"],
        cpu_s_per_image=usage.cpu_s / found["answered"],
        peak_rss_mib=usage.peak_rss_mib,
        stages=found["stages"],
    )


@dataclass(frozen=True)
class InProcess:
    program: Worker

    @property
    def precision(self) -> str:
        precision: str = self.program.about["precision"]
        return precision

    def run(self, seconds: float) -> Run:
        return _run(self.program, self.program.pid, {"seconds": seconds})


@contextmanager
def in_process(bench: Bench, kind: str, backbone: str, precision: str) -> Iterator[InProcess]:
    """One of the kinds of throughput.in_process.

    Raises:
        NotStartedError: it cannot be had here.
    """
    name = f"{kind}-{backbone}-{precision}"
    home = bench.folder / name
    home.mkdir()
    material, weights = bench.material, bench.material.weights_of(backbone)
    flags = ["--backbone", backbone, "--precision", precision, *(["--weights", str(weights)] if weights else [])]
    flags += ["--reference", str(material.reference), "--folder", str(home), *map(str, material.images)]
    with worker("throughput.in_process", kind, *flags, log=bench.folder / f"{name}.log") as program:
        yield InProcess(program)


@dataclass(frozen=True)
class Service:
    """Behind a socket: `pid` is the process, with its children, that is measured."""

    address: str
    pid: int
    callers: Worker

    def run(self, case: Case, seconds: float, images: Sequence[Path], reference_ids: Sequence[str] = ()) -> Run:
        kind = "http" if case.streams is None else "streams" if case.streams else "unary"
        return _run(
            self.callers,
            self.pid,
            {
                "kind": kind,
                "address": self.address,
                "clients": case.clients,
                "streams": case.streams,
                "overlay": case.overlay,
                "seconds": seconds,
                "images": [str(path) for path in images],
                "reference_ids": list(reference_ids or [REFERENCE_ID]),
            },
        )


@contextmanager
def flask(bench: Bench, workers: int) -> Iterator[Service]:
    """gunicorn, the cores divided among its workers."""
    log, material = bench.folder / f"flask-{workers}.log", bench.material
    app = f"serving.flask_service:create_app({str(material.weights)!r}, {str(material.reference)!r})"
    command = [sys.executable, "-m", "gunicorn", "--workers", str(workers), "--bind", "127.0.0.1:0", "--timeout", "600"]
    threads = max(1, (os.cpu_count() or 1) // workers)
    with running([*command, app], log, {"OMP_NUM_THREADS": str(threads)}) as process:
        text = wait_for(log, READY, workers, process)
        address = text.split("Listening at: ")[1].split()[0]
        yield Service(f"{address}/inspect", process.pid, bench.callers)


@contextmanager
def patchserve(bench: Bench, backbone: str, precision: str, store: Path | None = None) -> Iterator[Service]:
    """A server with the reference image loaded, or with what a store holds.

    Raises:
        NotStartedError: it refuses, such as a precision that the processor does not have.
    """
    weights = bench.material.weights_of(backbone)
    flags = ["--port", "0", "--backbone", backbone, "--precision", precision, "--device", "cpu"]
    flags += ["--weights", str(weights)] if weights else []
    flags += ["--store", str(store), "--max-bank-mib", "16384"] if store else []
    log = bench.folder / f"patchserve-{backbone}-{precision}-{store.name if store else REFERENCE_ID}.log"
    with running([str(bench.server), "serve", *flags, "--drain-delay-s", "0"], log) as process:
        line = first_line(process, log)
        if _LISTENING not in line:
            raise NotStartedError(line)
        address = line.split(_LISTENING)[1].split()[0]
        if store is None:
            _load(address, bench.material.reference)
        yield Service(address, process.pid, bench.callers)


def _load(address: str, image: Path) -> None:
    with grpc.insecure_channel(address) as channel:
        request = reference_pb2.LoadReferenceRequest(reference_id=REFERENCE_ID, images=[image.read_bytes()])
        service_pb2_grpc.PatchCoreServiceStub(channel).LoadReference(request, timeout=_LOAD_TIMEOUT_S)
