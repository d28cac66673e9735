"""How many fronts a server has, and whether it can have them."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Final

from patchserve_server.bootstrap.processes.devices import devices_of
from patchserve_server.config import Settings
from patchserve_server.domain.errors import StartupError
from patchserve_server.system.limits import available_cores

_CORES_PER_FRONT: Final = 8  # with a network on the other cores, a front is busy half of the time
_CORES_PER_FRONT_OF_GPU: Final = 4  # one to receive and answer, the others to decode and draw
_CORES_PER_FRONT_ALONE: Final = 2  # the engine is elsewhere
_MOST: Final = 8
_GPU: Final = Path("/proc/driver/nvidia/version")


def count_fronts(settings: Settings) -> int:
    """The setting; for `auto`, by cores and device. Where several are not possible, it is 1."""
    if settings.fronts != "auto":
        return int(settings.fronts)
    if settings.engine is not None:
        return max(1, min(_MOST, available_cores() // _CORES_PER_FRONT_ALONE))
    if sys.platform != "linux" or settings.host.startswith("unix") or settings.save_outputs is not None:
        return 1
    uses_gpu = settings.device.startswith(("cuda", "all")) or (settings.device == "auto" and _GPU.exists())
    return max(1, min(_MOST, available_cores() // (_CORES_PER_FRONT_OF_GPU if uses_gpu else _CORES_PER_FRONT)))


def check_settings(settings: Settings) -> None:
    """Check what several fronts cannot do.

    Raises:
        StartupError: it is set.
    """
    if sys.platform != "linux":
        raise StartupError("--engine, --fronts above 1 and several devices need Linux. Leave them out elsewhere.")
    if settings.host.startswith("unix"):
        raise StartupError("--fronts above 1 needs an address with ports, such as 127.0.0.1: processes can share them.")
    if settings.save_outputs is not None:
        raise StartupError("--save-outputs works with one front only: its limits are those of one process.")
    if settings.engine is None:
        return
    of_engine = {"--preload": settings.preload is not None, "--decode device": settings.decode == "device"}
    for flag, is_set in of_engine.items():
        if is_set:
            raise StartupError(f"{flag} is a setting of the engine: give it to `patchserve-server engine`.")


def check_engine_settings(settings: Settings) -> None:
    """Check what an engine alone cannot do.

    Raises:
        StartupError: it is set.
    """
    if sys.platform != "linux":
        raise StartupError("An engine for fronts elsewhere needs Linux.")
    if len(devices_of(settings)) > 1:
        raise StartupError("An engine for fronts elsewhere has one device: run one for each, and fronts for each.")
    of_fronts = ("engine", "http_port", "auth_tokens", "jwt_issuer", "save_outputs")
    for name in of_fronts:
        if getattr(settings, name) is not None:
            flag = "--" + name.replace("_", "-")
            raise StartupError(f"{flag} is a setting of fronts: give it to `patchserve-server serve`.")
