"""Where the backbone and the search run."""

from __future__ import annotations

import re

import torch

from patchserve_server.domain.errors import StartupError

_DEVICE = re.compile(r"auto|cpu|cuda(:\d+)?")


def resolve_device(name: str) -> torch.device:
    """The device of a name: `auto` (the first CUDA device, else the CPU), `cpu`, `cuda` or `cuda:N`.

    Raises:
        StartupError: no such name, or no such device here.
    """
    if not _DEVICE.fullmatch(name):
        raise StartupError(f'There is no device "{name}": use auto, cpu, cuda or cuda:N.')
    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if name == "cpu" or (name == "auto" and not count):
        return torch.device("cpu")
    index = int(name.partition(":")[2] or 0)
    if not count:
        raise StartupError(f'Device "{name}" was asked for, but no CUDA device can be used here: use --device cpu.')
    if index >= count:
        raise StartupError(f'There is no device "{name}": the last of the {count} here is cuda:{count - 1}.')
    _compute_exactly()
    return torch.device("cuda", index)


def synchronize(device: torch.device) -> None:
    """Waits until the device has done all that it was given, so that a clock read after it tells the truth."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def _compute_exactly() -> None:
    """Whole float32 products, and the same kernels at every run: a bank must not depend on a timing."""
    torch.set_float32_matmul_precision("highest")
    torch.backends.cudnn.allow_tf32 = False
    torch.backends.cudnn.benchmark = False
    torch.backends.cudnn.deterministic = True
