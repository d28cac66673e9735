"""Processes below another one, as Linux lists them."""

from __future__ import annotations

import os
import signal
from contextlib import suppress
from pathlib import Path

_TICKS_PER_S = os.sysconf("SC_CLK_TCK")


def kill_tree(pid: int) -> None:
    """Kills a process, its group, and all that they started: a server's processes have sessions of their own."""
    found = set[int]()
    while more := _tree(pid) - found:
        _send(more, signal.SIGSTOP)  # what is stopped starts nothing more
        found |= more
    _send(found, signal.SIGKILL)


def processor_s(pid: int) -> dict[str, float]:
    """Processor time so far of a server's processes, by what they are: parent, engine, fronts."""
    used = {"parent": _own_s(pid)}
    for name, child in children(pid):
        used[name] = used.get(name, 0.0) + _own_s(child)
    return used


def children(pid: int) -> list[tuple[str, int]]:
    """What a server's child is, and its number. One that has just ended has no name, and is left out."""
    found = []
    for child in _all():
        fields = _stat(child)
        if fields and int(fields[1]) == pid:
            with suppress(OSError):
                arguments = Path(f"/proc/{child}/cmdline").read_text().rstrip("\0").split("\0")
                if words := arguments[-1].split():  # "front 3"
                    found.append((words[0], child))
    return found


def _tree(pid: int) -> set[int]:
    stats = {each: fields for each in _all() if (fields := _stat(each))}
    found = {pid, *(each for each, fields in stats.items() if int(fields[2]) == pid)}
    while more := {each for each, fields in stats.items() if int(fields[1]) in found} - found:
        found |= more
    return found


def _send(pids: set[int], number: signal.Signals) -> None:
    for pid in pids:
        with suppress(ProcessLookupError):
            os.kill(pid, number)


def _own_s(pid: int) -> float:
    fields = _stat(pid)
    return (int(fields[11]) + int(fields[12])) / _TICKS_PER_S if fields else 0.0


def _all() -> list[int]:
    return [int(folder.name) for folder in Path("/proc").iterdir() if folder.name.isdigit()]


def _stat(pid: int) -> list[str]:
    """From its state on; empty if it has ended."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return []
