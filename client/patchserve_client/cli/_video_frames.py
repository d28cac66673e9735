"""Videos as sources of reference images: some of their frames as files."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Annotated

import typer

from patchserve_client.cli._durations import INTERVAL
from patchserve_client.cli._even_choice import EvenChoice
from patchserve_client.cli._output import print_note, progress
from patchserve_client.cli._recording import RecordedFrame, Recording
from patchserve_client.cli._sources import Pace, SourceError

_DEFAULT_COUNT = 30
_VIDEO_SUFFIXES = (".avi", ".m4v", ".mkv", ".mov", ".mp4", ".mpeg", ".mpg", ".ts", ".webm", ".wmv")

CountOption = Annotated[
    int | None,
    typer.Option(
        "--count",
        min=1,
        metavar="N",
        show_default=str(_DEFAULT_COUNT),
        help="Number of frames of a video, chosen evenly.",
    ),
]
EveryOption = Annotated[
    float | None,
    typer.Option("--every", **INTERVAL, help="Instead of --count: a frame for each so much of a video."),
]


@contextlib.contextmanager
def frames_as_files(paths: list[Path], count: int | None, every_s: float | None) -> Iterator[list[Path]]:
    """Yields the paths, each video replaced by files of its frames. The files are deleted at the end.

    Raises:
        typer.BadParameter: the options exclude each other, or there is no video for them.
        SourceError: a video cannot be read.
    """
    if count is not None and every_s is not None:
        raise typer.BadParameter("--count and --every exclude each other.")
    if (count, every_s) != (None, None) and not any(map(is_video, paths)):
        raise typer.BadParameter(f"--count and --every are for videos ({' '.join(_VIDEO_SUFFIXES)}); there is none.")
    with contextlib.ExitStack() as folders:
        files: list[Path] = []
        for path in paths:
            if is_video(path):
                folder = Path(folders.enter_context(tempfile.TemporaryDirectory(prefix="patchserve-")))
                files += _frames_of(path, folder, count or _DEFAULT_COUNT, every_s)
            else:
                files.append(path)
        yield files


def is_video(path: Path) -> bool:
    """Whether it is a file with the suffix of a video."""
    return path.suffix.lower() in _VIDEO_SUFFIXES and path.is_file()


def _frames_of(video: Path, folder: Path, count: int, every_s: float | None) -> list[Path]:
    """Write frames of a video into the folder: one for each `every_s` seconds, or `count` chosen evenly."""
    recording, read_count = Recording(str(video)), 0
    with progress(f"Reading {video.name}", recording.frame_count or None) as step:

        def frames() -> Iterator[RecordedFrame]:
            nonlocal read_count
            try:
                for frame in recording.recorded():
                    read_count += 1
                    step()
                    yield frame
            except SourceError as error:  # the frames that there are can be used
                print_note(f"Warning: {error} The frames before that are used.")

        files = _even(frames(), count, video, folder) if every_s is None else _regular(frames(), every_s, video, folder)
    print_note(f"{video}: {len(files)} of {read_count} frames")
    return files


def _even(frames: Iterable[RecordedFrame], count: int, video: Path, folder: Path) -> list[Path]:
    choice = EvenChoice[Path](count)
    for frame in frames:
        if choice.wants(frame.number) and (file := _written(frame, video, folder)):
            for unneeded in choice.add(file):
                unneeded.unlink()
    return choice.chosen()


def _regular(frames: Iterable[RecordedFrame], every_s: float, video: Path, folder: Path) -> list[Path]:
    pace, files = Pace(1 / every_s), []
    for frame in frames:
        if not pace.wait_s(frame.position_s) and (file := _written(frame, video, folder)):
            pace.passed(frame.position_s)
            files.append(file)
    return files


def _written(frame: RecordedFrame, video: Path, folder: Path) -> Path | None:
    """The file of a frame; None: the frame is damaged."""
    image = frame.image()
    if image is None:
        return None
    file = folder / f"{video.stem}_{frame.number:06d}.jpg"
    file.write_bytes(image)
    return file
