"""`patchserve stream`."""

from __future__ import annotations

import contextlib
import itertools
import time
from collections import deque
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from threading import Event
from typing import Annotated, Any

import typer

from patchserve_client import (
    Frame,
    FrameResult,
    HeatmapScale,
    OverflowPolicy,
    OverlayFormat,
    StreamNotice,
)
from patchserve_client.cli import _report
from patchserve_client.cli._connection import Settings, connected
from patchserve_client.cli._image_files import images_in
from patchserve_client.cli._output import Column, Table, say, say_json
from patchserve_client.cli._overlays import FormatOption, MaxSideOption
from patchserve_client.cli._sources import folder_frames, set_by_ctrl_c
from patchserve_client.cli._video import AnnotatedVideo, Video

_DEFAULT_FPS = 10.0  # of an annotated video whose source has none


@connected
def stream(
    settings: Settings,
    source: Annotated[
        str, typer.Argument(metavar="SOURCE", help="A folder, a video file, a camera's index or a stream's URL.")
    ],
    *,
    reference: Annotated[str, typer.Option(metavar="ID", help="What to compare with.")] = "default",
    fps: Annotated[
        float | None, typer.Option(min=0.01, metavar="N", help="Take at most so many frames a second.")
    ] = None,
    max_in_flight: Annotated[
        int | None, typer.Option(min=1, metavar="N", help="At most so many frames under way at once.")
    ] = None,
    drop_oldest: Annotated[
        bool, typer.Option("--drop-oldest", help="Drop waiting frames for newer ones instead of holding back.")
    ] = False,
    resume_for: Annotated[
        float,
        typer.Option(min=0, metavar="S", help="Connect again for so many seconds when the server is lost or drains."),
    ] = 0.0,
    annotated_video: Annotated[
        Path | None, typer.Option(metavar="FILE", dir_okay=False, help="Write overlays and verdicts as a video.")
    ] = None,
    overlay_format: FormatOption = None,
    overlay_max_side: MaxSideOption = None,
    limit: Annotated[int | None, typer.Option(min=1, metavar="N", help="End after so many frames.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object a line.")] = False,
) -> None:
    """Inspect frames as they come, until they end or Ctrl-C; the second Ctrl-C does not wait for answers.

    A folder's images are taken by name. Cameras, videos and streams need OpenCV: pip install "patchserve[video]".

    Exit codes: 0 every frame was inspected (or dropped, with --drop-oldest); 1 one failed, or the server did; 2 wrong
    usage.
    """
    if annotated_video is None and (overlay_format, overlay_max_side) != (None, None):
        raise typer.BadParameter("--overlay-format and --overlay-max-side are about the frames of --annotated-video.")
    unreadable: deque[tuple[str, OSError]] = deque()
    report = _Report(as_json=as_json)
    with set_by_ctrl_c() as end, settings.client() as client, contextlib.ExitStack() as cleanup:
        frames, source_fps = _frames(source, fps, unreadable, end)
        video = AnnotatedVideo(annotated_video, fps or source_fps or _DEFAULT_FPS) if annotated_video else None
        cleanup.callback(report.end)
        results = cleanup.enter_context(
            contextlib.closing(
                client.infer_stream(
                    itertools.islice(frames, limit),
                    reference,
                    overlay=video is not None,
                    # A fixed scale: stretched to each frame's own range, colors would flicker.
                    heatmap_scale=HeatmapScale.CALIBRATED if video else None,
                    overlay_format=overlay_format or OverlayFormat.PNG,
                    overlay_max_side_px=overlay_max_side,
                    max_in_flight=max_in_flight,
                    overflow=OverflowPolicy.DROP_OLDEST if drop_oldest else OverflowPolicy.BLOCK,
                    frame_timeout_s=settings.timeout,
                    resume_for_s=resume_for,
                    on_notice=report.notice,
                )
            )
        )
        if video is not None:
            cleanup.callback(video.close)
        for result in results:
            report.left_out(unreadable)
            report.frame(result)
            if video is not None and result.result is not None:
                video.add(result.result)
        report.left_out(unreadable)
    if report.counts["error"]:
        raise typer.Exit(1)


def _frames(
    source: str, fps: float | None, unreadable: deque[tuple[str, OSError]], end: Event
) -> tuple[Iterator[Frame], float | None]:
    """The frames, and how many a second the source itself has."""
    path = Path(source)
    if path.is_dir():
        return folder_frames(images_in([path]), fps, unreadable, end), None
    if not (path.is_file() or source.isdigit() or "://" in source):
        raise typer.BadParameter(f"{source} is no folder, no video file, no camera's index and no URL.")
    video = Video(source)
    return video.frames(fps, end), video.fps


class _Report:
    """Lines as frames come, and a summary."""

    def __init__(self, *, as_json: bool) -> None:
        self.counts = {"intact": 0, "anomalous": 0, "error": 0, "dropped": 0}
        self._as_json = as_json
        self._started_s = time.monotonic()
        self._table = Table((Column("#", 6, right=True), Column("frame", 24), *_report.RESULT_COLUMNS))

    def frame(self, frame: FrameResult) -> None:
        outcome = frame.result or frame.error
        if outcome is not None:
            self._line(frame.frame_id, outcome, frame.sequence, frame.capture_time)

    def left_out(self, unreadable: deque[tuple[str, OSError]]) -> None:
        """Frames that were never sent."""
        while unreadable:
            self._line(*unreadable.popleft())

    def _line(
        self, name: str, outcome: _report.Outcome, sequence: int | None = None, capture_time: datetime | None = None
    ) -> None:
        verdict = _report.verdict_of(outcome)
        self.counts[verdict] += 1
        if self._as_json:
            event = {
                "event": "frame",
                "sequence": sequence,
                "frame_id": name,
                "capture_time": capture_time,
                **_report.as_json(outcome, verdict),
            }
            say_json(event, indent=None)
            return
        place = "-" if sequence is None else str(sequence)
        self._table.row([place, name, *_report.cells(outcome, verdict)], {2: _report.COLORS[verdict]})

    def notice(self, notice: StreamNotice) -> None:
        if self._as_json:
            say_json({"event": "notice", "kind": notice.kind, "message": notice.message}, indent=None)
        else:
            typer.echo(f"Notice: {notice.message}", err=True)

    def end(self) -> None:
        total, elapsed_s = sum(self.counts.values()), time.monotonic() - self._started_s
        if self._as_json:
            summary: dict[str, Any] = {"event": "summary", "frames": total, **self.counts, "elapsed_s": elapsed_s}
            say_json(summary, indent=None)
            return
        noun, rate = "frame" if total == 1 else "frames", total / elapsed_s
        verdicts = "{intact} intact, {anomalous} anomalous, {error} failed, {dropped} dropped".format(**self.counts)
        say(f"{total} {noun} in {elapsed_s:.1f} s ({rate:.1f}/s): {verdicts}")
