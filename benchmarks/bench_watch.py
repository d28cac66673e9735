"""What a watcher of the wall costs the callers: images a second, and processor time of the server for each image.

Windows with and without watchers take turns, because times differ between moments. The watchers read in processes of
their own, as browsers on other machines would.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import grpc

from patchserve.v1 import inference_pb2, reference_pb2, service_pb2_grpc

PARCELS = Path(__file__).resolve().parents[1] / "samples" / "parcels"
SERVE = "from patchserve_server.cli import main; main()"
READ = """
import sys, urllib.request
with urllib.request.urlopen(sys.argv[1]) as body:
    print(body.readline(), flush=True)
    while body.read1(65536): pass
"""
SETTLES_S = 2.0  # a new watcher gets what is kept, and its first thumbnails at once
CLIENTS = 8
START_TIMEOUT_S = 300
TICKS_PER_S = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True)
class Window:
    """What the callers got in one window."""

    images_per_s: float
    cpu_ms_per_image: float


class Load:
    """Callers that send one image after the other."""

    def __init__(self, address: str, images: list[bytes]) -> None:
        self.count = 0
        self._address, self._images = address, images
        self._ends = threading.Event()
        self._lock = threading.Lock()
        self._threads = [threading.Thread(target=self._run) for _ in range(CLIENTS)]

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ends.set()
        for thread in self._threads:
            thread.join()

    def _run(self) -> None:
        with grpc.insecure_channel(self._address) as channel:
            stub = service_pb2_grpc.PatchCoreServiceStub(channel)
            while not self._ends.is_set():
                for image in self._images:
                    stub.Infer(inference_pb2.InferRequest(image=image))
                    with self._lock:
                        self.count += 1


@contextmanager
def server(backbone: str) -> Iterator[tuple[int, str, str]]:
    """A server's process id, its address, and its URL."""
    command = [sys.executable, "-c", SERVE, "serve", "--backbone", backbone, "--port", "0", "--http-port", "0"]
    command += ["--client-share", "1"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as process:
        assert process.stdout is not None
        try:
            words = process.stdout.readline().split(" listening on ")[1].split()
            yield process.pid, words[0], words[2]
        finally:
            process.terminate()


def load_reference(address: str) -> None:
    images = [path.read_bytes() for path in sorted((PARCELS / "train" / "good").iterdir())]
    with grpc.insecure_channel(address) as channel:
        service_pb2_grpc.PatchCoreServiceStub(channel).LoadReference(
            reference_pb2.LoadReferenceRequest(images=images), timeout=START_TIMEOUT_S
        )


@contextmanager
def watchers(url: str, count: int) -> Iterator[None]:
    with ExitStack() as stack:
        for _ in range(count):
            command = [sys.executable, "-c", READ, f"{url}/watch/events"]
            process = stack.enter_context(subprocess.Popen(command, stdout=subprocess.PIPE))
            stack.callback(process.kill)
            assert process.stdout is not None
            process.stdout.readline()
        time.sleep(SETTLES_S)
        yield


def cpu_s(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICKS_PER_S


def measure(pid: int, load: Load, window_s: float) -> Window:
    started_s, count, cpu = time.perf_counter(), load.count, cpu_s(pid)
    time.sleep(window_s)
    images = load.count - count
    return Window(images / (time.perf_counter() - started_s), 1000 * (cpu_s(pid) - cpu) / images)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--backbone", default="efficientnet_lite2")
    parser.add_argument("--watchers", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--window-s", type=float, default=2.0)
    chosen = parser.parse_args()
    images = [path.read_bytes() for path in sorted((PARCELS / "test").rglob("*.jpg"))]
    windows: dict[int, list[Window]] = {0: [], chosen.watchers: []}
    with server(chosen.backbone) as (pid, address, url):
        load_reference(address)
        with Load(address, images) as load:
            measure(pid, load, chosen.window_s)  # warms up
            for _ in range(chosen.rounds):
                for count, measured in windows.items():
                    with watchers(url, count):
                        measured.append(measure(pid, load, chosen.window_s))
    without, watched = windows.values()
    for name, unit in (("images_per_s", "images/s"), ("cpu_ms_per_image", "ms of processor time per image")):
        before = statistics.median(getattr(window, name) for window in without)
        after = statistics.median(getattr(window, name) for window in watched)
        ratios = [getattr(b, name) / getattr(a, name) for a, b in zip(without, watched, strict=True)]
        ratio, spread = statistics.mean(ratios), statistics.stdev(ratios) / len(ratios) ** 0.5
        print(f"{unit}: {before:.1f} -> {after:.1f} with {chosen.watchers}; mean of ratios {ratio:.3f} +- {spread:.3f}")


if __name__ == "__main__":
    main()
