"""What the system lets this process use: files, memory, processor time."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Final

_CGROUPS: Final = Path("/sys/fs/cgroup")
_OWN: Final = Path("/proc/self/cgroup")
_UNLIMITED_BYTES: Final = 2**60  # what version 1 has instead of "max" is larger

if sys.platform == "win32":

    def open_files_limit() -> int | None:
        """How many files and connections may be open; None: no limit."""
        return None

    def machine_bytes() -> int | None:
        """The memory of the machine; None: not known."""
        return None

else:
    import resource

    def open_files_limit() -> int | None:
        """How many files and connections may be open; None: no limit."""
        files, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
        return None if files == resource.RLIM_INFINITY else files

    def machine_bytes() -> int | None:
        """The memory of the machine; None: not known."""
        try:
            return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
        except (ValueError, OSError):
            return None


def available_cores() -> int:
    """The cores that this process may use; in a container they can be fewer than the machine has."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def cgroup_bytes(cgroups: Path = _CGROUPS, own: Path = _OWN) -> int | None:
    """The memory limit of the container or the service; None: no limit."""
    found = [_number(folder / name) for folder, name in _files(cgroups, own, "memory.max", "memory.limit_in_bytes")]
    return min((limit for limit in found if limit is not None and limit < _UNLIMITED_BYTES), default=None)


def cgroup_cores(cgroups: Path = _CGROUPS, own: Path = _OWN) -> float | None:
    """How many cores' time the container or the service may use; None: no limit."""
    cores = []
    for folder, name in _files(cgroups, own, "cpu.max", "cpu.cfs_quota_us"):
        words = _words(folder / name)
        quota, period = [*words, *_words(folder / "cpu.cfs_period_us")][:2] if words else ("max", "1")
        if quota.isdigit() and period.isdigit() and int(period):
            cores.append(int(quota) / int(period))
    return min(cores, default=None)


def _files(cgroups: Path, own: Path, name: str, name_v1: str) -> list[tuple[Path, str]]:
    """The limits of this process's groups and of those above them: (folder, name of the file)."""
    found = []
    for line in _text(own).splitlines():
        _, controllers, path = line.split(":", 2)
        root = cgroups / controllers if controllers else cgroups
        folder = root / path.strip("/")
        # In a container the path may be that of the host: then the group's own folder is the root.
        for each in (folder, *folder.parents):
            if not each.is_relative_to(root):
                break
            found += [(each, file) for file in ((name_v1,) if controllers else (name,)) if (each / file).exists()]
    return found


def _text(path: Path) -> str:
    try:
        return path.read_text()
    except OSError:
        return ""


def _words(path: Path) -> list[str]:
    return _text(path).split()


def _number(path: Path) -> int | None:
    words = _words(path)
    return int(words[0]) if words and words[0].isdigit() else None
