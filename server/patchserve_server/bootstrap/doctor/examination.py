"""All checks of the doctor, in their order."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from importlib.metadata import distribution
from pathlib import Path
from typing import Final

from patchserve_server.bootstrap.doctor.credentials import check_clock, check_credentials
from patchserve_server.bootstrap.doctor.finding import Finding, fault
from patchserve_server.bootstrap.doctor.limits import check_fronts, check_limits
from patchserve_server.bootstrap.doctor.model import check_decode, check_device, check_precision, check_weights
from patchserve_server.bootstrap.doctor.packages import check_extras, check_versions
from patchserve_server.bootstrap.doctor.ports import check_ports
from patchserve_server.bootstrap.doctor.store import check_store
from patchserve_server.config import Settings


def _check_clock(settings: Settings) -> Iterator[Finding]:
    return check_clock(settings, Path(str(distribution("patchserve").locate_file(""))))  # written by an installation


CHECKS: Final[tuple[Callable[[Settings], Iterator[Finding]], ...]] = (
    check_versions,
    check_extras,
    check_weights,
    check_device,
    check_precision,
    check_decode,
    check_store,
    check_fronts,
    check_ports,
    check_credentials,
    _check_clock,
    check_limits,
)
_OF_ENGINES: Final = frozenset({check_weights, check_device, check_precision, check_decode, check_store})


def examine(settings: Settings) -> Iterator[Finding]:
    """Every finding, as soon as it is there. A check that fails by itself is a finding as well.

    What is a matter of an engine elsewhere is not looked for here.
    """
    for check in CHECKS:
        if settings.engine is not None and check in _OF_ENGINES:
            continue
        try:
            yield from check(settings)
        except Exception as error:  # noqa: BLE001 - the others say more
            name = check.__name__.strip("_").removeprefix("check_").replace("_", " ")
            yield fault(name, f"could not be checked ({type(error).__name__}: {error})", "Report this as a bug.")
