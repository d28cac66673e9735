"""Opens what the command line names: a folder, a video file, a camera or a stream."""

from __future__ import annotations

import contextlib
import glob
import time
from collections.abc import Iterator
from pathlib import Path

import typer

from patchserve_client import Frame
from patchserve_client._image_files import SUFFIXES, frame_id_of
from patchserve_client.cli._camera import Camera
from patchserve_client.cli._image_files import named_images, refuse_written
from patchserve_client.cli._opencv import is_camera
from patchserve_client.cli._paths import path_from
from patchserve_client.cli._recording import RecordedSource, Recording
from patchserve_client.cli._sources import Pace, Source, SourceOptions, Unreadable, shown
from patchserve_client.cli._watching import WatchedFolder


def local_path(source: str) -> Path | None:
    """The path of a source; None: it is a URL, which may be longer than any path."""
    return None if "://" in source else path_from(source)


@contextlib.contextmanager
def opened_source(
    source: str, options: SourceOptions, unreadable: Unreadable, *, watch: bool = False
) -> Iterator[Source]:
    """Yields the source of this name. A camera is closed at the end.

    Raises:
        typer.BadParameter: there is no such source, or it is a folder without images.
        SourceError: it cannot be opened.
    """
    path = local_path(source)
    if watch and not (path and path.is_dir()):
        raise typer.BadParameter(f"--watch needs a folder, not {shown(source)}.")
    if path and path.is_dir():
        refuse_written(path, options.written_folders)
        yield WatchedFolder(path, options, unreadable) if watch else _Images(path, options, unreadable)
        return
    # OpenCV would take an image for the first of numbered ones.
    if path and path.suffix.lower() in SUFFIXES and path.is_file():
        yield _Images(path, options, unreadable)
        return
    with opened_video(source, options) as video:
        yield video


@contextlib.contextmanager
def opened_video(source: str, options: SourceOptions) -> Iterator[Source]:
    """Yields the video file, camera or stream of this name.

    Raises:
        typer.BadParameter: there is no such source.
        SourceError: it cannot be opened.
    """
    path = local_path(source)
    if path and path.is_file():
        yield RecordedSource(Recording(str(path)), options)
        return
    if not is_camera(source):
        hint = " Patterns are for `patchserve infer`." if glob.has_magic(source) else ""
        raise typer.BadParameter(
            f"There is no file or folder {source}. A source is a folder, a video file, the index of a camera, or the "
            f"URL of a stream.{hint}"
        )
    with contextlib.closing(Camera(source, options)) as camera:
        if not camera.is_recording:
            yield camera
            return
    yield RecordedSource(Recording(source), options)


class _Images:
    """The images of a folder, or one image, once."""

    is_live = False
    fps: float | None = None
    left_out_count = 0

    def __init__(self, path: Path, options: SourceOptions, unreadable: Unreadable) -> None:
        self._named = [(file, name.as_posix()) for file, name in named_images([path], options.written_folders).items()]
        self._options, self._unreadable = options, unreadable

    def frames(self) -> Iterator[Frame]:
        """One frame for each file that can be read."""
        pace = Pace(self._options.fps)
        for file, name in self._named:
            if self._options.end.wait(pace.wait_s(time.monotonic())):
                return
            pace.passed(time.monotonic())
            try:
                image = file.read_bytes()
            except OSError as error:
                self._unreadable(name, error)
            else:
                yield Frame(image, frame_id_of(name))
