"""`patchserve stream`."""

from __future__ import annotations

import contextlib
import itertools
from collections import deque
from collections.abc import Iterator
from pathlib import Path
from threading import Event
from typing import Annotated

import typer

from patchserve_client import Frame, FrameResult, HeatmapScale, OverflowPolicy, OverlayFormat, StreamOptions
from patchserve_client.cli._connection import Settings, connected
from patchserve_client.cli._image_files import images_in
from patchserve_client.cli._overlays import FormatOption, MaxSideOption
from patchserve_client.cli._sources import folder_frames, set_by_ctrl_c
from patchserve_client.cli._stream_report import StreamReport
from patchserve_client.cli._verdict_options import VerdictOptions
from patchserve_client.cli._video import AnnotatedVideo, Video

_DEFAULT_FPS = 10.0  # the frame rate of an annotated video whose source has none

ResumeOption = Annotated[
    float,
    typer.Option(
        min=0, metavar="S", help="Reconnect for up to S seconds if the connection is lost or the server drains."
    ),
]


@connected
def stream(
    settings: Settings,
    source: Annotated[
        str, typer.Argument(metavar="SOURCE", help="A folder, a video file, the index of a camera, or a stream's URL.")
    ],
    *,
    reference: Annotated[str, typer.Option(metavar="ID", help="Reference to compare with.")] = "default",
    fps: Annotated[float | None, typer.Option(min=0.01, metavar="N", help="Largest number of frames a second.")] = None,
    max_in_flight: Annotated[
        int | None, typer.Option(min=1, metavar="N", help="Largest number of frames in progress.")
    ] = None,
    drop_oldest: Annotated[
        bool, typer.Option("--drop-oldest", help="Drop waiting frames for newer ones instead of slowing the source.")
    ] = False,
    resume_for: ResumeOption = 0.0,
    annotated_video: Annotated[
        Path | None, typer.Option(metavar="FILE", dir_okay=False, help="Write a video of overlays and verdicts.")
    ] = None,
    overlay_format: FormatOption = None,
    overlay_max_side: MaxSideOption = None,
    limit: Annotated[int | None, typer.Option(min=1, metavar="N", help="Stop after N frames.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object per line.")] = False,
) -> None:
    """Inspect frames as they arrive, until they end or Ctrl-C. A second Ctrl-C does not wait for results.

    The images of a folder are sorted by name. Cameras, videos and streams require OpenCV: pip install
    "patchserve[video]".

    Exit codes: 0 every frame was inspected (or dropped, with --drop-oldest); 1 a frame or the server failed; 2 wrong
    usage.
    """
    if annotated_video is None and (overlay_format, overlay_max_side) != (None, None):
        raise typer.BadParameter("--overlay-format and --overlay-max-side need --annotated-video.")
    options = StreamOptions(
        overlay=annotated_video is not None,
        # A fixed scale, because relative colors would change from frame to frame.
        heatmap_scale=HeatmapScale.CALIBRATED if annotated_video else None,
        overlay_format=overlay_format or OverlayFormat.PNG,
        overlay_max_side_px=overlay_max_side,
        max_in_flight=max_in_flight,
        overflow=OverflowPolicy.DROP_OLDEST if drop_oldest else OverflowPolicy.BLOCK,
        frame_timeout_s=settings.timeout,
    )
    unreadable: deque[tuple[str, OSError]] = deque()
    report = StreamReport(VerdictOptions(), as_json=as_json)
    with set_by_ctrl_c() as end, settings.client() as client, contextlib.ExitStack() as cleanup:
        frames, source_fps = _frames(source, fps, unreadable, end)
        video = AnnotatedVideo(annotated_video, fps or source_fps or _DEFAULT_FPS) if annotated_video else None
        cleanup.callback(report.end)
        results = client.infer_stream(
            itertools.islice(frames, limit), reference, resume_for_s=resume_for, on_notice=report.notice, **options
        )
        cleanup.enter_context(contextlib.closing(results))
        if video is not None:
            cleanup.callback(video.close)
        _report_results(results, report, unreadable, video)
    if report.counts["error"]:
        raise typer.Exit(1)


def _report_results(
    results: Iterator[FrameResult],
    report: StreamReport,
    unreadable: deque[tuple[str, OSError]],
    video: AnnotatedVideo | None,
) -> None:
    for result in results:
        report.unreadable_files(unreadable)
        report.frame(result)
        if video is not None and result.result is not None:
            video.add(result.result)
    report.unreadable_files(unreadable)


def _frames(
    source: str, fps: float | None, unreadable: deque[tuple[str, OSError]], end: Event
) -> tuple[Iterator[Frame], float | None]:
    """The frames of a source, and the frame rate of the source."""
    path = Path(source)
    if path.is_dir():
        return folder_frames(images_in([path]), fps, unreadable, end), None
    if not (path.is_file() or source.isdigit() or "://" in source):
        raise typer.BadParameter(f"{source} is not a folder, a video file, the index of a camera, or a URL.")
    video = Video(source)
    return video.frames(fps, end), video.fps
