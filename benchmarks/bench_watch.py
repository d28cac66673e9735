"""What a watcher of the wall costs the callers: images a second, and processor time of the server for each image.

Windows with and without watchers take turns, because times differ between moments. The watchers read in processes of
their own, as browsers on other machines would.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

from served import PARCELS, Load, Window, load_reference, measure, server

READ = """
import sys, urllib.request
with urllib.request.urlopen(sys.argv[1]) as body:
    print(body.readline(), flush=True)
    while body.read1(65536): pass
"""
SETTLES_S = 2.0  # a new watcher gets what is kept, and its first thumbnails at once
CLIENTS = 8


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


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--backbone", default="efficientnet_lite2")
    parser.add_argument("--watchers", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--window-s", type=float, default=2.0)
    chosen = parser.parse_args()
    images = [path.read_bytes() for path in sorted((PARCELS / "test").rglob("*.jpg"))]
    windows: dict[int, list[Window]] = {0: [], chosen.watchers: []}
    with server("--backbone", chosen.backbone, "--http-port", "0") as served:
        load_reference(served.address)
        with Load(served.address, images, CLIENTS) as load:
            measure(served.pid, load, chosen.window_s)  # warms up
            for _ in range(chosen.rounds):
                for count, measured in windows.items():
                    with watchers(served.http_url, count):
                        measured.append(measure(served.pid, load, chosen.window_s))
    without, watched = windows.values()
    for name, unit in (("images_per_s", "images/s"), ("cpu_ms_per_image", "ms of processor time per image")):
        before = statistics.median(getattr(window, name) for window in without)
        after = statistics.median(getattr(window, name) for window in watched)
        ratios = [getattr(b, name) / getattr(a, name) for a, b in zip(without, watched, strict=True)]
        ratio, spread = statistics.mean(ratios), statistics.stdev(ratios) / len(ratios) ** 0.5
        print(f"{unit}: {before:.1f} -> {after:.1f} with {chosen.watchers}; mean of ratios {ratio:.3f} +- {spread:.3f}")


if __name__ == "__main__":
    main()
