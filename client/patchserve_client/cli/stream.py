"""`patchserve stream`."""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Iterator
from pathlib import Path

from patchserve_client import OverflowPolicy
from patchserve_client.cli._connection import Settings, connected
from patchserve_client.cli._deliveries import Receivers, takes_receivers
from patchserve_client.cli._frames_in_flight import FramesInFlight
from patchserve_client.cli._inspection_options import InspectionOptions, Records, takes_inspection_options
from patchserve_client.cli._opened_source import local_path, opened_source
from patchserve_client.cli._overlay_files import OverlayFiles
from patchserve_client.cli._sources import SourceOptions, set_by_ctrl_c, shown
from patchserve_client.cli._stream_health import ReferenceFit
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
from patchserve_client.cli._stream_results import StreamResults
from patchserve_client.cli._video import AnnotatedVideo

_DEFAULT_FPS = 10.0  # the frame rate of an annotated video whose source has none
_LIVE_IN_FLIGHT = 4  # enough to keep the server busy; more frames would only wait longer


@connected
@takes_inspection_options
@takes_receivers
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
    receivers: Receivers,
) -> None:
    """Inspect frames as they arrive, until they end or Ctrl-C. A second Ctrl-C does not wait for results.

    The images of a folder and its sub-folders come in natural order: frame 2 before frame 10. A camera
    that is lost is opened again. Videos and cameras require the extra "video", --watch the extra "watch".

    Exit codes: 0 every frame was inspected (or left out or dropped, with --drop-oldest); 1 a frame, the source or the
    server failed; 2 wrong usage; 3 a frame is anomalous (only with --fail-on-anomaly; 1 wins over 3).
    """

    def unreadable(name: str, error: OSError) -> None:
        results.unreadable(name, error)

    report = StreamReport(options.verdicts, options.output)
    with contextlib.ExitStack() as cleanup:
        client = cleanup.enter_context(settings.client())
        request = options.request(client, overlay=annotated_video is not None)
        end = cleanup.enter_context(set_by_ctrl_c())
        reading = SourceOptions(
            end=end,
            tell=report.tell,
            written_folders=options.written_folders,
            fps=fps,
            drops_oldest=drop_oldest is not False,
            frozen_after_s=frozen_after,
            reconnect_for_s=reconnect_for,
        )
        opened = cleanup.enter_context(opened_source(source, reading, unreadable, watch=watch))
        drop_oldest = opened.is_live if drop_oldest is None else drop_oldest
        max_in_flight = max_in_flight or (_LIVE_IN_FLIGHT if opened.is_live else None)
        outputs = _opened_outputs(options, annotated_video, fps or opened.fps or _DEFAULT_FPS)
        records, files, video = cleanup.enter_context(outputs)
        frames = FramesInFlight(
            itertools.islice(opened.frames(), limit),
            max_in_flight if opened.is_live else None,
            end,
            keeps_images=records.saved is not None,
        )
        fit = ReferenceFit(shown(source), is_folder=bool((path := local_path(source)) and path.is_dir()))
        results = StreamResults(opened, fit, frames, report, records, files, video)
        cleanup.callback(results.end)
        results.deliveries = cleanup.enter_context(receivers.opened(shown(source), options.verdicts, report.tell))
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


@contextlib.contextmanager
def _opened_outputs(
    options: InspectionOptions, annotated_video: Path | None, fps: float
) -> Iterator[tuple[Records, OverlayFiles | None, AnnotatedVideo | None]]:
    """Open what the command writes, before the first frame is inspected. None: the option is not used."""
    with contextlib.ExitStack() as cleanup:
        records = cleanup.enter_context(options.opened_records())
        files = video = None
        if options.out is not None:
            files = cleanup.enter_context(OverlayFiles(options.out, options.drawn, options.overlay_style.suffix))
        if annotated_video is not None:
            video = AnnotatedVideo(annotated_video, fps, options.overlay_style.scale, options.verdicts.threshold)
            cleanup.callback(video.close)
        yield records, files, video
