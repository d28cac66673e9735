"""The end of a process whose GPU is lost."""

from __future__ import annotations

import logging
import os

import torch

EXIT_CODE = 1

_log = logging.getLogger(__name__)


def end_if_lost(device: torch.device, error: Exception) -> None:
    """Ends this process if its GPU does not answer any more.

    After an illegal access or a fault of its memory, CUDA refuses whatever the process still asks for, until it ends.
    It would answer INTERNAL to every caller, and at once, so it would even get the most images. What started the
    process starts it again: the parent of `--fronts` and of several devices, systemd, Kubernetes.

    Args:
        device: of this process.
        error: what went wrong on it. Too little memory is no such loss.
    """
    if device.type != "cuda" or isinstance(error, torch.OutOfMemoryError) or not isinstance(error, RuntimeError):
        return
    try:
        torch.cuda.current_stream(device).synchronize()
    except RuntimeError as refused:
        reason = str(refused).partition("\n")[0]
        _log.critical("%s is lost (%s). This process ends, and must be started again", device, reason, exc_info=error)
        logging.shutdown()
        os._exit(EXIT_CODE)  # threads that wait for the device would never end
