"""Which devices a server computes on: an engine process for the first, one more process for each other."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final

from patchserve_server.config import Settings, words_of
from patchserve_server.domain.errors import StartupError

_GPUS: Final = Path("/proc/driver/nvidia/gpus")
_VISIBLE: Final = "CUDA_VISIBLE_DEVICES"


def devices_of(settings: Settings) -> tuple[str, ...]:
    """The devices by name; `all`: every GPU that may be used.

    Raises:
        StartupError: there is no GPU.
    """
    if settings.device != "all":
        return words_of(settings.device)
    if (visible := os.environ.get(_VISIBLE)) is not None:
        count = len(words_of(visible))
    else:
        count = len(list(_GPUS.iterdir())) if _GPUS.is_dir() else 0
    if not count:
        raise StartupError(
            f"--device all: this machine has no GPU that may be used (see nvidia-smi and {_VISIBLE}). Choose "
            "--device cpu."
        )
    return tuple(f"cuda:{number}" for number in range(count))
