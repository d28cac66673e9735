"""The device that the backbone and the search run on."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import torch

from patchserve_server.domain.errors import MemoryBudgetError, StartupError
from patchserve_server.domain.ports import DeviceMemory
from patchserve_server.engine.backbone.lost_device import end_if_lost

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
        raise StartupError(
            f'Device "{name}" needs a CUDA device, and none can be used here: {_why_no_cuda()}. Use --device cpu.'
        )
    if index >= count:
        raise StartupError(f'There is no device "{name}" here. The last one is cuda:{count - 1}.')
    _make_cuda_reproducible()
    return torch.device("cuda", index)


def synchronize(device: torch.device) -> None:
    """Wait until the device has finished its work for this thread, so that a clock can be read after it.

    Waiting for the whole device is forbidden while another thread captures, and would end that capture.
    """
    if device.type == "cuda":
        torch.cuda.current_stream(device).synchronize()


@contextmanager
def device_errors(device: torch.device) -> Iterator[None]:
    """Says for whom a device had too little memory: for the caller, and for nobody else. If it is lost, all ends.

    Raises:
        MemoryBudgetError: an allocation failed in the block.
    """
    try:
        yield
    except torch.OutOfMemoryError as error:
        raise memory_error(error) from None
    except Exception as error:
        end_if_lost(device, error)
        raise


@contextmanager
def device_memory_at_start() -> Iterator[None]:
    """The same while the server starts.

    Raises:
        StartupError: an allocation failed in the block.
    """
    try:
        yield
    except torch.OutOfMemoryError as error:
        raise StartupError(memory_error(error).message) from None


def release_memory() -> None:
    """Give memory of GPUs back that torch keeps for later; without one, nothing happens."""
    with suppress(RuntimeError):  # torch refuses to free anything while another thread captures a graph
        torch.cuda.empty_cache()


def memory_error(error: torch.OutOfMemoryError) -> MemoryBudgetError:
    """The same for an error that was kept."""
    release_memory()
    reason = str(error).partition(". ")[0]
    return MemoryBudgetError(
        f"The device has too little free memory ({reason}). Lower --max-bank-mib or --max-batch-size, or close other "
        "programs that use it."
    )


class Stopwatch:
    """Measures two laps of work on a device, without waiting for it before their end."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._marks_s, self._events = list[float](), list[torch.cuda.Event]()
        self.lap()

    def lap(self) -> None:
        self._marks_s.append(time.perf_counter())
        if self._device.type == "cuda":
            event = torch.cuda.Event(enable_timing=True, blocking=True)  # type: ignore[no-untyped-call]
            event.record(torch.cuda.current_stream(self._device))  # a thread's current device may be another one
            self._events.append(event)

    def laps_s(self) -> tuple[float, float]:
        """The time to the first lap on the device, and from there until now, when its work is done.

        Waits for the first lap, if nothing else has: a pass without a result has no other wait.
        """
        if len(self._events) > 1:
            self._events[1].synchronize()
        whole_s = time.perf_counter() - self._marks_s[0]
        if len(self._marks_s) == 1:
            return whole_s, 0.0
        first_s = self._marks_s[1] - self._marks_s[0]
        if self._events:
            first_s = min(whole_s, self._events[0].elapsed_time(self._events[1]) / 1000)
        return first_s, whole_s - first_s


def memory_of(device: torch.device) -> DeviceMemory | None:
    """The memory of a device; None: it has that of the process."""
    if device.type != "cuda":
        return None
    free_bytes, total_bytes = torch.cuda.mem_get_info(device)
    return DeviceMemory(torch.cuda.memory_reserved(device), free_bytes, total_bytes)


def _why_no_cuda() -> str:
    if torch.version.cuda is None:
        return f"torch {torch.__version__} is built without CUDA, install one with it"
    return f"nvidia-smi must list a GPU, in a container too, and a driver for CUDA {torch.version.cuda} or newer"


def _make_cuda_reproducible() -> None:
    """Use full float32 products and the same kernels in every run, so that equal images give equal banks.

    Sums of products of float16 and bfloat16 are float32 too, whatever parts they are added up in.
    """
    torch.set_float32_matmul_precision("highest")
    torch.backends.cuda.matmul.allow_fp16_reduced_precision_reduction = False
    torch.backends.cuda.matmul.allow_bf16_reduced_precision_reduction = False
    torch.backends.cuda.matmul.allow_fp16_accumulation = False
    torch.backends.cudnn.allow_tf32 = False
    torch.backends.cudnn.benchmark = False
    torch.backends.cudnn.deterministic = True
