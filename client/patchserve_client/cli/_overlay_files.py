"""`stream --out DIR`: a file for each overlay, named after its frame."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Self

from patchserve_client import FrameResult, InferenceResult
from patchserve_client.cli._failed_writes import FailedWrites


class OverlayFiles:
    """Writes `<frame>_overlay<suffix>`. The numbers of a video's frames have six digits, so that files are in order.

    Raises:
        OSError: at the end, if an overlay could not be written.
    """

    def __init__(self, folder: Path, drawn: Callable[[InferenceResult], bytes], suffix: str) -> None:
        self._folder, self._drawn, self._suffix = folder, drawn, suffix
        self._used: set[str] = set()
        self._failed = FailedWrites(folder, "overlays")

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
            path = self._folder / f"{self._stem(frame)}_overlay{self._suffix}"
            path.write_bytes(self._drawn(frame.result))
        except OSError as error:
            self._failed.add(error)

    def _stem(self, frame: FrameResult) -> str:
        if frame.frame_id.isdigit() or not frame.frame_id:
            return f"{int(frame.frame_id or frame.sequence):06d}"
        stem = re.sub(r"[^\w.-]+", "_", frame.frame_id.rpartition(".")[0] or frame.frame_id)
        if stem.casefold() in self._used:  # the same name again, such as a file that was replaced
            stem = f"{stem}_{frame.sequence:06d}"
        self._used.add(stem.casefold())
        return stem
