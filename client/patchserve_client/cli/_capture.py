"""`patchserve reference capture`."""

from __future__ import annotations

import contextlib
import itertools
import shlex
import tempfile
from collections.abc import Iterator
from pathlib import Path
from threading import Event
from typing import Annotated

import typer

from patchserve_client import Frame
from patchserve_client._images import encoded
from patchserve_client.cli._durations import INTERVAL
from patchserve_client.cli._opened_source import local_path, opened_video
from patchserve_client.cli._output import print_note, progress
from patchserve_client.cli._paths import NEW_FOLDER
from patchserve_client.cli._sources import Source, SourceError, SourceOptions, shown

RECONNECT_FOR_S = 300.0

CaptureCountOption = Annotated[int, typer.Option("--count", min=1, metavar="N", help="Number of frames.")]
CaptureEveryOption = Annotated[
    float, typer.Option("--every", **INTERVAL, show_default="2s", help="Time between two frames.")
]
KeepOption = Annotated[
    Path | None, typer.Option("--out", **NEW_FOLDER, metavar="DIR", help="Also keep the frames in this folder.")
]


@contextlib.contextmanager
def captured_files(source: str, count: int, every_s: float, out: Path | None) -> Iterator[list[Path]]:
    """Yields files of `count` frames of a video file, a camera or a stream. Without `out`, they are deleted at the end.

    Raises:
        typer.BadParameter: there is no such source, or it is a folder.
        SourceError: it cannot be opened, has no frames, or is a camera that was lost.
    """
    if (path := local_path(source)) and path.is_dir():
        raise typer.BadParameter(f"{source} is a folder. Load it: patchserve reference load {shlex.quote(source)}")
    with contextlib.ExitStack() as folders:
        folder = out or Path(folders.enter_context(tempfile.TemporaryDirectory(prefix="patchserve-")))
        folder.mkdir(parents=True, exist_ok=True)
        options = SourceOptions(end=Event(), tell=_tell, fps=1 / every_s, reconnect_for_s=RECONNECT_FOR_S)
        with opened_video(source, options) as opened, progress("Capturing", count) as step:
            files = []
            for frame in itertools.islice(_usable(opened), count):
                file = folder / f"frame_{int(frame.frame_id):06d}.jpg"
                file.write_bytes(encoded(frame.image))
                files.append(file)
                step()
        if not files:
            raise SourceError(f"{shown(source)} has no frames.")
        if len(files) < count:
            _tell("ended", f"{shown(source)} ended after {len(files)} of {count} frames.")
        yield files


def _usable(source: Source) -> Iterator[Frame]:
    """The frames. An incomplete recording has good ones before its end; a lost camera may have been disturbed."""
    try:
        yield from source.frames()
    except SourceError as error:
        if source.is_live:
            raise
        _tell("incomplete", str(error))


def _tell(kind: str, message: str) -> None:  # noqa: ARG001 - the kinds are for JSON
    print_note(f"Warning: {message}")
