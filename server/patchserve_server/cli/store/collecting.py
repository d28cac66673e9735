"""`patchserve-server store gc`: removes what no reference of a bucket uses."""

from __future__ import annotations

import argparse
import sys
from datetime import timedelta
from pathlib import Path
from typing import Final

from patchserve_server.cli import PROGRAM
from patchserve_server.cli.parser import Commands
from patchserve_server.cli.store.report import print_line
from patchserve_server.cli.store.where import add_store_flags, bucket, errors, store_of
from patchserve_server.domain.words import counted
from patchserve_server.store.objects import ObjectStorage
from patchserve_server.store.shared import Surroundings
from patchserve_server.store.shared.contents import SWEEP_GRACE
from patchserve_server.store.shared.lease import Leases
from patchserve_server.store.shared.sweep import SWEEP, SweepReport, sweep

_MIB: Final = 2**20


def add_to(commands: Commands) -> None:
    description = (
        "Move banks and manifests that no reference of a bucket uses to its trash, and remove what was long enough "
        "there. Servers do this once a day. Exit code 1 if nothing can be removed, because a pointer is not understood."
    )
    parser = commands.add_parser("gc", help="remove what nothing uses", description=description)
    add_store_flags(parser)
    hours = SWEEP_GRACE / timedelta(hours=1)
    help_text = f"age of what is moved, and again of what is removed [default: {hours:g}]; at least 1"
    parser.add_argument("--grace", type=_hours, default=SWEEP_GRACE, metavar="HOURS", help=help_text)
    parser.add_argument("--dry-run", action="store_true", help="only say what would be moved and removed")
    parser.set_defaults(run=_run)


def _hours(text: str) -> timedelta:
    try:
        grace = timedelta(hours=float(text))
    except (ValueError, OverflowError):
        raise argparse.ArgumentTypeError(f"{text!r} is no number of hours") from None
    if grace < timedelta(hours=1):
        raise argparse.ArgumentTypeError("a save that runs needs at least 1 hour of grace")
    return grace


def _run(arguments: argparse.Namespace) -> None:
    store = store_of(arguments, "gc")
    if isinstance(store, Path):
        print_line("A folder has no trash: a server that opens it removes what killed saves and deletions left.")
        return
    with errors("gc"), bucket(store, "gc") as (storage, surroundings):
        if arguments.dry_run:
            report = sweep(storage, surroundings, arguments.grace, is_dry_run=True)
        else:
            report = _sweep_alone(storage, surroundings, arguments.grace)
    for line in _lines(report, is_dry_run=arguments.dry_run):
        print_line(line)
    sys.exit(int(bool(report.problems)))


def _sweep_alone(storage: ObjectStorage, surroundings: Surroundings, grace: timedelta) -> SweepReport:
    leases = Leases(storage, surroundings)
    if not leases.take(SWEEP, timedelta(0)):
        sys.exit(f"{PROGRAM} store gc: A server removes what nothing uses at the moment. Try again in ten minutes.")
    is_done = False
    try:
        report = sweep(storage, surroundings, grace)
        is_done = not report.problems
    finally:
        leases.give_back(SWEEP, is_done=is_done)
    return report


def _lines(report: SweepReport, *, is_dry_run: bool) -> list[str]:
    if report.problems:
        return ["Nothing is removed, because what these use is not known:", *(f"  {each}" for each in report.problems)]
    would = "would be " if is_dry_run else ""
    lines = [f"{key}: {would}moved to the trash" for key in report.swept]
    lines += [f"{key}: {would}put back from the trash" for key in report.returned]
    lines += [f"{key}: {would}removed" for key in report.purged]
    size, moved = f"{report.swept_bytes / _MIB:.1f} MiB", f"{len(report.swept)} {would}moved to the trash"
    used, young = counted(report.used, "object"), f"{report.young} unused and too young"
    return [*lines, f"{used} used, {young}, {moved} ({size}), {len(report.purged)} {would}removed"]
