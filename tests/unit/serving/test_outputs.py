"""FolderSink: the folder for saved overlays. test_inspector.py tests what it writes."""

from __future__ import annotations

from pathlib import Path

import pytest

from patchserve_server.domain.errors import StartupError
from patchserve_server.serving.outputs import FolderSink


def test_a_folder_that_cannot_be_created_stops_the_start(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(StartupError, match=r"--save-outputs .*Not a directory"):
        FolderSink(tmp_path / "file" / "folder")
