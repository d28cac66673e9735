"""The client for ordinary code."""

from __future__ import annotations

import concurrent.futures
from collections.abc import Callable, Generator, Iterable, Iterator
from types import TracebackType
from typing import Self, TypeVar

import grpc
from grpc_health.v1 import health_pb2_grpc

from patchserve.v1 import service_pb2_grpc
from patchserve.v1.reference_pb2 import LoadReferenceStreamResponse
from patchserve.v1.stream_pb2 import InferStreamRequest, InferStreamResponse
from patchserve_client import _calls, _connection, _convert, _stream
from patchserve_client._connection import Connection, TlsConfig, TokenSource
from patchserve_client._errors import NotFound, translated
from patchserve_client._resuming import Patience
from patchserve_client._sending import Outbox
from patchserve_client._types import (
    Frame,
    FrameResult,
    Health,
    HeatmapScale,
    ImageSource,
    InferenceResult,
    LoadMode,
    LoadProgress,
    OverflowPolicy,
    OverlayFormat,
    Polygon,
    ReferenceInfo,
    ResultOrdering,
    ScoringProfile,
    ServerInfo,
    StreamNotice,
)

_T = TypeVar("_T")


class Client:
    """A connection to a patchserve server. Safe to share between threads; close it, or use it in a `with` statement.

    Every call has a deadline, `timeout_s` seconds where it names none itself (`load_timeout_s` for a load). Calls that
    are safe to repeat are repeated up to three times while the server is UNAVAILABLE, within that deadline.

    Args:
        server: HOST:PORT.
        timeout_s: the deadline of a call, in seconds.
        load_timeout_s: the deadline of `load_reference`, which answers when the reference is ready, in seconds.
        tls: encryption; None: plain text.
        token: the bearer token, or a function that is called for the present one with every call. Only with `tls`, to
            this machine, or with `insecure_token`.
        insecure_token: send the token unencrypted to another machine; for where something else encrypts the way.
        max_message_mib: the largest message sent or taken, in MiB; the server has its own limit (`server_info`).

    Raises:
        ValueError: `server` is no HOST:PORT, or the token would travel unencrypted.
        OSError: a file of `tls` cannot be read.
    """

    def __init__(
        self,
        server: str = _connection.DEFAULT_SERVER,
        *,
        timeout_s: float = _connection.DEFAULT_TIMEOUT_S,
        load_timeout_s: float = _connection.DEFAULT_LOAD_TIMEOUT_S,
        tls: TlsConfig | None = None,
        token: TokenSource = None,
        insecure_token: bool = False,
        max_message_mib: int = _connection.DEFAULT_MAX_MESSAGE_MIB,
    ) -> None:
        self._connection = Connection(server, timeout_s, load_timeout_s, tls, token, max_message_mib, insecure_token)
        credentials, options = self._connection.credentials(), self._connection.options()
        if credentials is None:
            self._channel = grpc.insecure_channel(server, options)
        else:
            self._channel = grpc.secure_channel(server, credentials, options)
        self._stub = service_pb2_grpc.PatchCoreServiceStub(self._channel)
        self._health_stub = health_pb2_grpc.HealthStub(self._channel)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """Ends the connection; calls under way end with Cancelled."""
        self._channel.close()

    def load_reference(
        self,
        images: ImageSource | Iterable[ImageSource],
        reference_id: str = "default",
        *,
        mode: LoadMode | str = LoadMode.REPLACE,
        profile: ScoringProfile | str | None = None,
        coreset_ratio: float | None = None,
        coreset_max_patches: int | None = None,
        search_radius: float | None = None,
        region_of_interest: Iterable[Polygon] = (),
        approximate_search: bool | None = None,
        expected_revision: str = "",
        timeout_s: float | None = None,
    ) -> ReferenceInfo:
        """Builds (REPLACE) or extends (APPEND) a reference from images of undamaged items; returns when it serves.

        `search_radius`, a share of the image's side, is for a fixed camera: patches are compared only with those that
        lie no farther away. With `region_of_interest` only what lies in one of its polygons counts.
        `approximate_search` makes huge banks faster on a CPU, at the price of one neighbor in twenty at most.

        Images are read one after the other, and beyond 16 MiB in all they are streamed, so that a large set never
        lies in memory. A streamed load is not repeated when the server is UNAVAILABLE, nor is an APPEND without
        `expected_revision`, which must not happen twice.

        Raises:
            PatchserveError: what the server says.
            OSError, TypeError, ValueError: an image or an option is not usable; nothing was loaded.
        """
        load = _calls.prepare_load(
            images,
            reference_id=reference_id,
            mode=mode,
            profile=profile,
            coreset_ratio=coreset_ratio,
            coreset_max_patches=coreset_max_patches,
            search_radius=search_radius,
            region_of_interest=region_of_interest,
            approximate_search=approximate_search,
            expected_revision=expected_revision,
        )
        deadline_s = self._connection.load_timeout_s if timeout_s is None else timeout_s
        if isinstance(load, _calls.Call):
            return self._run(load, deadline_s)
        return self._load_streamed(load, deadline_s)

    def _load_streamed(self, load: _calls.StreamedLoad, deadline_s: float) -> ReferenceInfo:
        opened: concurrent.futures.Future[grpc.Future[LoadReferenceStreamResponse]] = concurrent.futures.Future()
        # Half of the images must not become the reference: an image that cannot be read cancels the call.
        outbox = Outbox(load.messages, on_error=lambda: opened.result().cancel())
        with outbox.error_first(), translated(self._connection.server):
            call = self._stub.LoadReferenceStream.future(
                iter(outbox), timeout=deadline_s, metadata=self._connection.metadata()
            )
            opened.set_result(call)
            try:
                return load.convert(call.result())
            finally:
                call.cancel()  # where the caller was interrupted

    def infer(
        self,
        image: ImageSource,
        reference_id: str = "default",
        *,
        overlay: bool = False,
        heatmap_scale: HeatmapScale | str | None = None,
        score_map: bool = False,
        max_regions: int | None = None,
        sensitivity: float | None = None,
        overlay_format: OverlayFormat | str = OverlayFormat.PNG,
        overlay_max_side_px: int | None = None,
        expected_revision: str = "",
        timeout_s: float | None = None,
    ) -> InferenceResult:
        """Inspects one image.

        Args:
            image: a path, the bytes of a JPEG, PNG, WebP, BMP or TIFF, a Pillow image, or an array: (H, W) uint8 or
                uint16 gray, (H, W, 3) RGB uint8, (H, W, 4) RGBA uint8. OpenCV's arrays are BGR: turn them first.
            reference_id: what to compare with.
            overlay: whether to draw the heat map over the image.
            heatmap_scale: its colors; None: the server's setting.
            score_map: whether to send the raw distances.
            max_regions: the most regions to list; None: 16.
            sensitivity: thresholds are divided by it, 0.1 to 10; None: 1, as calibrated.
            overlay_format: PNG is lossless, JPEG the fastest, WEBP the smallest.
            overlay_max_side_px: scale what is larger down, 16 to 65535; None: the image's own size.
            expected_revision: refuse another revision of the reference; empty: the present one.
            timeout_s: the deadline, in seconds; None: the client's.

        Raises:
            PatchserveError: what the server says.
            OSError, TypeError, ValueError: the image or an option is not usable.
        """
        call = _calls.infer(
            image,
            reference_id=reference_id,
            overlay=overlay,
            heatmap_scale=heatmap_scale,
            score_map=score_map,
            max_regions=max_regions,
            sensitivity=sensitivity,
            overlay_format=overlay_format,
            overlay_max_side_px=overlay_max_side_px,
            expected_revision=expected_revision,
        )
        return self._run(call, timeout_s)

    def infer_stream(
        self,
        frames: Iterable[Frame | ImageSource],
        reference_id: str = "default",
        *,
        overlay: bool = False,
        heatmap_scale: HeatmapScale | str | None = None,
        score_map: bool = False,
        max_regions: int | None = None,
        sensitivity: float | None = None,
        overlay_format: OverlayFormat | str = OverlayFormat.PNG,
        overlay_max_side_px: int | None = None,
        max_in_flight: int | None = None,
        overflow: OverflowPolicy | str = OverflowPolicy.BLOCK,
        ordering: ResultOrdering | str = ResultOrdering.INPUT,
        frame_timeout_s: float | None = None,
        expected_revision: str = "",
        resume_for_s: float = 0.0,
        on_notice: Callable[[StreamNotice], None] | None = None,
    ) -> Generator[FrameResult]:
        """Inspects frames as they come; yields one FrameResult for each, failed ones too.

        `frames` is read in another thread, one frame ahead of what the connection takes. Leaving the loop early cancels
        the call; that thread ends when `frames` gives its next item. What `frames` raises is raised here, after the
        results of the frames before it. There is no deadline on the whole; `frame_timeout_s` bounds each frame.

        Args:
            frames: images, or `Frame`s that carry an id and a capture time.
            reference_id: what to compare with; the stream keeps the revision that it opened with.
            overlay: whether to draw the heat map over each image.
            heatmap_scale: its colors; None: the server's setting.
            score_map: whether to send the raw distances.
            max_regions: the most regions to list; None: 16.
            sensitivity: thresholds are divided by it, 0.1 to 10; None: 1, as calibrated.
            overlay_format: PNG is lossless, JPEG the fastest, WEBP the smallest.
            overlay_max_side_px: scale what is larger down, 16 to 65535; None: the image's own size.
            max_in_flight: the most frames under way at once; None: the server's default.
            overflow: BLOCK holds `frames` back and loses nothing; DROP_OLDEST is for live cameras.
            ordering: of the results.
            frame_timeout_s: how old a frame may get on the server, in seconds; None: no limit.
            expected_revision: refuse another revision of the reference; empty: the present one.
            resume_for_s: connect again when the connection or the server is lost or drains, for so many seconds without
                a result; frames that have none yet are sent again. 0: the stream ends with Unavailable.
            on_notice: called from this thread for what is no result.

        Raises:
            PatchserveError: the stream as a whole ended before its time.
        """
        config = _convert.stream_config(
            reference_id=reference_id,
            output=_convert.output_options(
                overlay=overlay,
                heatmap_scale=heatmap_scale,
                score_map=score_map,
                max_regions=max_regions,
                sensitivity=sensitivity,
                overlay_format=overlay_format,
                overlay_max_side_px=overlay_max_side_px,
            ),
            max_in_flight=max_in_flight,
            overflow=overflow,
            ordering=ordering,
            frame_timeout_s=frame_timeout_s,
            expected_revision=expected_revision,
        )
        return _stream.stream(config, frames, self._connect_stream, on_notice, Patience(resume_for_s))

    def _connect_stream(self, requests: Iterator[InferStreamRequest]) -> Generator[InferStreamResponse]:
        with translated(self._connection.server):
            call = self._stub.InferStream(requests, metadata=self._connection.metadata())
            try:
                yield from call
            finally:
                call.cancel()

    def get_reference(self, reference_id: str = "default", *, timeout_s: float | None = None) -> ReferenceInfo:
        """One reference.

        Raises:
            NotFound: it is not loaded.
        """
        return self._run(_calls.get_reference(reference_id), timeout_s)

    def list_references(self, *, timeout_s: float | None = None) -> Iterator[ReferenceInfo]:
        """All references in the order of their ids, fetched a page at a time."""
        page_token = ""
        while True:
            page, page_token = self._run(_calls.list_references(page_token), timeout_s)
            yield from page
            if not page_token:
                return

    def list_loads(self, reference_id: str = "", *, timeout_s: float | None = None) -> list[LoadProgress]:
        """How far the loads of this reference are, or all loads where it is empty; the oldest first.

        Callers of `load_reference` may ask from another thread. Of a load that has ended nothing is told.
        """
        return self._run(_calls.list_loads(reference_id), timeout_s)

    def delete_reference(
        self, reference_id: str, *, expected_revision: str = "", timeout_s: float | None = None
    ) -> str:
        """Removes a reference and returns its last revision. Streams that use it are closed with NotFound.

        Raises:
            NotFound: it is not loaded.
            FailedPrecondition: it is not at `expected_revision`.
        """
        return self._run(_calls.delete_reference(reference_id, expected_revision), timeout_s)

    def server_info(self, *, timeout_s: float | None = None) -> ServerInfo:
        """What the server is, with every limit."""
        return self._run(_calls.server_info(), timeout_s)

    def health(self, *, timeout_s: float | None = None) -> Health:
        """Whether the server runs and is ready to inspect (grpc.health.v1).

        Raises:
            Unavailable: no server answers.
        """
        alive = self._run(_calls.health(""), timeout_s)
        try:
            ready = self._run(_calls.health(_calls.READINESS_SERVICE), timeout_s)
        except NotFound:  # a server that does not know the service yet
            ready = False
        return Health(alive, ready)

    def _run(self, call: _calls.Call[_T], timeout_s: float | None) -> _T:
        stub = self._health_stub if call.method == "Check" else self._stub
        deadline_s = self._connection.timeout_s if timeout_s is None else timeout_s
        with translated(self._connection.server):
            answer = getattr(stub, call.method)(call.request, timeout=deadline_s, metadata=self._connection.metadata())
        return call.convert(answer)
