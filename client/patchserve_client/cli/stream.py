"""`patchserve stream`."""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from patchserve_client import FrameResult, OverflowPolicy
from patchserve_client.cli._connection import Settings, connected
from patchserve_client.cli._frames_in_flight import FramesInFlight
from patchserve_client.cli._inspection_options import InspectionOptions, Records, takes_inspection_options
from patchserve_client.cli._opened_source import opened_source
from patchserve_client.cli._overlay_files import OverlayFiles
from patchserve_client.cli._sources import Source, SourceOptions, set_by_ctrl_c, shown
from patchserve_client.cli._stream_health import Lag, ReferenceFit, fit_warning
from patchserve_client.cli._stream_options import (
    DropOldestOption,
    FpsOption,
    FrozenOption,
    LimitOption,
    MaxInFlightOption,
    ReconnectOption,
    ResumeOption,
    SourceArgument,
    VideoOption,
    WatchOption,
)
from patchserve_client.cli._stream_report import StreamReport
from patchserve_client.cli._video import AnnotatedVideo

_DEFAULT_FPS = 10.0  # the frame rate of an annotated video whose source has none
_LIVE_IN_FLIGHT = 4  # enough to keep the server busy; more frames would only wait longer


@connected
@takes_inspection_options
def stream(
    settings: Settings,
    source: SourceArgument,
    *,
    options: InspectionOptions,
    fps: FpsOption = None,
    limit: LimitOption = None,
    watch: WatchOption = False,
    drop_oldest: DropOldestOption = None,
    max_in_flight: MaxInFlightOption = None,
    frozen_after: FrozenOption = 10.0,
    reconnect_for: ReconnectOption = 300.0,
    resume_for: ResumeOption = 0.0,
    annotated_video: VideoOption = None,
) -> None:
    """Inspect frames as they arrive, until they end or Ctrl-C. A second Ctrl-C does not wait for results.

    The images of a folder are sorted by name. Cameras, videos and streams require OpenCV: pip install
    "patchserve[video]". --watch requires pip install "patchserve[watch]". A camera that is lost is opened again.

    Exit codes: 0 every frame was inspected (or left out or dropped, with --drop-oldest); 1 a frame, the source or the
    server failed; 2 wrong usage; 3 a frame is anomalous (only with --fail-on-anomaly; 1 wins over 3).
    """
    request = options.request(overlay=annotated_video is not None)
    report = StreamReport(options.verdicts, as_json=options.as_json)
    with contextlib.ExitStack() as cleanup:
        end = cleanup.enter_context(set_by_ctrl_c())
        reading = SourceOptions(
            end=end,
            tell=report.tell,
            fps=fps,
            drops_oldest=drop_oldest is not False,
            frozen_after_s=frozen_after,
            reconnect_for_s=reconnect_for,
        )
        opened = cleanup.enter_context(opened_source(source, reading, report.unreadable, watch=watch))
        drop_oldest = opened.is_live if drop_oldest is None else drop_oldest
        max_in_flight = max_in_flight or (_LIVE_IN_FLIGHT if opened.is_live else None)
        records = cleanup.enter_context(options.opened_records())
        client = cleanup.enter_context(settings.client())
        files = None
        if options.out is not None:
            files = cleanup.enter_context(OverlayFiles(options.out, options.drawn, options.overlay_style.suffix))
        video = None
        if annotated_video is not None:
            scale, threshold = options.overlay_style.scale, options.verdicts.threshold
            video = AnnotatedVideo(annotated_video, fps or opened.fps or _DEFAULT_FPS, scale, threshold)
            cleanup.callback(video.close)
        frames = FramesInFlight(
            itertools.islice(opened.frames(), limit),
            max_in_flight if opened.is_live else None,
            end,
            keeps_images=records.saved is not None,
        )
        results = _Results(source, opened, frames, report, records, files, video)
        cleanup.callback(results.end)
        answers = client.infer_stream(
            frames,
            options.reference,
            resume_for_s=resume_for,
            on_notice=report.notice,
            max_in_flight=max_in_flight,
            overflow=OverflowPolicy.DROP_OLDEST if drop_oldest else OverflowPolicy.BLOCK,
            frame_timeout_s=settings.timeout,
            **request,
        )
        results.add_all(cleanup.enter_context(contextlib.closing(answers)))
    options.exit_with(report.counts)


@dataclass(slots=True)
class _Results:
    """Takes the results of a stream to everything that wants them."""

    name: str
    source: Source
    frames: FramesInFlight
    report: StreamReport
    records: Records
    files: OverlayFiles | None
    video: AnnotatedVideo | None
    lag: Lag = field(default_factory=Lag)
    fit: ReferenceFit = field(default_factory=ReferenceFit)

    def add_all(self, answers: Iterator[FrameResult]) -> None:
        """Print, write and draw the results as they arrive."""
        for frame in answers:
            image = self.frames.answered(frame.sequence)
            self.report.frame(frame)
            self._record(frame, image)
            self._look_at(frame)
        if self.fit.end():
            self._warn_of_reference()

    def end(self) -> None:
        """Print the summary."""
        self.report.end(self.source.skipped_count, self.lag.longest_s)

    def _record(self, frame: FrameResult, image: bytes | None) -> None:
        outcome = frame.result or frame.error
        if outcome is None:
            return
        if self.records.results is not None:
            self.records.results.add(frame.frame_id, outcome, frame.sequence, frame.capture_time)
        if self.records.saved is not None and image is not None:
            self.records.saved.add(frame.frame_id, image, outcome, frame.sequence, frame.capture_time)
        if self.files is not None:
            self.files.write(frame)
        if self.video is not None and frame.result is not None:
            self.video.add(frame.result)

    def _look_at(self, frame: FrameResult) -> None:
        if self.source.is_live and frame.capture_time is not None:
            told = self.lag.result(frame.capture_time, self.source.skipped_count)
            if told is not None:
                self.report.tell("falling_behind", told)
        if frame.result is not None and self.fit.result(frame.result.anomaly.ratio):
            self._warn_of_reference()

    def _warn_of_reference(self) -> None:
        warning = fit_warning(shown(self.name), is_folder=Path(self.name).is_dir())
        self.report.tell("reference", warning)
