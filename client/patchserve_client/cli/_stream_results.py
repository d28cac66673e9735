"""What becomes of the results of a stream."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

from patchserve_client import FrameResult
from patchserve_client.cli._deliveries import Deliveries
from patchserve_client.cli._frames_in_flight import FramesInFlight
from patchserve_client.cli._inspection_options import Records
from patchserve_client.cli._overlay_files import OverlayFiles
from patchserve_client.cli._sources import Source
from patchserve_client.cli._stream_health import Lag, ReferenceFit
from patchserve_client.cli._stream_report import StreamReport
from patchserve_client.cli._video import AnnotatedVideo


@dataclass(slots=True)
class StreamResults:
    """Prints, writes and draws the results of a stream, and looks at them."""

    source: Source
    fit: ReferenceFit
    frames: FramesInFlight
    report: StreamReport
    records: Records
    files: OverlayFiles | None
    video: AnnotatedVideo | None
    deliveries: Deliveries | None = None
    lag: Lag = field(default_factory=Lag)

    def add_all(self, answers: Iterator[FrameResult]) -> None:
        """Print, write and draw the results as they arrive."""
        for frame in answers:
            image = self.frames.answered(frame.sequence)
            self.report.frame(frame)
            self._record(frame, image)
            self._look_at(frame)
        self._tell("reference", self.fit.end())

    def unreadable(self, name: str, error: OSError) -> None:
        """Print and write a file that was not sent. The thread of the source calls this."""
        self.report.unreadable(name, error)
        if self.records.results is not None:
            self.records.results.add(name, error)
        if self.deliveries is not None:
            self.deliveries.add(name, error)

    def end(self) -> None:
        """Print the summary."""
        self.report.end(self.source.left_out_count, self.lag.longest_s)

    def _record(self, frame: FrameResult, image: bytes | None) -> None:
        outcome = frame.result or frame.error
        if outcome is None:
            return
        if self.deliveries is not None:  # first: whoever acts on it should not wait for a disk
            self.deliveries.frame(frame)
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
            self._tell("falling_behind", self.lag.result(frame.capture_time, self.source.left_out_count))
        if frame.result is not None:
            self._tell("reference", self.fit.result(frame.result.anomaly.ratio, frame.capture_time))

    def _tell(self, kind: str, message: str | None) -> None:
        if message is not None:
            self.report.tell(kind, message)
