"""What processes and a GPU use while a server is under load."""

from __future__ import annotations

import os
import shutil
import statistics
import subprocess
from dataclasses import dataclass
from pathlib import Path

_TICKS_PER_S = os.sysconf("SC_CLK_TCK")


def processor_s(pid: int) -> dict[str, float]:
    """Processor time so far of a server's processes, by what they are: server, engine, fronts."""
    used = {"server": _own_s(pid)}
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
    """What the tool of the driver has seen."""

    busy: float  # share of the time in which the device computed anything
    memory_mib: float  # of all programs, at most


class DeviceWatch:
    """Watches a GPU until `stop`."""

    def __init__(self, device: str) -> None:
        number = device.partition(":")[2] or "0"
        command = ["nvidia-smi", "--query-gpu=utilization.gpu,memory.used", "--format=csv,noheader,nounits"]
        self._process: subprocess.Popen[str] | None = None
        if device != "cpu" and shutil.which(command[0]):
            self._process = subprocess.Popen(
                [*command, f"--id={number}", "-lms", "200"],
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                text=True,
            )

    def stop(self) -> DeviceUse | None:
        """None: the tool is missing, or has seen nothing."""
        if self._process is None:
            return None
        self._process.terminate()
        lines = self._process.communicate()[0].splitlines()
        try:
            seen = [tuple(float(value) for value in line.split(",")) for line in lines if line.count(",") == 1]
        except ValueError:
            return None
        if not seen:
            return None
        return DeviceUse(statistics.mean(busy for busy, _ in seen) / 100, max(memory for _, memory in seen))
