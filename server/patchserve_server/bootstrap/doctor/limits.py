"""What the system allows, against what the settings may need."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from patchserve_server.bootstrap.doctor.finding import Finding, fault, ok, warning
from patchserve_server.bootstrap.processes.count import check_settings, count_fronts
from patchserve_server.config import Settings
from patchserve_server.domain.errors import StartupError
from patchserve_server.system.limits import available_cores, cgroup_bytes, cgroup_cores, machine_bytes, open_files_limit

_MIB: Final = 2**20
_GIB: Final = 2**30
_OTHER_BYTES: Final = 1.5 * _GIB  # libraries and a network, as measured
_FILES_PER_CALL: Final = 2  # a connection, and a file of the store
_OTHER_FILES: Final = 128


def check_fronts(settings: Settings) -> Iterator[Finding]:
    """Whether there can be as many processes."""
    if (fronts := count_fronts(settings)) == 1 and settings.engine is None:
        return
    try:
        check_settings(settings)
        yield ok("fronts", f"{fronts} and " + (f"the engine at {settings.engine}" if settings.engine else "an engine"))
    except StartupError as error:
        yield fault("fronts", error.message, "Leave that setting out." if settings.engine else "Set --fronts 1.")


def check_limits(settings: Settings) -> Iterator[Finding]:
    """Open files, memory and processor time."""
    yield _files(settings)
    yield _memory(settings)
    yield _processors(settings)


def _files(settings: Settings) -> Finding:
    needed, limit = _FILES_PER_CALL * settings.max_calls + _OTHER_FILES, open_files_limit()
    if limit is None:
        return ok("open files", "no limit")
    if limit < needed:
        advice = f"Raise it to {needed} (ulimit -n, or LimitNOFILE= of systemd), or set a lower --max-calls."
        return warning("open files", f"at most {limit}; {settings.max_calls} calls may need {needed}", advice)
    return ok("open files", f"at most {limit}")


def _memory(settings: Settings) -> Finding:
    # A load may use as much as all open references; what is received is in memory once more while it is read.
    budgets = 2 * settings.max_bank_mib * _MIB + 2 * settings.max_pending_mib * _MIB + _OTHER_BYTES
    limit, machine = cgroup_bytes(), machine_bytes()
    known = [each for each in (limit, machine) if each is not None]
    if not known:
        return ok("memory", f"up to {budgets / _GIB:.1f} GiB by --max-bank-mib and --max-pending-mib")
    available = min(known)
    whose = "the container or service" if available == limit else "the machine"
    message = f"up to {budgets / _GIB:.1f} GiB by the settings; {whose} has {available / _GIB:.1f} GiB"
    if budgets > available:
        return warning("memory", message, "Set a lower --max-bank-mib, or give the server more memory.")
    return ok("memory", message)


def _processors(settings: Settings) -> Finding:
    cores, quota = available_cores(), cgroup_cores()
    message = f"{settings.threads} threads on {cores} cores"
    if quota is not None and settings.threads > max(1, round(quota)):
        advice = f"Set --threads {max(1, round(quota))}: the server does not detect this limit."
        return warning("processor", f"{message}, of which it may use the time of {quota:g}", advice)
    if settings.threads > cores:
        return warning("processor", message, f"Set --threads {cores}: more threads than cores slow each other down.")
    return ok("processor", message)
