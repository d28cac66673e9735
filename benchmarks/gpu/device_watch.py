"""What a GPU does while a server is under load."""

from __future__ import annotations

import ctypes
import statistics
import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

_BETWEEN_S = 0.1


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
