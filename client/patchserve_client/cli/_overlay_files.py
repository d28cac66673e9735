"""`stream --out DIR`: a file for each overlay, named after its frame."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path, PurePosixPath
from types import TracebackType
from typing import Self

from patchserve_client import FrameResult, InferenceResult
from patchserve_client.cli._failed_writes import FailedWrites
from patchserve_client.cli._overlay_names import OverlayNames


class OverlayFiles:
    """Writes `<frame>_overlay<suffix>`. The numbers of a video's frames have six digits, so that files are in order.

    Raises:
        OSError: at the end, if an overlay could not be written.
    """

    def __init__(self, folder: Path, drawn: Callable[[InferenceResult], bytes], suffix: str) -> None:
        self._folder, self._drawn, self._suffix = folder, drawn, suffix
        self._names = OverlayNames(folder, suffix)
        self._failed = FailedWrites(folder, "overlay", "overlays")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if error is None:
            self._failed.fail_if_any()

    def write(self, frame: FrameResult) -> None:
        """Write the overlay of a frame, if it has one."""
        if frame.result is None or frame.result.encoded_overlay is None:
            return
        try:
            path = self._path(frame)
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(self._drawn(frame.result))
        except OSError as error:
            self._failed.add(error)

    def _path(self, frame: FrameResult) -> Path:
        name = frame.frame_id or str(frame.sequence)
        if name.isdecimal():
            return self._folder / f"{int(name):06d}_overlay{self._suffix}"
        # The server sends the name back: it must not lead to another folder.
        parts = [part for part in PurePosixPath(name.replace("\0", "_")).parts if part not in ("/", "//", "..")]
        return self._names.path_of(PurePosixPath(*parts or ["frame"]))
