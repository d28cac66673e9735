"""timm, the package of networks. It is an extra, and imported when a backbone needs it: that takes seconds."""

from __future__ import annotations

import importlib
from types import ModuleType

import torch

from patchserve_server.domain.errors import StartupError


def import_timm() -> ModuleType:
    """Import timm, or find it imported.

    Raises:
        StartupError: it is not installed.
    """
    try:
        with torch.device("cpu"):  # the caller may be building a network on the meta device
            return importlib.import_module("timm")
    except ImportError as error:
        raise StartupError(
            "This backbone needs timm, which is not installed: use another --backbone, or install it with "
            '`pip install ".[server,timm]"` in a checkout of patchserve.'
        ) from error
