"""A live source: a camera or a stream, opened again when it is lost."""

from __future__ import annotations

import time
from collections.abc import Iterator

from patchserve_client import Frame
from patchserve_client.cli._camera_connection import CameraConnection, CapturedFrame
from patchserve_client.cli._opencv import jpeg
from patchserve_client.cli._reconnecting import Reconnecting
from patchserve_client.cli._sources import SourceError, SourceOptions, shown

_POLL_INTERVAL_S = 0.1  # how soon Ctrl-C is noticed
_CLOSE_TIMEOUT_S = 1.0


class Camera:
    """Opens the camera once; if that fails there is nothing to wait for.

    Raises:
        SourceError: it cannot be opened.
    """

    is_live = True

    def __init__(self, address: str, options: SourceOptions) -> None:
        self._address, self._options = address, options
        self._is_closed = False
        self._earlier_left_out_count = 0
        self._connection = self._connect(first_number=0)
        if not self._is_open():
            self.close()
            if not options.end.is_set():
                raise SourceError(f"OpenCV cannot open {shown(address)} as a camera or a stream.")
        self.fps = self._connection.fps
        self.is_recording = self._connection.frame_count > 0

    @property
    def left_out_count(self) -> int:
        """How many frames were left out for newer ones."""
        return self._earlier_left_out_count + self._connection.left_out_count

    def close(self) -> None:
        """Close the connection. The frames end."""
        self._is_closed = True
        self._connection.close(_CLOSE_TIMEOUT_S)

    def frames(self) -> Iterator[Frame]:
        """The frames as they arrive. A pause longer than `frozen_after_s`, and the end of the connection, is a loss.

        Raises:
            SourceError: the camera was lost, and did not come back in time.
        """
        reconnecting = Reconnecting(self._options.reconnect_for_s)
        still = _StillImage(self._options.frozen_after_s)
        while not (self._options.end.is_set() or self._is_closed):
            frame = self._connection.take(_POLL_INTERVAL_S)
            if frame is not None:
                if lost_for_s := reconnecting.lost_for_s:
                    self._tell("reconnected", f"is back after {lost_for_s:.1f} s.")
                reconnecting.frame_came()
                if still.became_frozen(frame):
                    self._tell("still", f"has sent the same image for {still.for_s:.0f} s. It may be frozen.")
                yield Frame(jpeg(frame.pixels), str(frame.number), frame.capture_time)
            elif (cause := self._cause_of_loss()) is not None:
                self._reconnect(cause, reconnecting)

    def _cause_of_loss(self) -> str | None:
        connection = self._connection
        if connection.has_ended:
            return "closed the connection" if connection.is_open else "cannot be opened"
        if time.monotonic() - connection.heard_at_s > self._options.frozen_after_s:
            return f"has sent no frame for {self._options.frozen_after_s:g} s"
        return None

    def _reconnect(self, cause: str, reconnecting: Reconnecting) -> None:
        is_first_attempt = not reconnecting.lost_for_s
        delay_s = reconnecting.lose()
        if delay_s is None:
            tried = f" and did not come back for {self._options.reconnect_for_s:g} s" * (not is_first_attempt)
            raise SourceError(f"The camera {shown(self._address)} {cause}{tried}.")
        if is_first_attempt:
            self._tell("reconnecting", f"{cause}. Reconnecting for up to {self._options.reconnect_for_s:g} s.")
        self._connection.close(_CLOSE_TIMEOUT_S)
        if self._options.end.wait(delay_s) or self._is_closed:
            return
        self._earlier_left_out_count += self._connection.left_out_count
        self._connection = self._connect(self._connection.next_number)

    def _connect(self, first_number: int) -> CameraConnection:
        options = self._options
        return CameraConnection(
            self._address,
            options.frozen_after_s,
            options.fps,
            drops_oldest=options.drops_oldest,
            first_number=first_number,
        )

    def _is_open(self) -> bool:
        deadline_s = time.monotonic() + self._options.frozen_after_s
        while not self._options.end.is_set() and time.monotonic() < deadline_s:
            if self._connection.wait_until_open(_POLL_INTERVAL_S):
                break
        return self._connection.is_open

    def _tell(self, kind: str, what: str) -> None:
        self._options.tell(kind, f"The camera {shown(self._address)} {what}")


class _StillImage:
    """Notices a camera that sends the same image again and again. A sensor always has some noise."""

    def __init__(self, limit_s: float) -> None:
        self._limit_s = limit_s
        self._last: CapturedFrame | None = None  # the first frame with this image
        self._is_told = False
        self.for_s = 0.0

    def became_frozen(self, frame: CapturedFrame) -> bool:
        """Whether the image has just been the same for too long. True once, until it changes."""
        import numpy as np  # noqa: PLC0415 - loaded on first use

        if self._last is None or not np.array_equal(frame.pixels, self._last.pixels):
            self._last, self._is_told = frame, False
            return False
        self.for_s = (frame.capture_time - self._last.capture_time).total_seconds()
        was_told, self._is_told = self._is_told, self._is_told or self.for_s >= self._limit_s
        return self._is_told and not was_told
