"""What processes and a GPU use while a server is under load."""

from __future__ import annotations

import ctypes
import os
import statistics
import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

_BETWEEN_S = 0.1
_TICKS_PER_S = os.sysconf("SC_CLK_TCK")


def processor_s(pid: int) -> dict[str, float]:
    """Processor time so far of a server's processes, by what they are: parent, engine, fronts."""
    used = {"parent": _own_s(pid)}
    for child in _children(pid):
        arguments = Path(f"/proc/{child}/cmdline").read_text().rstrip("\0").split("\0")
        name = arguments[-1].split()[0]  # "front 3"
        used[name] = used.get(name, 0.0) + _own_s(child)
    return used


def _own_s(pid: int) -> float:
    fields = _stat(pid)
    return (int(fields[11]) + int(fields[12])) / _TICKS_PER_S


def _children(pid: int) -> list[int]:
    found = []
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit():
            try:
                if int(_stat(int(folder.name))[1]) == pid:
                    found.append(int(folder.name))
            except OSError:
                continue  # it has just ended
    return found


def _stat(pid: int) -> list[str]:
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()


@dataclass(frozen=True)
class DeviceUse:
    """What the driver has seen."""

    busy: float  # share of the time in which the device computed anything
    memory_mib: float  # of all programs, at most


class _Utilization(ctypes.Structure):
    _fields_ = (("gpu", ctypes.c_uint), ("memory", ctypes.c_uint))  # percent


class _Memory(ctypes.Structure):
    _fields_ = (("total", ctypes.c_ulonglong), ("free", ctypes.c_ulonglong), ("used", ctypes.c_ulonglong))


class DeviceWatch:
    """Asks the library of the driver for a GPU, again and again, until `stop`."""

    def __init__(self, device: str, open_library: Callable[[str], Any] = ctypes.CDLL) -> None:
        self._seen = list[DeviceUse]()
        self._ends = threading.Event()
        self._thread: threading.Thread | None = None
        if device != "cpu":
            number = int(device.partition(":")[2] or 0)
            self._thread = threading.Thread(target=self._watch, args=(number, open_library), daemon=True)
            self._thread.start()

    def stop(self) -> DeviceUse | None:
        """None: there is no such library, or it has said nothing."""
        self._ends.set()
        if self._thread is not None:
            self._thread.join()
        if not self._seen:
            return None
        return DeviceUse(statistics.mean(one.busy for one in self._seen), max(one.memory_mib for one in self._seen))

    def _watch(self, number: int, open_library: Callable[[str], Any]) -> None:
        try:
            library = open_library("libnvidia-ml.so.1")
        except OSError:
            return
        handle, utilization, memory = ctypes.c_void_p(), _Utilization(), _Memory()
        if library.nvmlInit_v2() or library.nvmlDeviceGetHandleByIndex_v2(number, ctypes.byref(handle)):
            return
        while not self._ends.wait(_BETWEEN_S):
            failed = library.nvmlDeviceGetUtilizationRates(handle, ctypes.byref(utilization))
            if not failed and not library.nvmlDeviceGetMemoryInfo(handle, ctypes.byref(memory)):
                self._seen.append(DeviceUse(utilization.gpu / 100, memory.used / 2**20))
