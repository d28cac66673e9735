"""A patchserve server with a script instead of an engine: red images are anomalous, all others intact."""

from __future__ import annotations

import asyncio
import hashlib
import io
import threading
import time
from collections import defaultdict, deque
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, NoReturn, TypeAlias

import grpc
import numpy as np
from google.protobuf.any_pb2 import Any as AnyMessage
from google.protobuf.message import Message
from google.rpc import error_details_pb2, status_pb2
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from PIL import Image

from patchserve.v1 import inference_pb2, reference_pb2, server_info_pb2, service_pb2_grpc, stream_pb2

SERVICE = "patchserve.v1.PatchCoreService"
SERVING = health_pb2.HealthCheckResponse.SERVING
NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING
Context: TypeAlias = "grpc.aio.ServicerContext[Any, Any]"


def png(color: str = "green", size: tuple[int, int] = (32, 24)) -> bytes:
    """An encoded image of one color."""
    buffer = io.BytesIO()
    Image.new("RGB", size, color).save(buffer, "PNG")
    return buffer.getvalue()


@dataclass(frozen=True)
class Fault:
    """An error with google.rpc details, as the real server sends it; without a reason, as a lost connection."""

    code: grpc.StatusCode
    message: str
    reason: str = ""
    details: Sequence[Message] = ()

    def status(self) -> status_pb2.Status:
        info = error_details_pb2.ErrorInfo(reason=self.reason, domain="patchserve.v1")
        status = status_pb2.Status(code=self.code.value[0], message=self.message)
        for detail in (info, *self.details):
            packed = AnyMessage()
            packed.Pack(detail)
            status.details.append(packed)
        return status

    async def raised(self, context: Context) -> NoReturn:
        if self.reason:
            trailing = (("grpc-status-details-bin", self.status().SerializeToString()),)
            await context.abort(self.code, self.message, trailing)
        await context.abort(self.code, self.message)


def bad_image(what: str = "image") -> Fault:
    violation = error_details_pb2.BadRequest.FieldViolation(field=what, description="Not an image.")
    details = [error_details_pb2.BadRequest(field_violations=[violation])]
    return Fault(grpc.StatusCode.INVALID_ARGUMENT, "The bytes are no image.", "UNDECODABLE_IMAGE", details)


def not_found(reference_id: str) -> Fault:
    details = [error_details_pb2.ResourceInfo(resource_type="Reference", resource_name=reference_id)]
    message = f'There is no reference "{reference_id}".'
    return Fault(grpc.StatusCode.NOT_FOUND, message, "REFERENCE_NOT_FOUND", details)


def dropped() -> Fault:
    return Fault(grpc.StatusCode.RESOURCE_EXHAUSTED, "A newer frame took its place.", "FRAME_DROPPED")


@dataclass
class FakeServer(service_pb2_grpc.PatchCoreServiceServicer):
    """What to do is set before a call; what happened is read after it."""

    faults: dict[str, deque[Fault]] = field(default_factory=lambda: defaultdict(deque))  # by method, one a call
    delay_s: float = 0.0  # before a unary answer
    build_s: float = 0.0  # of a streamed load: one that is cancelled ends like a complete one, and is told so later
    page_size: int = 2
    overlay: bytes = b""  # instead of a PNG of the image's size
    notices: list[stream_pb2.StreamNotice] = field(default_factory=list)  # after `ready`
    frame_faults: dict[int, Fault] = field(default_factory=dict)  # by sequence
    stream_end: tuple[int, Fault] | None = None  # after so many frames, with this
    stream_ends: deque[tuple[int, Fault]] = field(default_factory=deque)  # instead, of one stream after the other
    read_frames: threading.Event = field(default_factory=threading.Event)  # cleared: frames are left unread

    requests: dict[str, list[Any]] = field(default_factory=lambda: defaultdict(list))  # by method
    metadata: list[dict[str, Any]] = field(default_factory=list)
    references: dict[str, reference_pb2.Reference] = field(default_factory=dict)
    loads: list[reference_pb2.Load] = field(default_factory=list)  # what ListLoads tells
    watched: int = 0  # a load is not ready before so many ListLoads have come
    stream_ended: threading.Event = field(default_factory=threading.Event)
    load_cancelled: bool = False
    health: health.aio.HealthServicer = field(default_factory=health.aio.HealthServicer)
    address: str = ""

    def __post_init__(self) -> None:
        self.read_frames.set()

    def fail(self, method: str, fault: Fault, times: int = 1) -> None:
        self.faults[method].extend([fault] * times)

    def wait_for_request(self, method: str, count: int = 1) -> None:
        """Returns when this many have come."""
        deadline_s = time.monotonic() + 10
        while len(self.requests[method]) < count:
            assert time.monotonic() < deadline_s, f"{method} did not come"
            time.sleep(0.005)

    async def _enter(self, method: str, request: Any, context: Context) -> None:
        self.requests[method].append(request)
        self.metadata.append(dict(context.invocation_metadata() or ()))
        if self.faults[method]:
            await self.faults[method].popleft().raised(context)
        if self.delay_s:
            await asyncio.sleep(self.delay_s)

    async def LoadReference(self, request: Any, context: Context) -> reference_pb2.LoadReferenceResponse:  # noqa: N802
        await self._enter("LoadReference", request, context)
        return reference_pb2.LoadReferenceResponse(reference=await self._load(request, request.images, context))

    async def LoadReferenceStream(  # noqa: N802
        self, requests: AsyncIterator[Any], context: Context
    ) -> reference_pb2.LoadReferenceStreamResponse:
        try:
            start = (await anext(requests)).start
            await self._enter("LoadReferenceStream", start, context)
            images = [*start.images, *[message.image async for message in requests]]
            await asyncio.sleep(self.build_s)
            reference = await self._load(start, images, context)
        except asyncio.CancelledError:
            self.load_cancelled = True
            raise
        finally:
            self.stream_ended.set()
        return reference_pb2.LoadReferenceStreamResponse(reference=reference)

    async def _load(self, request: Any, images: Sequence[bytes], context: Context) -> reference_pb2.Reference:
        for index, image in enumerate(images):
            if _decoded(image) is None:
                await bad_image(f"images[{index}]").raised(context)
        while len(self.requests["ListLoads"]) < self.watched:  # noqa: ASYNC110 - nothing tells when
            await asyncio.sleep(0.005)
        key = request.reference_id or "default"
        old = self.references.get(key) if request.mode == reference_pb2.LOAD_MODE_APPEND else None
        count = len(images) + (old.image_count if old else 0)
        digest = hashlib.sha256(b"".join(images)).hexdigest()
        self.references[key] = loaded = reference(key, count, revision=digest, profile=request.profile)
        loaded.region_of_interest.extend(request.region_of_interest)
        if request.HasField("search_radius"):
            loaded.search_radius = request.search_radius
        return loaded

    async def GetReference(self, request: Any, context: Context) -> reference_pb2.GetReferenceResponse:  # noqa: N802
        await self._enter("GetReference", request, context)
        if request.reference_id not in self.references:
            await not_found(request.reference_id).raised(context)
        return reference_pb2.GetReferenceResponse(reference=self.references[request.reference_id])

    async def ListReferences(self, request: Any, context: Context) -> reference_pb2.ListReferencesResponse:  # noqa: N802
        await self._enter("ListReferences", request, context)
        ids = sorted(key for key in self.references if key > request.page_token)
        page = ids[: self.page_size]
        return reference_pb2.ListReferencesResponse(
            references=[self.references[key] for key in page], next_page_token=page[-1] if page != ids else ""
        )

    async def ListLoads(self, request: Any, context: Context) -> reference_pb2.ListLoadsResponse:  # noqa: N802
        await self._enter("ListLoads", request, context)
        loads = [load for load in self.loads if request.reference_id in ("", load.reference_id)]
        return reference_pb2.ListLoadsResponse(loads=loads)

    async def DeleteReference(self, request: Any, context: Context) -> reference_pb2.DeleteReferenceResponse:  # noqa: N802
        await self._enter("DeleteReference", request, context)
        if request.reference_id not in self.references:
            await not_found(request.reference_id).raised(context)
        return reference_pb2.DeleteReferenceResponse(revision=self.references.pop(request.reference_id).revision)

    async def GetServerInfo(self, request: Any, context: Context) -> server_info_pb2.GetServerInfoResponse:  # noqa: N802
        await self._enter("GetServerInfo", request, context)
        limits = server_info_pb2.Limits(max_image_bytes=2**25, max_in_flight=64, default_timeout_s=30)
        return server_info_pb2.GetServerInfoResponse(
            version="1.2.3",
            backbone="fake",
            device="cpu",
            heatmap_scale=inference_pb2.HEATMAP_SCALE_RELATIVE,
            limits=limits,
        )

    async def Infer(self, request: Any, context: Context) -> inference_pb2.InferResponse:  # noqa: N802
        await self._enter("Infer", request, context)
        answer = inspected(request.reference_id, request.image, request.output)
        if isinstance(answer, Fault):
            await answer.raised(context)
        answer.overlay_png = self.overlay or answer.overlay_png
        return answer

    async def InferStream(  # noqa: N802
        self, requests: AsyncIterator[Any], context: Context
    ) -> AsyncIterator[stream_pb2.InferStreamResponse]:
        try:
            config = (await anext(requests)).config
            await self._enter("InferStream", config, context)
            ready = stream_pb2.StreamReady(reference_id=config.reference_id, max_in_flight=config.max_in_flight or 8)
            yield stream_pb2.InferStreamResponse(ready=ready)
            for notice in self.notices:
                yield stream_pb2.InferStreamResponse(notice=notice)
            await asyncio.to_thread(self.read_frames.wait)
            sequence = 0
            end = self.stream_ends.popleft() if self.stream_ends else self.stream_end
            async for message in requests:
                self.requests["frame"].append(message.frame)
                if end is not None and end[0] == sequence:
                    await end[1].raised(context)
                yield stream_pb2.InferStreamResponse(result=self._result(config, message.frame, sequence))
                sequence += 1
        finally:
            self.stream_ended.set()

    def _result(self, config: Any, frame: Any, sequence: int) -> stream_pb2.FrameResult:
        result = stream_pb2.FrameResult(frame_id=frame.frame_id, sequence=sequence)
        if frame.HasField("capture_time"):
            result.capture_time.CopyFrom(frame.capture_time)
        answer = self.frame_faults.get(sequence) or inspected(config.reference_id, frame.image, config.output)
        if isinstance(answer, Fault):
            result.error.CopyFrom(answer.status())
        else:
            answer.overlay_png = self.overlay or answer.overlay_png
            result.response.CopyFrom(answer)
        return result


def _decoded(image: bytes) -> Image.Image | None:
    try:
        return Image.open(io.BytesIO(image)).convert("RGB")
    except OSError:
        return None


def inspected(reference_id: str, image: bytes, output: Any) -> inference_pb2.InferResponse | Fault:
    decoded = _decoded(image)
    if decoded is None:
        return bad_image()
    red, green, _ = np.asarray(decoded).mean(axis=(0, 1))
    raw = 30.0 if red > green else 5.0
    anomaly = inference_pb2.AnomalyScore(
        score=raw / (raw + 10), raw_score=raw, raw_threshold=10, is_anomalous=raw > 10, anomalous_area_percentage=12.5
    )
    box = inference_pb2.BoundingBox(x_px=2, y_px=3, width_px=8, height_px=5)
    corners = [inference_pb2.Point(x_px=x, y_px=y) for x, y in ((2, 3), (9, 3), (9, 7), (2, 7))]
    region = inference_pb2.Region(bounding_box=box, polygon=corners, area_px=40, area_percentage=5.2, peak_score=0.8)
    answer = inference_pb2.InferResponse(
        reference_id=reference_id,
        reference_revision="abc",
        damage=inference_pb2.DamageScore(damage_percentage=7.25, anomaly_detected=True, threshold=0.5),
        anomaly=anomaly,
        regions=[region] if raw > 10 else [],
        timing=inference_pb2.Timing(total_ms=4.5),
    )
    if output.overlay:
        _draw(answer, decoded, output)
    if output.score_map:
        values = np.arange(6, dtype="<f4")
        width, height = decoded.size
        answer.score_map.CopyFrom(
            inference_pb2.ScoreMap(
                height=2, width=3, values=values.tobytes(), source_width_px=width, source_height_px=height
            )
        )
    return answer


def _draw(answer: inference_pb2.InferResponse, image: Image.Image, output: Any) -> None:
    kind = {inference_pb2.OVERLAY_FORMAT_JPEG: "JPEG", inference_pb2.OVERLAY_FORMAT_WEBP: "WEBP"}.get(
        output.overlay_format, "PNG"
    )
    overlay, file = Image.new("RGB", image.size, "orange"), io.BytesIO()
    if output.overlay_max_side_px:
        overlay.thumbnail((output.overlay_max_side_px, output.overlay_max_side_px))
    overlay.save(file, kind)
    answer.overlay.media_type = f"image/{kind.lower()}"
    answer.overlay.width_px, answer.overlay.height_px = overlay.size
    answer.overlay.source_width_px, answer.overlay.source_height_px = image.size
    if kind == "PNG":
        answer.overlay_png = file.getvalue()
    else:
        answer.overlay.image = file.getvalue()


def reference(key: str, image_count: int, revision: str = "abc123", profile: int = 0) -> reference_pb2.Reference:
    calibration = reference_pb2.Calibration(
        method=reference_pb2.CALIBRATION_METHOD_LEAVE_ONE_OUT,
        image_threshold=10.5,
        patch_threshold=8.25,
        normal_scores=reference_pb2.ScoreSpread(count=image_count, min=4, mean=5, stddev=0.5, max=6),
    )
    message = reference_pb2.Reference(
        reference_id=key,
        revision=revision,
        image_count=image_count,
        patch_count=784 * image_count,
        feature_dim=1536,
        profile=profile or reference_pb2.SCORING_PROFILE_NOTEBOOK,  # type: ignore[arg-type]
        calibration=calibration,
        threshold=10.5,
        backbone="fake",
        precision="fp32",
        coreset=reference_pb2.CoresetOptions(ratio=0.1),
        bank_bytes=5 * 2**20,
    )
    message.create_time.FromJsonString("2025-01-02T03:04:05Z")
    message.update_time.FromJsonString("2025-01-02T03:04:06Z")
    return message


@contextmanager
def serving(credentials: grpc.ServerCredentials | None = None) -> Iterator[FakeServer]:
    """A FakeServer at work in another thread, on a free port."""
    fake = FakeServer()
    started, loop = threading.Event(), asyncio.new_event_loop()

    async def serve() -> None:
        server = grpc.aio.server(options=[("grpc.max_receive_message_length", 64 * 2**20)])
        service_pb2_grpc.add_PatchCoreServiceServicer_to_server(fake, server)
        health_pb2_grpc.add_HealthServicer_to_server(fake.health, server)
        for service in ("", SERVICE):
            await fake.health.set(service, SERVING)
        if credentials is None:
            fake.address = f"127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}"
        else:
            fake.address = f"localhost:{server.add_secure_port('127.0.0.1:0', credentials)}"
        await server.start()
        started.set()
        await stop.wait()
        fake.read_frames.set()
        await server.stop(None)

    stop = asyncio.Event()
    thread = threading.Thread(target=loop.run_until_complete, args=(serve(),), daemon=True)
    thread.start()
    assert started.wait(10)
    try:
        yield fake
    finally:
        loop.call_soon_threadsafe(stop.set)
        thread.join(10)
        loop.close()
