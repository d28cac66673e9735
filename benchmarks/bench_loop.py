"""What one call costs the main thread of the server, whose event loop every call passes.

The engine is a stub: there is no network. Images are decoded and overlays drawn as always, on other threads. A bare
server of grpc.aio with messages of the same size shows what of it is gRPC's own. Servers take turns. With `--against
CHECKOUT`, the server of another checkout is measured too; with `--asyncio`, the same server without uvloop; with
`--blocks`, what kept its loop busy for the longest time. It runs in the environment of `make bench`:

    PYTHONPATH=benchmarks:server:protos/python .venv-peers/bin/python benchmarks/bench_loop.py --against ../before
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from loop.servers import ASYNCIO, BLOCKS, PARCELS, ROOT, Server, start_echo, start_stub
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


def main_thread_ms(server: Server, callers: Worker, request: dict[str, Any]) -> float:
    """Processor time of the main thread for each image."""
    address = server.http if request["kind"] == "face" else server.grpc
    before_s = server.main_thread_s()
    count: int = callers.request(**request, address=address)["response_count"]
    return 1000 * (server.main_thread_s() - before_s) / count


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--against", type=Path, help="another checkout")
    parser.add_argument("--asyncio", action="store_true", help="also without uvloop")
    parser.add_argument(
        "--blocks", action="store_true", help="the longest callbacks: ms of processor time, by the clock"
    )
    parser.add_argument("--clients", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=2.0)
    parser.add_argument("--only", default="", help="a part of the names of cases")
    return parser.parse_args()


def main() -> None:
    chosen = arguments()
    cases = {name: case for name, case in CASES.items() if chosen.only in name}
    taken: dict[tuple[str, str], list[float]] = {}
    with ExitStack() as running:
        folder = Path(running.enter_context(tempfile.TemporaryDirectory()))
        images = photographs(folder)
        servers = {"this": running.enter_context(start_stub(ROOT, folder, BLOCKS if chosen.blocks else {}))}
        if chosen.asyncio:
            servers["asyncio"] = running.enter_context(start_stub(ROOT, folder, ASYNCIO))
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
                    cost_ms = main_thread_ms(measured[server], callers, request)
                    taken.setdefault((name, server), []).append(cost_ms)
    print("main thread, ms an image (ratio to this)")
    for (name, server), costs_ms in sorted(taken.items()):
        own_ms = statistics.median(taken[name, "this"])
        cost_ms = statistics.median(costs_ms)
        print(f"{name:22} {server:10} {cost_ms:6.3f}  {cost_ms / own_ms:5.2f}")


if __name__ == "__main__":
    main()
