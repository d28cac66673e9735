"""What one call costs the main thread of the server, whose event loop every call passes.

The engine is a stub: there is no network. Images are decoded and overlays drawn as always, on other threads. A bare
server of grpc.aio with messages of the same size shows what of it is gRPC's own. With `--against CHECKOUT`, the server
of another checkout takes turns with this one.

    PYTHONPATH=benchmarks:server:protos/python .venv/bin/python benchmarks/bench_loop.py --against ../before
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import grpc
import psutil
from PIL import Image
from throughput.processes import Worker, read_first_line, run_process, start_worker

from patchserve.v1 import reference_pb2, service_pb2_grpc

ROOT = Path(__file__).resolve().parents[1]
PARCELS = ROOT / "samples" / "parcels"
SIZE_PX = (1001, 712)
OVERLAY_BYTES = 900_000
CASES = {
    "Infer, scores": ("unary", False),
    "Infer, overlay": ("unary", True),
    "InferStream, scores": ("streams", False),
    "InferStream, overlay": ("streams", True),
    "HTTP, scores": ("face", False),
    "HTTP, overlay": ("face", True),
}


@dataclass(frozen=True)
class Running:
    """A server that is measured."""

    pid: int
    addresses: dict[str, str]  # by kind of load

    def main_thread_s(self) -> float:
        """Processor time of the main thread so far."""
        (main,) = (thread for thread in psutil.Process(self.pid).threads() if thread.id == self.pid)
        return main.user_time + main.system_time


@contextmanager
def start(module: str, *arguments: str, checkout: Path, folder: Path) -> Iterator[Running]:
    """A server of this checkout."""
    path = os.pathsep.join(str(part) for part in (ROOT / "benchmarks", checkout / "server", checkout / "protos/python"))
    log = folder / f"{module}-{checkout.name}.log"
    with run_process([sys.executable, "-m", module, *arguments], log, {"PYTHONPATH": path}) as process:
        words = read_first_line(process, log).split(" listening on ")[1].split()
        yield Running(
            process.pid, {"unary": words[0], "streams": words[0], "face": words[-1] if len(words) < 3 else words[2]}
        )
        process.terminate()
        assert process.stdout is not None
        if report := process.stdout.read().partition("\n\n")[2]:
            print(report)


@contextmanager
def start_server(checkout: Path, folder: Path) -> Iterator[Running]:
    flags = ("--port", "0", "--http-port", "0", "--drain-delay-s", "0", "--client-share", "1")
    with start("loop.stub_server", *flags, checkout=checkout, folder=folder) as server:
        image = sorted((PARCELS / "train" / "good").iterdir())[0].read_bytes()
        with grpc.insecure_channel(server.addresses["unary"]) as channel:
            service_pb2_grpc.PatchCoreServiceStub(channel).LoadReference(
                reference_pb2.LoadReferenceRequest(images=[image])
            )
        yield server


def resized(folder: Path) -> list[str]:
    paths = []
    for number, path in enumerate(sorted((PARCELS / "test").rglob("*.jpg"))[:8]):
        paths.append(str(folder / f"{number}.jpg"))
        Image.open(path).convert("RGB").resize(SIZE_PX).save(paths[-1], quality=90)
    return paths


def measure(
    server: Running, callers: Worker, kind: str, chosen: argparse.Namespace, images: list[str], *, overlay: bool
) -> tuple[float, float]:
    """Milliseconds of the main thread for each image, and images a second."""
    before_s = server.main_thread_s()
    response = callers.request(
        kind=kind,
        address=server.addresses[kind],
        clients=chosen.clients,
        streams=chosen.clients // 4 or 1,
        overlay=overlay,
        seconds=chosen.seconds,
        images=images,
        reference_ids=["default"],
    )
    used_s = server.main_thread_s() - before_s
    return 1000 * used_s / response["response_count"], response["images_per_second"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--against", type=Path, help="another checkout")
    parser.add_argument("--clients", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=2.0)
    parser.add_argument("--only", default="", help="a part of the names of cases")
    chosen = parser.parse_args()
    cases = {name: case for name, case in CASES.items() if chosen.only in name}
    with ExitStack() as running:
        folder = Path(running.enter_context(tempfile.TemporaryDirectory()))
        images = resized(folder)
        servers = {"this": running.enter_context(start_server(ROOT, folder))}
        if chosen.against:
            servers["before"] = running.enter_context(start_server(chosen.against.resolve(), folder))
        echoes = {
            size: running.enter_context(start("loop.echo_server", str(size), checkout=ROOT, folder=folder))
            for size in (0, OVERLAY_BYTES)
        }
        callers = running.enter_context(start_worker("throughput.load_generator", log=folder / "callers.log"))
        taken: dict[tuple[str, str], list[tuple[float, float]]] = {}
        for number in range(chosen.rounds):
            for name, (kind, overlay) in cases.items():
                measured = servers if kind == "face" else servers | {"echo": echoes[OVERLAY_BYTES if overlay else 0]}
                for server in list(measured)[:: 1 if number % 2 else -1]:
                    result = measure(measured[server], callers, kind, chosen, images, overlay=overlay)
                    taken.setdefault((name, server), []).append(result)
    for (name, server), results in taken.items():
        cost_ms = statistics.median(cost for cost, _ in results)
        print(f"{name:22} {server:7} {cost_ms:6.3f} ms  {statistics.median(rate for _, rate in results):7.1f}/s")


if __name__ == "__main__":
    main()
