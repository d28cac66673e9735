"""How many fronts a server has, and whether it can have them."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Final

from patchserve_server.config import Settings
from patchserve_server.domain.errors import StartupError
from patchserve_server.system.limits import available_cores

_CORES_PER_FRONT: Final = 8  # with a network on the other cores, a front is busy half of the time
_CORES_PER_FRONT_OF_GPU: Final = 4  # one to receive and answer, the others to decode and draw
_MOST: Final = 8
_GPU: Final = Path("/proc/driver/nvidia/version")


def count_fronts(settings: Settings) -> int:
    """The setting; for `auto`, by cores and device. Where several are not possible, it is 1."""
    if settings.fronts != "auto":
        return int(settings.fronts)
    if sys.platform != "linux" or settings.host.startswith("unix") or settings.save_outputs is not None:
        return 1
    uses_gpu = settings.device.startswith("cuda") or (settings.device == "auto" and _GPU.exists())
    return max(1, min(_MOST, available_cores() // (_CORES_PER_FRONT_OF_GPU if uses_gpu else _CORES_PER_FRONT)))


def check_settings(settings: Settings) -> None:
    """Check what several fronts cannot do.

    Raises:
        StartupError: it is set.
    """
    if sys.platform != "linux":
        raise StartupError("--fronts above 1 needs Linux. Leave it out elsewhere.")
    if settings.host.startswith("unix"):
        raise StartupError("--fronts above 1 needs an address with ports, such as 127.0.0.1: processes can share them.")
    if settings.save_outputs is not None:
        raise StartupError("--save-outputs works with one front only: its limits are those of one process.")
