"""The systems that are compared, as running processes, and one measurement of one of them."""

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
from throughput import flask_service
from throughput.inputs import REFERENCE_ID, Inputs
from throughput.processes import (
    NotStartedError,
    Worker,
    measure_usage,
    read_first_line,
    run_process,
    start_worker,
    wait_for_log,
)

_LISTENING = " listening on "
_LOAD_TIMEOUT_S = 600


@dataclass(frozen=True)
class Setup:
    """What systems are started with."""

    server: Path  # the patchserve-server program
    inputs: Inputs
    load_generator: Worker
    folder: Path  # for logs and temporary files


@dataclass(frozen=True)
class Case:
    """A system under one load. clients None: called in its own process, one image at a time. streams None: HTTP."""

    system: str
    backbone: str
    precision: str
    clients: int | None
    streams: int | None
    overlay: bool


@dataclass(frozen=True)
class Measurement:
    """One case, measured once."""

    images_per_second: float
    latencies_ms: list[float]
    cpu_s_per_image: float
    peak_rss_mib: float
    stages: dict[str, float]  # the server's own timing of its stages, if it reports one


def _measure(worker: Worker, measured_pid: int, request: dict[str, Any]) -> Measurement:
    with measure_usage(measured_pid) as usage:
        response = worker.request(**request)
    return Measurement(
        images_per_second=response["images_per_second"],
        latencies_ms=response["latencies_ms"],
        cpu_s_per_image=usage.cpu_s / response["response_count"],
        peak_rss_mib=usage.peak_rss_mib,
        stages=response["stages"],
    )


@dataclass(frozen=True)
class InProcessSystem:
    """A worker that runs the system itself."""

    worker: Worker

    @property
    def precision(self) -> str:
        precision: str = self.worker.description["precision"]
        return precision

    def measure(self, seconds: float) -> Measurement:
        return _measure(self.worker, self.worker.pid, {"seconds": seconds})


@contextmanager
def start_in_process(setup: Setup, kind: str, backbone: str, precision: str) -> Iterator[InProcessSystem]:
    """Start one of the kinds of throughput.in_process.

    Raises:
        NotStartedError: it does not run on this machine.
    """
    name = f"{kind}-{backbone}-{precision}"
    home = setup.folder / name
    home.mkdir()
    inputs, weights = setup.inputs, setup.inputs.weights_of(backbone)
    flags = ["--backbone", backbone, "--precision", precision, *(["--weights", str(weights)] if weights else [])]
    flags += ["--reference", str(inputs.reference), "--folder", str(home), *map(str, inputs.images)]
    with start_worker("throughput.in_process", kind, *flags, log=setup.folder / f"{name}.log") as worker:
        yield InProcessSystem(worker)


@dataclass(frozen=True)
class Service:
    """A system behind a socket. The process `pid` is measured with its children."""

    address: str
    pid: int
    load_generator: Worker
    http: str = ""  # how the load generator sends images over HTTP; empty: gRPC

    def measure(
        self, case: Case, seconds: float, images: Sequence[Path], reference_ids: Sequence[str] = ()
    ) -> Measurement:
        kind = self.http or ("streams" if case.streams else "unary")
        return _measure(
            self.load_generator,
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
def start_flask(setup: Setup, workers: int) -> Iterator[Service]:
    """The Flask service under gunicorn; its workers share the cores evenly."""
    log, inputs = setup.folder / f"flask-{workers}.log", setup.inputs
    app = f"{flask_service.__name__}:create_app({str(inputs.weights)!r}, {str(inputs.reference)!r})"
    command = [sys.executable, "-m", "gunicorn", "--workers", str(workers), "--bind", "127.0.0.1:0", "--timeout", "600"]
    threads = max(1, (os.cpu_count() or 1) // workers)
    with run_process([*command, app], log, {"OMP_NUM_THREADS": str(threads)}) as process:
        content = wait_for_log(log, flask_service.READY, workers, process)
        address = content.split("Listening at: ")[1].split()[0]
        yield Service(f"{address}/inspect", process.pid, setup.load_generator, http="body")


@dataclass(frozen=True)
class Faces:
    """One server over gRPC and over HTTP."""

    grpc: Service
    http: Service


@contextmanager
def start_patchserve(setup: Setup, backbone: str, precision: str, store: Path | None = None) -> Iterator[Faces]:
    """A server with the reference image loaded, or with the references of a store.

    Raises:
        NotStartedError: the server refused, for example because the processor does not have this precision.
    """
    weights = setup.inputs.weights_of(backbone)
    flags = ["--port", "0", "--http-port", "0", "--backbone", backbone, "--precision", precision, "--device", "cpu"]
    flags += ["--weights", str(weights)] if weights else []
    flags += ["--store", str(store), "--max-bank-mib", "16384"] if store else []
    log = setup.folder / f"patchserve-{backbone}-{precision}-{store.name if store else REFERENCE_ID}.log"
    with run_process([str(setup.server), "serve", *flags, "--drain-delay-s", "0"], log) as process:
        line = read_first_line(process, log)
        if _LISTENING not in line:
            raise NotStartedError(line)
        address, _, http_url, *_ = line.split(_LISTENING)[1].split()
        if store is None:
            load_reference(address, setup.inputs.reference)
        yield Faces(
            Service(address, process.pid, setup.load_generator),
            Service(http_url, process.pid, setup.load_generator, http="face"),
        )


def load_reference(address: str, image: Path, reference_id: str = REFERENCE_ID) -> None:
    with grpc.insecure_channel(address) as channel:
        request = reference_pb2.LoadReferenceRequest(reference_id=reference_id, images=[image.read_bytes()])
        service_pb2_grpc.PatchCoreServiceStub(channel).LoadReference(request, timeout=_LOAD_TIMEOUT_S)
