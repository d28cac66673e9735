"""The device that the backbone and the search run on."""

from __future__ import annotations

import re

import torch

from patchserve_server.domain.errors import StartupError
from patchserve_server.domain.ports import DeviceMemory

_DEVICE = re.compile(r"auto|cpu|cuda(:\d+)?")


def resolve_device(name: str) -> torch.device:
    """The device of a name: `auto` (the first CUDA device, else the CPU), `cpu`, `cuda` or `cuda:N`.

    Raises:
        StartupError: the name is unknown, or this machine has no such device.
    """
    if not _DEVICE.fullmatch(name):
        raise StartupError(f'Unknown device "{name}". Use auto, cpu, cuda or cuda:N.')
    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if name == "cpu" or (name == "auto" and not count):
        return torch.device("cpu")
    index = int(name.partition(":")[2] or 0)
    if not count:
        raise StartupError(f'Device "{name}" needs a CUDA device, and none can be used here. Use --device cpu.')
    if index >= count:
        raise StartupError(f'There is no device "{name}" here. The last one is cuda:{count - 1}.')
    _make_cuda_reproducible()
    return torch.device("cuda", index)


def synchronize(device: torch.device) -> None:
    """Wait until the device has finished its work, so that a clock can be read after it."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def memory_of(device: torch.device) -> DeviceMemory | None:
    """The memory of a device; None: it has that of the process."""
    if device.type != "cuda":
        return None
    free_bytes, total_bytes = torch.cuda.mem_get_info(device)
    return DeviceMemory(torch.cuda.memory_reserved(device), free_bytes, total_bytes)


def _make_cuda_reproducible() -> None:
    """Use full float32 products and the same kernels in every run, so that equal images give equal banks."""
    torch.set_float32_matmul_precision("highest")
    torch.backends.cudnn.allow_tf32 = False
    torch.backends.cudnn.benchmark = False
    torch.backends.cudnn.deterministic = True
