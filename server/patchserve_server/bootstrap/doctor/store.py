"""Where references are kept: a folder, or a bucket."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from patchserve_server.bootstrap.doctor.bucket import check_bucket
from patchserve_server.bootstrap.doctor.finding import Finding, fault, ok, warning
from patchserve_server.bootstrap.folders import store_cache_folder
from patchserve_server.config import Settings
from patchserve_server.domain.errors import StartupError
from patchserve_server.domain.words import counted
from patchserve_server.store import is_locked, look_at_store

_MIB: Final = 2**20
_LITTLE_BYTES: Final = 1024 * _MIB
_TOO_LITTLE_BYTES: Final = 64 * _MIB
_LISTED: Final = 3


def check_store(settings: Settings) -> Iterator[Finding]:
    """Whether the store can be used, has space, and its references look intact. Their arrays are not read."""
    if settings.store_url is not None:
        yield from check_bucket(settings.store_url)
        yield from _check_cache(settings)
        return
    folder = settings.store_folder
    if folder is None:
        yield warning("store", "references are kept in memory only", "Set --store to keep them over a restart.")
        return
    if not folder.exists():
        yield from _missing(folder)
        return
    try:
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        advice = "Name a folder with --store that the server's user can write to."
        yield fault("store", f"{folder} cannot be written: {error.strerror}", advice)
        return
    state = "in use by a running server" if is_locked(folder) else "writable, and no server uses it"
    yield ok("store", f"{folder}: {state}")
    yield from _check_space(folder)
    yield from _check_references(folder)


def _check_cache(settings: Settings) -> Iterator[Finding]:
    try:
        folder = store_cache_folder(settings)
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except StartupError as error:
        yield fault("cache", error.message, "Without it, no reference can be read.")
    except OSError as error:
        advice = "Name a folder with --store-cache that the server's user can write to."
        yield fault("cache", f"{settings.store_cache} cannot be written: {error.strerror}", advice)
    else:
        yield ok("cache", f"{folder}: up to {settings.store_cache_mib} MiB")
        yield from _check_space(folder)


def _missing(folder: Path) -> Iterator[Finding]:
    parent = next(each for each in folder.absolute().parents if each.exists())
    if parent.is_dir() and os.access(parent, os.W_OK | os.X_OK):
        yield ok("store", f"{folder} does not exist yet; the first start creates it")
    else:
        advice = f"Create it, and let the server's user write to it: {parent} does not let this user."
        yield fault("store", f"{folder} does not exist and cannot be created", advice)


def _check_space(folder: Path) -> Iterator[Finding]:
    free_bytes = shutil.disk_usage(folder).free
    free = (
        f"{free_bytes / _MIB / 1024:.1f} GiB free" if free_bytes >= _LITTLE_BYTES else f"{free_bytes // _MIB} MiB free"
    )
    advice = "Free some space, or delete references: loads are rejected when the disk is full."
    if free_bytes < _TOO_LITTLE_BYTES:
        yield fault("disk", free, advice)
    elif free_bytes < _LITTLE_BYTES:
        yield warning("disk", free, advice)
    else:
        yield ok("disk", free)


def _check_references(folder: Path) -> Iterator[Finding]:
    try:
        problems = look_at_store(folder)
    except OSError as error:
        yield fault("references", f"they cannot be read: {error.strerror}", "Correct the permissions of the folder.")
        return
    damaged = {name: problem for name, problem in problems.items() if problem}
    if not damaged:
        yield ok("references", f"{counted(len(problems), 'reference')}, none looks damaged")
        return
    shown = "; ".join(f"{name}: {problem}" for name, problem in list(damaged.items())[:_LISTED])
    more = f"; and {len(damaged) - _LISTED} more" if len(damaged) > _LISTED else ""
    message = f"{len(damaged)} of {counted(len(problems), 'reference')} damaged: {shown}{more}"
    yield fault("references", message, "Run `patchserve-server store check` to see which revisions are intact.")
