"""What is to be done for the whole store now and then."""

from __future__ import annotations

from collections.abc import Callable, Container, Sequence
from dataclasses import dataclass
from datetime import timedelta

from patchserve_server.store.shared.lease import Leases
from patchserve_server.store.shared.surroundings import Surroundings


@dataclass(frozen=True, slots=True)
class Job:
    """Work for the whole store."""

    name: str  # of its lease
    every: timedelta
    work: Callable[[], object]


class Maintenance:
    """Does the jobs that are due, each by one server at a time. A server looks at a lease once or twice per period.

    Args:
        jobs: the jobs.
        leases: say who does them.
        surroundings: the clock, and random numbers that spread the servers over time.
    """

    def __init__(self, jobs: Sequence[Job], leases: Leases, surroundings: Surroundings) -> None:
        self._jobs = jobs
        self._leases = leases
        self._surroundings = surroundings
        self._look_at_s = {job.name: self._later_s(job, 0) for job in jobs}

    def run(self, urgent: Container[str] = ()) -> None:
        """Does what is due. Jobs that are urgent are due at once.

        Raises:
            StorageUnavailableError: the store cannot be read or written.
        """
        for job in self._jobs:
            is_urgent = job.name in urgent
            if is_urgent or self._surroundings.monotonic_s() >= self._look_at_s[job.name]:
                self._look_at_s[job.name] = self._later_s(job, 0.5)
                self._run(job, timedelta(0) if is_urgent else job.every)

    def _run(self, job: Job, every: timedelta) -> None:
        if not self._leases.take(job.name, every):
            return
        is_done = False
        try:
            job.work()
            is_done = True
        finally:
            self._leases.give_back(job.name, is_done=is_done)

    def _later_s(self, job: Job, least: float) -> float:
        share = self._surroundings.rng.uniform(least, 1)
        return self._surroundings.monotonic_s() + share * job.every.total_seconds()
