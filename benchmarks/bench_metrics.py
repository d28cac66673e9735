"""What --metrics-port costs the callers: images a second, and processor time of the server for each image.

Servers with and without metrics take turns under the same load, because times differ between moments. A second one
without metrics shows how much two equal servers differ by chance. Metrics are scraped every 5 s, three times as often
as Prometheus does it by default. With `--stub` there is no network behind the servers, so that everything else weighs
as much as it can.
"""

from __future__ import annotations

import argparse
import statistics
import threading
import time
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

from served import PARCELS, SERVE, Load, Served, Window, load_reference, measure, server
from timing import RESULTS, write_results

CLIENTS = 4
STUB = ("-m", "loop.stub_server")
SCRAPE_S = 5.0
SETTLES_S = 0.3
WITHOUT, CONTROL, METRICS = "without metrics", "without metrics, again", "with metrics"
OPENMETRICS = {"accept": "application/openmetrics-text; version=1.0.0"}


@contextmanager
def scrapes(url: str) -> Iterator[None]:
    """Scrapes until the block ends, also while others are measured, as Prometheus does."""
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


def window(served: Served, images: list[bytes], window_s: float) -> Window:
    with Load(served.address, images, CLIENTS) as load:
        time.sleep(SETTLES_S)
        return measure(served.pid, load, window_s)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--backbone", default="efficientnet_lite2")
    parser.add_argument("--stub", action="store_true", help="without a network")
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--window-s", type=float, default=2.0)
    chosen = parser.parse_args()
    images = [path.read_bytes() for path in sorted((PARCELS / "test").rglob("*.jpg"))]
    program, flags = (STUB, ()) if chosen.stub else (SERVE, ("--backbone", chosen.backbone))
    windows: dict[str, list[Window]] = {name: [] for name in (WITHOUT, CONTROL, METRICS)}
    with ExitStack() as stack:
        servers = {name: stack.enter_context(server(*flags, program=program)) for name in (WITHOUT, CONTROL)}
        servers[METRICS] = stack.enter_context(server(*flags, "--metrics-port", "0", program=program, further_lines=1))
        for served in servers.values():
            load_reference(served.address)
            window(served, images, chosen.window_s)  # warms up
        stack.enter_context(scrapes(servers[METRICS].metrics_url))
        names = list(servers)
        for number in range(chosen.rounds):
            for name in (*names[number % 3 :], *names[: number % 3]):
                windows[name].append(window(servers[name], images, chosen.window_s))
    report("stub" if chosen.stub else chosen.backbone, windows)


def report(engine: str, windows: dict[str, list[Window]]) -> None:
    results: dict[str, object] = {"engine": engine, "rounds": len(windows[WITHOUT])}
    for figure, unit in (("images_per_s", "images/s"), ("cpu_ms_per_image", "ms of processor time per image")):
        values = {name: [getattr(each, figure) for each in measured] for name, measured in windows.items()}
        print(f"{engine}, {unit}: {statistics.median(values[WITHOUT]):.2f} without metrics")
        for name in (CONTROL, METRICS):
            ratios = [after / before for before, after in zip(values[WITHOUT], values[name], strict=True)]
            ratio, spread = statistics.mean(ratios), statistics.stdev(ratios) / len(ratios) ** 0.5
            print(f"    {name}: {ratio:.4f} +- {spread:.4f} of that")
            results[f"{figure}, {name}"] = {"ratio": ratio, "spread": spread}
    write_results(RESULTS / f"metrics-{engine}.json", results)


if __name__ == "__main__":
    main()
