"""What `patchserve scan` costs beside the engine: its images a second, divided by those of the bare detector.

The bare detector scores model inputs that are in memory, in the same batches on the same threads. The scan reads files,
decodes, judges, finds regions and publishes Parquet. Rounds of both take turns. With --ray, the same images also go
through Ray Data on one node of this machine, with one actor that has all cores.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import shutil
import statistics
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path

from patchserve_server.bootstrap.process import configure_process, freeze_heap, new_event_loop

configure_process()

from datetime import UTC, datetime
from functools import partial

import numpy as np
from served import PARCELS

from patchserve_server.bootstrap import composition
from patchserve_server.bootstrap.limits import batch_size
from patchserve_server.bootstrap.pools import INFERENCE_WORKERS
from patchserve_server.config import Settings
from patchserve_server.domain.digest import revision_of
from patchserve_server.domain.images import ModelInputs
from patchserve_server.domain.ports import Detector, Scorer
from patchserve_server.domain.reference import Reference
from patchserve_server.domain.reference_id import DEFAULT_REFERENCE_ID
from patchserve_server.domain.reference_options import ReferenceOptions
from patchserve_server.imaging import ImageLimits, decode_image, to_model_input
from patchserve_server.scan.counts import Counts
from patchserve_server.scan.engine import Work, open_inspector
from patchserve_server.scan.options import ScanOptions
from patchserve_server.scan.plan import make_plan
from patchserve_server.scan.references import keep_reference
from patchserve_server.scan.results import open_results


class Silent:
    """No progress."""

    def listing(self, image_count: int) -> None: ...
    def planned(self, image_count: int, done: Counts) -> None: ...
    def opening(self) -> None: ...
    def images_done(self, count: int) -> None: ...
    def part_done(self, counts: Counts) -> None: ...


def fit(detector: Detector) -> tuple[Reference, Scorer]:
    files = sorted((PARCELS / "train" / "good").iterdir())
    options = ReferenceOptions()
    images = [decode_image(file.read_bytes(), ImageLimits()) for file in files]
    shape = detector.input_shape(options, images[0].size)
    inputs = np.stack([to_model_input(image, shape) for image in images])
    scorer = detector.fit(inputs, options, lambda *_: None)
    now = datetime.now(UTC)
    return Reference(DEFAULT_REFERENCE_ID, revision_of(scorer.model), now, now, scorer.model), scorer


def bare(detector: Detector, scorer: Scorer, inputs: ModelInputs, size: int) -> None:
    batches = [inputs[start : start + size] for start in range(0, len(inputs), size)]
    with ThreadPoolExecutor(INFERENCE_WORKERS) as pool:
        list(pool.map(lambda batch: list(detector.score_batch([(scorer, batch)])), batches))


def measured(count: int, work: Callable[[], object]) -> tuple[float, float]:
    """Images a second, and milliseconds of processor time for each."""
    started_s, cpu_s = time.perf_counter(), time.process_time()
    work()
    return count / (time.perf_counter() - started_s), 1000 * (time.process_time() - cpu_s) / count


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--backbone", default="efficientnet_lite2")
    parser.add_argument("--images", type=int, default=256)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--max-batch-size", type=int, help="of both; default: that of a server")
    parser.add_argument("--ray", action="store_true")
    chosen = parser.parse_args()
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        samples = sorted((PARCELS / "test").rglob("*.jpg"))
        paths = [folder / f"{number:05}.jpg" for number in range(chosen.images)]
        for number, path in enumerate(paths):
            shutil.copy(samples[number % len(samples)], path)
        settings = Settings(backbone=chosen.backbone, max_batch_size=chosen.max_batch_size)
        started_s = time.perf_counter()
        detector = composition.open_detector(settings)
        print(f"opening the engine: {time.perf_counter() - started_s:.1f} s")
        reference, scorer = fit(detector)
        options = ScanOptions(source=str(folder), reference_id="default", revision=reference.revision)
        results = stack.enter_context(open_results(str(folder / "results")))
        keep_reference(reference, results)
        plan = make_plan(map(str, paths), results)
        parts = list(plan.parts(range(plan.part_count), results))
        work = Work(settings, options, results.name, lambda _: detector)
        inspector = stack.enter_context(open_inspector(work, reference, results))

        async def scan() -> None:
            await asyncio.gather(*map(inspector.inspect, parts))

        shape = reference.info.input_shape
        decoded = [decode_image(path.read_bytes(), ImageLimits()) for path in samples]
        inputs = np.stack([to_model_input(decoded[number % len(decoded)], shape) for number in range(chosen.images)])
        size = batch_size(settings, detector.info.device)
        freeze_heap()
        runner = stack.enter_context(asyncio.Runner(loop_factory=partial(new_event_loop, settings)))
        runner.run(scan())  # warms up
        rounds: dict[str, list[tuple[float, float]]] = {"bare": [], "scan": []}
        for _ in range(chosen.rounds):
            rounds["bare"].append(measured(chosen.images, lambda: bare(detector, scorer, inputs, size)))
            rounds["scan"].append(measured(chosen.images, lambda: runner.run(scan())))
        ratios = [scanned[0] / alone[0] for alone, scanned in zip(*rounds.values(), strict=True)]
        for name, each in rounds.items():
            per_s, cpu_ms = (statistics.median(column) for column in zip(*each, strict=True))
            print(f"{name}: {per_s:.1f} images/s, {cpu_ms:.1f} ms of processor time an image")
        print(f"scan / bare: {statistics.median(ratios):.3f} {[round(ratio, 3) for ratio in ratios]}")
        started_s = time.perf_counter()
        for path in paths:
            to_model_input(decode_image(path.read_bytes(), ImageLimits()), shape)
        print(f"decoding alone: {1000 * (time.perf_counter() - started_s) / len(paths):.1f} ms an image on one core")
        if chosen.ray:
            on_ray(Work(settings, options, results.name, composition.open_detector), plan.part_count, chosen.images)


def on_ray(work: Work, part_count: int, images: int) -> None:
    """A local Ray, with a node of its own: how long it takes to start, and its throughput from the first part on."""
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    started_s = time.perf_counter()
    from ray.cluster_utils import Cluster  # noqa: PLC0415 - only with --ray

    from patchserve_server.scan.ray_run import Pool, run_on_ray  # noqa: PLC0415 - as above

    cores = os.cpu_count() or 1
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": cores, "include_dashboard": False})
    started = time.perf_counter() - started_s
    for file in list((Path(work.results) / "verdicts").iterdir()):
        file.unlink()
    times: list[tuple[float, int]] = []

    class Timed(Silent):
        def part_done(self, counts: Counts) -> None:
            times.append((time.perf_counter(), counts.image_count))

    begun_s = time.perf_counter()
    run_on_ray(work, Pool(cluster.address, threads=cores), range(part_count), Timed())
    ended_s = time.perf_counter()
    later = sum(count for _, count in times[1:])
    print(
        f"Ray: {started:.1f} s to start, {times[0][0] - begun_s:.1f} s to the first part, {ended_s - begun_s:.1f} s in "
        f"all; {later / (times[-1][0] - times[0][0]):.1f} images/s after the first part, of {images}"
    )
    cluster.shutdown()  # type: ignore[no-untyped-call]


if __name__ == "__main__":
    main()
