"""The client for synchronous code."""

from __future__ import annotations

import time
from collections.abc import Callable, Generator, Iterable, Iterator
from functools import partial
from types import TracebackType
from typing import Self, TypeVar, Unpack

import grpc

from patchserve.v1 import service_pb2_grpc
from patchserve.v1.reference_pb2 import LoadReferenceStreamResponse
from patchserve.v1.stream_pb2 import InferStreamRequest, InferStreamResponse
from patchserve_client import _calls, _loads, _stream
from patchserve_client._attempts import LoadAttempt
from patchserve_client._base import OpenChannel
from patchserve_client._client_references import ReferenceCalls
from patchserve_client._client_transfer import TransferCalls
from patchserve_client._errors import NotFound, PatchserveError, translate_errors
from patchserve_client._options import InferOptions, LoadOptions, StreamOptions
from patchserve_client._server_types import Health, ServerInfo, ServerStats
from patchserve_client._silence import SilenceLimit
from patchserve_client._types import (
    Frame,
    FrameResult,
    ImageSource,
    InferenceResult,
    ReferenceInfo,
    StreamNotice,
)
from patchserve_client._upload import upload

_T = TypeVar("_T")


class Client(ReferenceCalls, TransferCalls):
    """A connection to a patchserve server. Threads may share it. Close it, or use it in a `with` statement.

    Every call has a deadline: its own `timeout_s`, or the client's. Calls that are safe to repeat are retried up to
    three times while the server is UNAVAILABLE, within the deadline.

    Args:
        server: HOST:PORT; without a port, 50051. Also [IPV6]:PORT, gRPC's dns:///HOST:PORT, or unix:PATH.
        timeout_s: the deadline of a call, in seconds.
        load_timeout_s: the deadline of `load_reference`, `tune_reference` and `restore_reference`, in seconds. They
            return when the reference is ready.
        tls: encryption; None: plain text.
        token: the bearer token, or a function that returns it and is called for every call. Needs `tls`, a server on
            this machine, or `insecure_token`.
        insecure_token: allow sending the token unencrypted to another machine, for example inside a VPN.
        max_message_mib: the largest message to send or receive, in MiB. The server has its own limit (`server_info`).

    Raises:
        ValueError: `server` is not an address, a file of `tls` is damaged, or the token would be sent unencrypted.
        OSError: a file of `tls` cannot be read.
    """

    _grpc = grpc

    def _prepare(self) -> None:
        self._channel = self._open()

    @property
    def _opened(self) -> OpenChannel:
        return self._channel

    @property
    def _stub(self) -> service_pb2_grpc.PatchCoreServiceStub:
        stub: service_pb2_grpc.PatchCoreServiceStub = self._channel.service
        return stub

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the connection. Calls in progress end with Cancelled."""
        self._channel.channel.close()

    def load_reference(
        self,
        images: ImageSource | Iterable[ImageSource],
        reference_id: str = "default",
        *,
        timeout_s: float | None = None,
        **options: Unpack[LoadOptions],
    ) -> ReferenceInfo:
        """Build or extend a reference from images of undamaged items. Returns when the server uses it.

        Images are read one at a time. More than 16 MiB are streamed, so that a large set is never in memory. A streamed
        load is not retried. Nor is an APPEND without `expected_revision`: its images must not be added twice.

        Args:
            images: one image or many, each as for `infer`. A folder stands for the images in it and in its sub-folders.
            reference_id: the name of the reference.
            timeout_s: the deadline, in seconds; None: the client's `load_timeout_s`.
            **options: any of
                mode: REPLACE (default), or APPEND to add to the images of the reference. APPEND keeps the reference's
                    other options; the server rejects different ones.
                profile: NOTEBOOK, PAPER, VERDICT, which gives the best verdicts, or SUBSPACE, for items that are all
                    alike; None: NOTEBOOK.
                coreset_ratio: keep this share of all patches, above 0 and at most 1; None: keep all.
                coreset_max_patches: keep at most this many patches; None: keep all.
                search_radius: for a fixed camera: compare a patch only with patches at most this far away, as a share
                    of the image's side; None: with all.
                region_of_interest: polygons; only pixels inside one of them count. Empty: the whole image.
                approximate_search: for very large banks on a CPU: several times as fast, misses about 3 % of the
                    nearest neighbors.
                input_px: the longer side of model inputs, 224 to 1024; with tile_px up to 32000. "auto": by the size of
                    the first image, 224 to 320. None: the default of the profile; with tile_px the size of that image.
                aspect: SQUEEZE (default): every image becomes a square; KEEP: it has the proportions of the first one.
                tile_px: the backbone sees a model input as tiles of this side, 224 to 1024; None: as a whole.
                tile_overlap: of neighboring tiles, as a share of a tile's side, 0 to 0.5; None: 0.25.
                views: AUTO: mirrored and turned copies of the images, if they are at most 4 and cost no false alarms;
                    ALL: always; NONE. None: the default of the profile.
                scales: 1 to 3: how many sizes of the items the bank has, for items at different distances; None: 1.
                false_alarm_rate: the share of undamaged items that may be called anomalous, 0.001 to 0.5; None: 0.15.
                    The calibration says how sure it is.
                white_level: the value that is white in images with 16 bits per sample, 1 to 65535: 4095 for a camera
                    with 12 bits; None: what the file says.
                sensitivity: that of the reference, as `tune_reference` sets it; None: 1, or with APPEND unchanged.
                bgr: arrays have OpenCV's channels, BGR or BGRA (default False: RGB).
                expected_revision: for APPEND: fail if the reference is at another revision; empty: accept any.

        Raises:
            PatchserveError: the server rejected the load, or the connection failed.
            OSError, TypeError, ValueError: an image or an option is not usable. Nothing was loaded.
        """
        load = _loads.load(images, reference_id, options)
        deadline_s = self._load_deadline_s(timeout_s)
        if isinstance(load, _calls.Call):
            return self._run(load, deadline_s)
        attempt = LoadAttempt(load, self._own, deadline_s)
        while True:
            try:
                response = self._upload_images(attempt)
            except PatchserveError as error:
                time.sleep(attempt.pause_s(error))
            else:
                attempt.learn(response)
                return load.convert(response)

    def _upload_images(self, attempt: LoadAttempt) -> LoadReferenceStreamResponse:
        method, metadata = self._stub.LoadReferenceStream, self._connection.metadata(attempt.reference_id)
        return upload(
            lambda messages: method.future(messages, timeout=attempt.remaining_s, metadata=metadata),
            attempt.messages(),
            self._connection,
        )

    def infer(
        self,
        image: ImageSource,
        reference_id: str = "default",
        *,
        timeout_s: float | None = None,
        **options: Unpack[InferOptions],
    ) -> InferenceResult:
        """Inspect one image.

        Args:
            image: a path, the bytes of a JPEG, PNG, WebP, BMP or TIFF, a Pillow image, or an array of uint8 or uint16:
                (H, W) gray, (H, W, 3) RGB, (H, W, 4) RGBA. OpenCV's arrays are BGR: set `bgr`.
            reference_id: the reference to compare with.
            timeout_s: the deadline, in seconds; None: the client's.
            **options: any of
                overlay: draw the heat map over the image (default False).
                heatmap_scale: the colors, RELATIVE or CALIBRATED; None: the server's setting.
                score_map: return the raw distance of each pixel (default False).
                max_regions: the largest number of regions to list; None: 16.
                sensitivity: the calibrated thresholds are divided by it, 0.1 to 10; None: that of the reference.
                white_level: the value that is white in an image with 16 bits per sample, 1 to 65535: 4095 for a camera
                    with 12 bits; None: that of the reference.
                overlay_format: PNG (default) is lossless, JPEG the fastest, WEBP the smallest.
                bgr: arrays have OpenCV's channels, BGR or BGRA (default False: RGB).
                overlay_max_side_px: scale larger overlays down, 16 to 65535; None: the size of the image.
                image_name: a name for the server's saved outputs; left out: that of a path.
                expected_revision: fail if the reference is at another revision; empty: accept any.

        Raises:
            PatchserveError: the server rejected the image, or the connection failed.
            OSError, TypeError, ValueError: the image or an option is not usable.
        """
        return self._run(_calls.infer(image, reference_id, options), timeout_s)

    def infer_stream(
        self,
        frames: Iterable[Frame | ImageSource],
        reference_id: str = "default",
        *,
        timeout_s: float | None = None,
        resume_for_s: float = 0.0,
        on_notice: Callable[[StreamNotice], None] | None = None,
        **options: Unpack[StreamOptions],
    ) -> Generator[FrameResult]:
        """Inspect frames as they arrive. Yields one FrameResult for each frame, also for a frame that fails.

        Another thread reads `frames`, one frame ahead of the connection. Leaving the loop early cancels the call; the
        thread ends when `frames` returns its next item. An exception of `frames` is raised here, after the results of
        earlier frames. The stream has no deadline; `timeout_s` limits its silence, and `frame_timeout_s` each frame.

        Args:
            frames: images, or `Frame`s with an id and a capture time. A path's id is its name if none is set.
            reference_id: the reference to compare with. The stream keeps the revision that it started with.
            timeout_s: how long nothing may arrive while frames have no result, in seconds; None: the client's.
            resume_for_s: connect again if the connection is lost or the server drains, and send frames without a result
                again. Stop after this many seconds without a result. 0: never connect again, raise Unavailable.
            on_notice: called in this thread for every notice of the server, and when the stream reconnects and resumes.
            **options: the options of `infer`, and any of
                max_in_flight: the largest number of frames in progress; None: the server's default.
                overflow: BLOCK (default) slows `frames` down and loses nothing; DROP_OLDEST is for live cameras.
                ordering: of the results: INPUT (default), or COMPLETION.
                frame_timeout_s: how old a frame may get on the server, in seconds; None: no limit.

        Raises:
            PatchserveError: the stream ended early.
            DeadlineExceeded: nothing arrived for `timeout_s`.
            TypeError, ValueError: an option is not usable.
        """
        state = _calls.stream_state(reference_id, options, resume_for_s, self._own)
        limit = SilenceLimit(state, self._silence_s(timeout_s))
        connect = partial(self._connect_stream, limit)
        return _stream.stream(state, frames, _calls.frame_requests(options), connect, on_notice)

    def _connect_stream(
        self, limit: SilenceLimit, requests: Iterator[InferStreamRequest]
    ) -> Generator[InferStreamResponse]:
        with translate_errors(self._connection):
            call = self._stub.InferStream(requests, metadata=self._connection.metadata(limit.reference_id))
            try:
                with limit.watch(call.cancel):
                    yield from call
            finally:
                call.cancel()

    def server_info(self, *, timeout_s: float | None = None) -> ServerInfo:
        """The server's version, backbone, device and limits."""
        return self._run(_calls.server_info(), timeout_s)

    def server_stats(self, *, timeout_s: float | None = None) -> ServerStats:
        """What the server has counted since its start: take the difference of two results."""
        return self._run(_calls.server_stats(), timeout_s)

    def health(self, *, timeout_s: float | None = None) -> Health:
        """Whether the server is alive, and ready to inspect images (grpc.health.v1).

        Raises:
            Unavailable: no server answers.
        """
        alive = self._run(_calls.health(""), timeout_s)
        try:
            ready = self._run(_calls.health(_calls.READINESS_SERVICE), timeout_s)
        except NotFound:  # the server does not report its readiness yet
            ready = False
        return Health(alive, ready)

    def _run(self, call: _calls.Call[_T], timeout_s: float | None) -> _T:
        attempt = self._attempt(call, timeout_s)
        while True:
            try:
                with translate_errors(self._connection):
                    response = self._start(call.method, attempt)
            except PatchserveError as error:
                time.sleep(attempt.pause_s(error))
            else:
                attempt.learn(response)
                return call.convert(response)
