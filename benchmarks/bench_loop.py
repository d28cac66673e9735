"""What one call costs the main thread of the server, whose event loop every call passes.

The engine is a stub: there is no network. Images are decoded and overlays drawn as always, on other threads. A bare
server of grpc.aio with messages of the same size shows what of it is gRPC's own. Servers take turns. With `--against
CHECKOUT`, the server of another checkout is measured too; with `--asyncio`, the same server without uvloop; with
`--blocks`, what kept its loop busy for the longest time. `--with NAME=VALUE,...` adds the same server with these
variables, such as `--with PATCHSERVE_LOG_CALLS=failed` or `--with PATCHSERVE_OTEL=1`, whose collector takes everything.
It runs in the environment of `make bench`:

    PYTHONPATH=benchmarks:server:protos/python .venv-peers/bin/python benchmarks/bench_loop.py --against ../before
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from loop.servers import ASYNCIO, BLOCKS, PARCELS, ROOT, Server, start_collector, start_echo, start_stub
from PIL import Image
from throughput.processes import Worker, start_worker

SIZE_PX = (1001, 712)
CASES = {
    "Infer, scores": ("unary", False),
    "Infer, overlay": ("unary", True),
    "InferStream, scores": ("streams", False),
    "InferStream, overlay": ("streams", True),
    "HTTP, scores": ("face", False),
    "HTTP, overlay": ("face", True),
}


def photographs(folder: Path) -> list[str]:
    paths = []
    for number, path in enumerate(sorted((PARCELS / "test").rglob("*.jpg"))[:8]):
        paths.append(str(folder / f"{number}.jpg"))
        Image.open(path).convert("RGB").resize(SIZE_PX).save(paths[-1], quality=90)
    return paths


def measure(server: Server, callers: Worker, request: dict[str, Any]) -> tuple[float, float]:
    """Processor time of the main thread for each image, in ms; images a second."""
    address = server.http if request["kind"] == "face" else server.grpc
    before_s = server.main_thread_s()
    answer = callers.request(**request, address=address)
    return 1000 * (server.main_thread_s() - before_s) / answer["response_count"], answer["images_per_second"]


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--against", type=Path, help="another checkout")
    parser.add_argument("--asyncio", action="store_true", help="also without uvloop")
    parser.add_argument(
        "--blocks", action="store_true", help="the longest callbacks: ms of processor time, by the clock"
    )
    parser.add_argument("--with", action="append", default=[], dest="variants", metavar="NAME=VALUE,...")
    parser.add_argument("--clients", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=2.0)
    parser.add_argument("--only", default="", help="a part of the names of cases")
    return parser.parse_args()


def main() -> None:
    chosen = arguments()
    cases = {name: case for name, case in CASES.items() if chosen.only in name}
    taken: dict[tuple[str, str], list[tuple[float, float]]] = {}
    with ExitStack() as running:
        folder = Path(running.enter_context(tempfile.TemporaryDirectory()))
        images = photographs(folder)
        servers = {"this": running.enter_context(start_stub(ROOT, folder, BLOCKS if chosen.blocks else {}))}
        if chosen.asyncio:
            servers["asyncio"] = running.enter_context(start_stub(ROOT, folder, ASYNCIO))
        collector = running.enter_context(start_collector(folder)) if chosen.variants else ""
        for variant in chosen.variants:
            variables = dict(pair.split("=", 1) for pair in variant.split(","))
            variables["OTEL_EXPORTER_OTLP_ENDPOINT"] = f"http://{collector}"
            servers[variant] = running.enter_context(start_stub(ROOT, folder, variables))
        if chosen.against:
            servers["before"] = running.enter_context(start_stub(chosen.against.resolve(), folder, {}))
        echoes = {overlay: running.enter_context(start_echo(overlay, folder)) for overlay in (False, True)}
        callers = running.enter_context(start_worker("throughput.load_generator", log=folder / "callers.log"))
        for number in range(chosen.rounds):
            for name, (kind, overlay) in cases.items():
                request = {
                    "kind": kind,
                    "clients": chosen.clients,
                    "streams": max(1, chosen.clients // 4),
                    "overlay": overlay,
                    "seconds": chosen.seconds,
                    "images": images,
                    "reference_ids": ["default"],
                }
                measured = servers if kind == "face" else servers | {"bare gRPC": echoes[overlay]}
                for server in list(measured)[:: 1 if number % 2 else -1]:
                    taken.setdefault((name, server), []).append(measure(measured[server], callers, request))
    print("main thread, ms an image (ratio to this); images a second (ratio to this)")
    for (name, server), rounds in sorted(taken.items()):
        own = taken[name, "this"]
        cells = []
        for column in (0, 1):  # ratios of one round: what else the machine does is about the same for all its servers
            ratio = statistics.median(one[column] / other[column] for one, other in zip(rounds, own, strict=True))
            cells.append(f"{statistics.median(one[column] for one in rounds):8.3f} ({ratio:5.3f})")
        print(f"{name:22} {server:40} {'  '.join(cells)}")


if __name__ == "__main__":
    main()
