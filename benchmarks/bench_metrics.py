"""What --metrics-port costs the callers: images a second, and processor time of the server for each image.

Two servers, one with metrics, take turns under the same load, because times differ between moments. Metrics are
scraped every second while their server is measured, fifteen times as often as Prometheus does. With `--stub`
there is no network behind the server, so that everything else weighs as much as it can.
"""

from __future__ import annotations

import argparse
import statistics
import threading
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

from served import PARCELS, SERVE, Load, Served, Window, load_reference, measure, server
from timing import RESULTS, write_results

CLIENTS = 4
STUB = ("-m", "loop.stub_server")
SCRAPE_S = 1.0
SETTLES_S = 0.5
OPENMETRICS = {"accept": "application/openmetrics-text; version=1.0.0"}


@contextmanager
def scrapes(url: str) -> Iterator[None]:
    """Scrapes often until the block ends."""
    ends = threading.Event()

    def scrape() -> None:
        while not ends.wait(SCRAPE_S):
            with urllib.request.urlopen(urllib.request.Request(url, headers=OPENMETRICS)) as answer:
                answer.read()

    thread = threading.Thread(target=scrape)
    thread.start()
    try:
        yield
    finally:
        ends.set()
        thread.join()


def window(served: Served, images: list[bytes], window_s: float, *, has_metrics: bool) -> Window:
    with ExitStack() as stack:
        load = stack.enter_context(Load(served.address, images, CLIENTS))
        measure(served.pid, load, SETTLES_S)
        if has_metrics:
            stack.enter_context(scrapes(served.metrics_url))
        return measure(served.pid, load, window_s)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--backbone", default="efficientnet_lite2")
    parser.add_argument("--stub", action="store_true", help="without a network")
    parser.add_argument("--rounds", type=int, default=12)
    parser.add_argument("--window-s", type=float, default=2.5)
    chosen = parser.parse_args()
    images = [path.read_bytes() for path in sorted((PARCELS / "test").rglob("*.jpg"))]
    program, flags = (STUB, ()) if chosen.stub else (SERVE, ("--backbone", chosen.backbone))
    windows: dict[bool, list[Window]] = {False: [], True: []}
    with ExitStack() as stack:
        servers = {
            False: stack.enter_context(server(*flags, program=program)),
            True: stack.enter_context(server(*flags, "--metrics-port", "0", program=program, further_lines=1)),
        }
        for has_metrics, served in servers.items():
            load_reference(served.address)
            window(served, images, chosen.window_s, has_metrics=has_metrics)  # warms up
        for number in range(chosen.rounds):
            for has_metrics in (False, True) if number % 2 else (True, False):
                measured = window(servers[has_metrics], images, chosen.window_s, has_metrics=has_metrics)
                windows[has_metrics].append(measured)
    report("stub" if chosen.stub else chosen.backbone, windows[False], windows[True])


def report(engine: str, without: list[Window], counted: list[Window]) -> None:
    results: dict[str, object] = {"engine": engine, "rounds": len(without)}
    for name, unit in (("images_per_s", "images/s"), ("cpu_ms_per_image", "ms of processor time per image")):
        before = statistics.median(getattr(each, name) for each in without)
        after = statistics.median(getattr(each, name) for each in counted)
        ratios = [getattr(b, name) / getattr(a, name) for a, b in zip(without, counted, strict=True)]
        ratio, spread = statistics.mean(ratios), statistics.stdev(ratios) / len(ratios) ** 0.5
        print(f"{engine}, {unit}: {before:.2f} -> {after:.2f} with metrics; mean of ratios {ratio:.4f} +- {spread:.4f}")
        results[name] = {"without": before, "with": after, "ratio": ratio, "spread": spread}
    write_results(RESULTS / f"metrics-{engine}.json", results)


if __name__ == "__main__":
    main()
