"""A scan in this process, on all its cores, without Ray."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from functools import partial
from typing import Final

from patchserve_server.bootstrap.process import freeze_heap, new_event_loop
from patchserve_server.domain.reference import Reference
from patchserve_server.scan.counts import Counts
from patchserve_server.scan.engine import Work, open_inspector
from patchserve_server.scan.plan import Part, Plan
from patchserve_server.scan.progress import Progress
from patchserve_server.scan.results import Results

_PARTS_AT_ONCE: Final = 2  # while one ends, the next one keeps the engine busy


def run_here(
    work: Work, reference: Reference, results: Results, plan: Plan, numbers: Sequence[int], *, progress: Progress
) -> Counts:
    """Inspects these parts; returns what was found when all are published.

    Raises:
        KeyboardInterrupt: after Ctrl-C. Parts that are not published are given up.
        ScanError, PatchserveError: the scan cannot go on.
    """
    progress.opening()
    with open_inspector(work, reference, results) as inspector:

        async def inspect(part: Part) -> Counts:
            counts = await inspector.inspect(part, lambda: progress.images_done(1))
            progress.part_done(counts)
            return counts

        async def inspect_all() -> Counts:
            running, found = set[asyncio.Task[Counts]](), Counts()
            parts = plan.parts(numbers, results)
            try:
                while (part := await asyncio.to_thread(next, parts, None)) is not None:
                    running.add(asyncio.create_task(inspect(part)))
                    while len(running) >= _PARTS_AT_ONCE:
                        found += await _first_done(running)
                while running:
                    found += await _first_done(running)
                return found
            finally:
                for task in running:
                    task.cancel()
                await asyncio.gather(*running, return_exceptions=True)

        freeze_heap()
        with asyncio.Runner(loop_factory=partial(new_event_loop, work.settings)) as runner:
            return runner.run(inspect_all())


async def _first_done(running: set[asyncio.Task[Counts]]) -> Counts:
    """Waits until one has ended, and removes it.

    Raises:
        The error of one that has failed.
    """
    done, _ = await asyncio.wait(running, return_when=asyncio.FIRST_COMPLETED)
    running -= done
    return sum((task.result() for task in done), Counts())
