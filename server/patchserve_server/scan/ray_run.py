"""A scan on a Ray cluster: Ray Data gives parts to a pool of actors, each with an engine of its own.

Rows go from an actor to the results, and not through Ray: a part is published by one file that appears as a whole, so
an actor or a node may die at any moment, and Ray may try its parts again elsewhere.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import threading
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, replace
from typing import Any, Final

import numpy as np
import ray
import ray.data
from numpy.typing import NDArray

from patchserve_server.bootstrap.process import configure_process, freeze_heap, new_event_loop
from patchserve_server.domain.errors import PatchserveError
from patchserve_server.scan.counts import Counts
from patchserve_server.scan.engine import Work, open_inspector
from patchserve_server.scan.errors import ScanError
from patchserve_server.scan.plan import Plan, read_plan
from patchserve_server.scan.progress import Progress
from patchserve_server.scan.references import kept_reference
from patchserve_server.scan.results import Results, join_results
from patchserve_server.scan.rows import counts_in

_PARTS_AT_ONCE: Final = 2  # of one actor: while one ends, the next one keeps its engine busy
_THREADS: Final = 8  # of an actor, at most, if the command says nothing: more help little
_Batch = dict[str, NDArray[Any]]


@dataclass(frozen=True, slots=True)
class Pool:
    """The actors of a scan.

    Args:
        address: of the cluster, as of `ray.init`.
        workers: how many actors; None: as many as fit.
        threads: of each; None: as many as the smallest node has cores, up to 8.
        uses_gpus: whether each gets a GPU.
    """

    address: str
    workers: int | None = None
    threads: int | None = None
    uses_gpus: bool | None = None  # None: if the cluster has any


def run_on_ray(work: Work, pool: Pool, numbers: Sequence[int], progress: Progress) -> Counts:
    """Inspects these parts on a cluster; returns what was found when all are published.

    Raises:
        ScanError, PatchserveError: the cluster does not answer, or the scan cannot go on.
    """
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal")  # the libraries of Ray write to stderr
    logging.getLogger("ray.data").setLevel(logging.ERROR)
    progress.opening()
    try:
        ray.init(pool.address, log_to_driver=False, logging_level=logging.ERROR)
    except (ConnectionError, RuntimeError, ValueError) as error:
        raise ScanError(f"The Ray cluster at {pool.address} does not answer: {error}") from error
    try:
        return _run(work, pool, numbers, progress)
    except ray.exceptions.RayError as error:
        raise _reason_of(error) from error
    finally:
        ray.shutdown()


def _run(work: Work, pool: Pool, numbers: Sequence[int], progress: Progress) -> Counts:
    threads, fitting, gpus = _sizes(pool)
    workers = min(fitting, len(numbers))
    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = False
    todo = ray.data.from_items([{"part": number} for number in numbers], override_num_blocks=len(numbers))
    done = todo.map_batches(
        _Worker,
        batch_size=1,
        num_cpus=threads,
        num_gpus=gpus,
        compute=ray.data.ActorPoolStrategy(
            min_size=1,  # when a node is lost, parts of its worker go on where another worker ends
            max_size=workers,
            initial_size=workers,
            max_tasks_in_flight_per_actor=2 * _PARTS_AT_ONCE,
            max_concurrent_calls_per_actor=_PARTS_AT_ONCE,
            enable_true_multi_threading=True,
        ),
        fn_constructor_args=(replace(work, settings=work.settings.model_copy(update={"threads": threads})),),
    )
    total = Counts()
    for row in done.iter_rows():
        counts = Counts(**json.loads(row["counts"]))
        progress.images_done(counts.image_count)
        progress.part_done(counts)
        total += counts
    return total


def _sizes(pool: Pool) -> tuple[int, int, int]:
    """The threads of a worker, how many workers there are, and the GPUs of each."""
    found = ray.nodes()  # type: ignore[no-untyped-call]
    nodes = [node["Resources"] for node in found if node["Alive"] and node["Resources"].get("CPU")]
    threads = pool.threads or min((_THREADS, *(max(1, int(node["CPU"])) for node in nodes)))
    gpus = sum(int(node.get("GPU", 0)) for node in nodes)
    uses_gpus = gpus > 0 if pool.uses_gpus is None else pool.uses_gpus
    fitting = [int(node["CPU"]) // threads for node in nodes]
    if uses_gpus:
        fitting = [min(count, int(node.get("GPU", 0))) for count, node in zip(fitting, nodes, strict=True)]
    if not any(fitting):
        needed = f"{threads} CPUs{' and a GPU' if uses_gpus else ''}"
        raise ScanError(
            f"No node of the Ray cluster at {pool.address} has {needed} for a worker; see --threads, --device."
        )
    return threads, pool.workers or sum(fitting), int(uses_gpus)


class _Worker:
    """An actor. Its event loop has a thread of its own, because Ray calls it from several threads.

    What keeps it from working is raised by its first call: Ray makes a text of what a constructor raises.
    """

    def __init__(self, work: Work) -> None:
        configure_process()
        self._resources = ExitStack()
        self._failure: Exception | None = None
        try:
            self._results = join_results(work.results, self._resources)
            self._plan, reference = _plan_in(self._results), kept_reference(self._results)
            self._inspector = self._resources.enter_context(open_inspector(work, reference, self._results))
        except (ScanError, PatchserveError) as error:
            self._failure = error
        freeze_heap()
        self._loop = new_event_loop(work.settings)
        threading.Thread(target=self._loop.run_forever, daemon=True).start()

    def __call__(self, batch: _Batch) -> _Batch:
        try:
            counts = [json.dumps(asdict(self._inspect(int(number)))) for number in batch["part"]]
        except PatchserveError as error:
            raise ScanError(error.message) from None  # an error of the domain cannot be sent to another process
        return {"counts": np.array(counts, dtype=object)}

    def _inspect(self, number: int) -> Counts:
        if self._failure is not None:
            raise self._failure
        (part,) = self._plan.parts([number], self._results)
        if (published := self._results.read(part.file)) is not None:  # by an actor that died before it could say so
            return counts_in(published)
        return asyncio.run_coroutine_threadsafe(self._inspector.inspect(part), self._loop).result()


def _plan_in(results: Results) -> Plan:
    plan = read_plan(results)
    if plan is None:
        raise ScanError(f"{results.name} has no plan on this node. All nodes must see the same results.")
    return plan


def _reason_of(error: BaseException) -> ScanError:
    """What has ended the work of an actor, as it would have ended a scan in this process."""
    cause: BaseException | None = error
    while cause is not None:
        for each in (cause, getattr(cause, "cause", None)):
            if isinstance(each, ScanError):
                return each
        cause = cause.__cause__ or cause.__context__
    return ScanError(f"The scan has failed on the cluster: {error}")
