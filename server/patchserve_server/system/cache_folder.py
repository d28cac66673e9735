"""The folder for what can be made again."""

from __future__ import annotations

import os
from pathlib import Path


def user_cache_folder(name: str) -> Path | None:
    """A folder for what can be made again; None: the server's user has no home folder."""
    folder = Path(os.environ.get("XDG_CACHE_HOME", ""))
    try:
        if not folder.is_absolute():  # the XDG specification says to ignore it
            folder = Path("~/.cache").expanduser()
    except RuntimeError:
        return None
    return folder / "patchserve" / name
