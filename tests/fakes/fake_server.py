"""A patchserve server with scripted responses instead of an engine."""

from __future__ import annotations

import asyncio
import hashlib
import threading
import time
from collections import defaultdict, deque
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import grpc
from grpc_health.v1 import health, health_pb2, health_pb2_grpc

from fakes.faults import Context, Fault, bad_image, mismatch, not_found
from fakes.responses import decoded_image, inspected, png, reference
from patchserve.v1 import inference_pb2, reference_pb2, server_info_pb2, service_pb2_grpc, stream_pb2

SERVICE = "patchserve.v1.PatchCoreService"
SERVING = health_pb2.HealthCheckResponse.SERVING
NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING


LOAD_COST = reference_pb2.LoadCost(patches_per_image=1600, memory_bytes=74 * 2**20, ms_per_image=40.4, search_recall=1)


@dataclass
class FakeServer(service_pb2_grpc.PatchCoreServiceServicer):
    """Tests set its behavior before a call and read what happened after the call."""

    faults: dict[str, deque[Fault]] = field(default_factory=lambda: defaultdict(deque))  # by method, one for each call
    late_faults: dict[str, tuple[int, Fault]] = field(default_factory=dict)  # by method, after so many calls
    held: dict[str, int] = field(default_factory=lambda: defaultdict(int))  # by method: how many calls to hold
    delay_s: float = 0.0  # before a unary response
    build_s: float = 0.0  # how long a streamed load takes after its last image
    page_size: int = 2
    knows_input: bool = True  # False: an older server, which ignores the field of a load
    overlay: bytes = b""  # instead of a PNG of the image's size
    notices: list[stream_pb2.StreamNotice] = field(default_factory=list)  # sent after `ready`
    frame_faults: dict[int, Fault] = field(default_factory=dict)  # by sequence
    stream_end: tuple[int, Fault] | None = None  # every stream ends after so many frames with this fault
    stream_ends: deque[tuple[int, Fault]] = field(default_factory=deque)  # before that: one for each stream
    read_frames: threading.Event = field(default_factory=threading.Event)  # cleared: frames are not read

    changed_by_others: set[str] = field(default_factory=set)  # references that are at no revision that a caller knows
    open_streams: int = 0

    requests: dict[str, list[Any]] = field(default_factory=lambda: defaultdict(list))  # by method
    stream_times_s: list[tuple[float, float]] = field(
        default_factory=list
    )  # when each one began, and ended with a fault
    metadata: list[dict[str, Any]] = field(default_factory=list)
    addressed: dict[str, list[str | None]] = field(default_factory=lambda: defaultdict(list))  # by method: the header
    peers: set[str] = field(default_factory=set)  # the connections of single inspections
    references: dict[str, reference_pb2.Reference] = field(default_factory=dict)
    images: dict[str, list[reference_pb2.ReferenceImage]] = field(default_factory=dict)  # of a reference
    image_name: str | None = None  # of every image of a reference; None: its number
    file_bytes: int = 3  # what ExportReference says
    loads: list[reference_pb2.Load] = field(default_factory=list)  # what ListLoads returns
    stats: deque[server_info_pb2.GetServerStatsResponse] = field(
        default_factory=lambda: deque([server_info_pb2.GetServerStatsResponse(process_id="a", processes=1)])
    )  # one for each call; the last one stays
    store: server_info_pb2.StoreInfo = field(
        default_factory=lambda: server_info_pb2.StoreInfo(kind="folder", reachable=True)
    )
    polls_before_ready: int = 0  # a load ends after so many ListLoads calls
    stream_ended: threading.Event = field(default_factory=threading.Event)
    load_cancelled: bool = False
    streamed_names: list[str] = field(default_factory=list)
    health: health.aio.HealthServicer = field(default_factory=health.aio.HealthServicer)
    address: str = ""
    _received: threading.Condition = field(default_factory=threading.Condition)

    def __post_init__(self) -> None:
        self.read_frames.set()

    def fail(self, method: str, fault: Fault, times: int = 1) -> None:
        """Let the next calls of a method fail."""
        self.faults[method].extend([fault] * times)

    def fail_after(self, method: str, count: int, fault: Fault) -> None:
        """Let all calls of a method fail that come after so many."""
        self.late_faults[method] = (count, fault)

    def hold(self, method: str) -> None:
        """Let the next call of a method wait until it is cancelled."""
        self.held[method] += 1

    def wait_for_request(self, method: str, count: int = 1) -> None:
        """Return when so many requests have arrived."""
        with self._received:
            assert self._received.wait_for(lambda: len(self.requests[method]) >= count, 10), f"{method} was not called"

    async def _enter(self, method: str, request: Any, context: Context) -> None:
        with self._received:
            self.requests[method].append(request)
            self._received.notify_all()
        self.metadata.append(dict(context.invocation_metadata() or ()))
        self.addressed[method].append(self.metadata[-1].get("x-patchserve-reference"))
        if self.held[method]:
            self.held[method] -= 1
            await asyncio.Event().wait()
        if self.faults[method]:
            await self.faults[method].popleft().abort(context)
        count, fault = self.late_faults.get(method, (0, None))
        if fault is not None and len(self.requests[method]) > count:
            await fault.abort(context)
        if getattr(request, "expected_revision", "") and request.reference_id in self.changed_by_others:
            await mismatch(request.reference_id).abort(context)
        if self.delay_s:
            await asyncio.sleep(self.delay_s)

    async def LoadReference(self, request: Any, context: Context) -> reference_pb2.LoadReferenceResponse:  # noqa: N802
        await self._enter("LoadReference", request, context)
        return reference_pb2.LoadReferenceResponse(
            reference=await self._load(request, request.images, context), cost=LOAD_COST
        )

    async def LoadReferenceStream(  # noqa: N802
        self, requests: AsyncIterator[Any], context: Context
    ) -> reference_pb2.LoadReferenceStreamResponse:
        try:
            start = (await anext(requests)).start
            await self._enter("LoadReferenceStream", start, context)
            messages = [message async for message in requests]
            self.streamed_names += [message.image_name for message in messages]
            images = [*start.images, *[message.image for message in messages]]
            await asyncio.sleep(self.build_s)
            reference = await self._load(start, images, context)
        except asyncio.CancelledError:
            self.load_cancelled = True
            raise
        finally:
            self.stream_ended.set()
        return reference_pb2.LoadReferenceStreamResponse(reference=reference, cost=LOAD_COST)

    async def _load(self, request: Any, images: Sequence[bytes], context: Context) -> reference_pb2.Reference:
        for index, image in enumerate(images):
            if decoded_image(image) is None:
                await bad_image(f"images[{index}]").abort(context)
        await asyncio.to_thread(self.wait_for_request, "ListLoads", self.polls_before_ready)
        key = request.reference_id or "default"
        old = self.references.get(key) if request.mode == reference_pb2.LOAD_MODE_APPEND else None
        count = len(images) + (old.image_count if old else 0)
        digest = hashlib.sha256(b"".join(images)).hexdigest()
        self.references[key] = loaded = reference(key, count, revision=digest, profile=request.profile)
        loaded.region_of_interest.extend(request.region_of_interest)
        if request.HasField("sensitivity"):
            loaded.sensitivity = request.sensitivity
        if request.HasField("input") and self.knows_input:
            loaded.input.CopyFrom(request.input)
        if request.HasField("false_alarm_rate"):
            loaded.false_alarm_rate = request.false_alarm_rate
        if request.HasField("search_radius"):
            loaded.search_radius = request.search_radius
        if request.views:
            loaded.views_per_image = 1 if request.views == reference_pb2.REFERENCE_VIEWS_NONE else 8
        return loaded

    async def GetReference(self, request: Any, context: Context) -> reference_pb2.GetReferenceResponse:  # noqa: N802
        await self._enter("GetReference", request, context)
        if request.reference_id not in self.references:
            await not_found(request.reference_id).abort(context)
        reference = self.references[request.reference_id]
        return reference_pb2.GetReferenceResponse(reference=reference, images=self.images.get(request.reference_id, ()))

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

    async def TuneReference(self, request: Any, context: Context) -> reference_pb2.TuneReferenceResponse:  # noqa: N802
        await self._enter("TuneReference", request, context)
        if request.reference_id not in self.references:
            await not_found(request.reference_id).abort(context)
        tuned = self.references[request.reference_id]
        tuned.sensitivity = request.sensitivity
        tuned.threshold = tuned.calibration.image_threshold / request.sensitivity
        tuned.revision = hashlib.sha256(f"{tuned.revision}{request.sensitivity}".encode()).hexdigest()
        return reference_pb2.TuneReferenceResponse(reference=tuned)

    async def RestoreReference(self, request: Any, context: Context) -> reference_pb2.RestoreReferenceResponse:  # noqa: N802
        await self._enter("RestoreReference", request, context)
        if request.reference_id not in self.references:
            await not_found(request.reference_id).abort(context)
        restored = self.references[request.reference_id]
        restored.revision, restored.previous_revision = restored.previous_revision, restored.revision
        return reference_pb2.RestoreReferenceResponse(reference=restored)

    async def GetReferenceHistory(  # noqa: N802
        self, request: Any, context: Context
    ) -> reference_pb2.GetReferenceHistoryResponse:
        await self._enter("GetReferenceHistory", request, context)
        if request.reference_id not in self.references:
            await not_found(request.reference_id).abort(context)
        current = reference_pb2.KeptRevision(reference=self.references[request.reference_id], is_current=True)
        return reference_pb2.GetReferenceHistoryResponse(revisions=[current])

    async def ExportReference(  # noqa: N802
        self, request: Any, context: Context
    ) -> AsyncIterator[reference_pb2.ExportReferenceResponse]:
        await self._enter("ExportReference", request, context)
        start = reference_pb2.ReferenceFile(reference=self.references[request.reference_id], size_bytes=self.file_bytes)
        yield reference_pb2.ExportReferenceResponse(start=start)
        yield reference_pb2.ExportReferenceResponse(chunk=b"123")

    async def ImportReference(  # noqa: N802
        self, requests: AsyncIterator[Any], context: Context
    ) -> reference_pb2.ImportReferenceResponse:
        await self._enter("ImportReference", [message async for message in requests], context)
        return reference_pb2.ImportReferenceResponse(reference=reference("imported", 1))

    async def GetReferenceImage(self, request: Any, context: Context) -> reference_pb2.GetReferenceImageResponse:  # noqa: N802
        await self._enter("GetReferenceImage", request, context)
        if request.reference_id not in self.references:
            await not_found(request.reference_id).abort(context)
        reference = self.references[request.reference_id]
        return reference_pb2.GetReferenceImageResponse(
            image=png(size=(4, 4)),
            media_type="image/png",
            width_px=4,
            height_px=4,
            name=f"{request.index}.jpg" if self.image_name is None else self.image_name,
            reference_revision=reference.revision,
        )

    async def DeleteReference(self, request: Any, context: Context) -> reference_pb2.DeleteReferenceResponse:  # noqa: N802
        await self._enter("DeleteReference", request, context)
        if request.reference_id not in self.references:
            await not_found(request.reference_id).abort(context)
        return reference_pb2.DeleteReferenceResponse(revision=self.references.pop(request.reference_id).revision)

    async def GetServerInfo(self, request: Any, context: Context) -> server_info_pb2.GetServerInfoResponse:  # noqa: N802
        await self._enter("GetServerInfo", request, context)
        limits = server_info_pb2.Limits(
            max_image_bytes=2**25,
            max_in_flight=64,
            default_timeout_s=30,
            max_reference_images=50,
            max_pending_images=64,
        )
        return server_info_pb2.GetServerInfoResponse(
            version="1.2.3",
            backbone="fake",
            device="cpu",
            heatmap_scale=inference_pb2.HEATMAP_SCALE_RELATIVE,
            limits=limits,
            store=self.store,
        )

    async def GetServerStats(self, request: Any, context: Context) -> server_info_pb2.GetServerStatsResponse:  # noqa: N802
        await self._enter("GetServerStats", request, context)
        return self.stats.popleft() if len(self.stats) > 1 else self.stats[0]

    async def Infer(self, request: Any, context: Context) -> inference_pb2.InferResponse:  # noqa: N802
        await self._enter("Infer", request, context)
        self.peers.add(context.peer())
        response = inspected(request.reference_id, request.image, request.output)
        if isinstance(response, Fault):
            await response.abort(context)
        response.overlay_png = self.overlay or response.overlay_png
        if request.reference_id in self.references:
            response.reference_revision = self.references[request.reference_id].revision
        return response

    async def InferStream(  # noqa: N802
        self, requests: AsyncIterator[Any], context: Context
    ) -> AsyncIterator[stream_pb2.InferStreamResponse]:
        self.open_streams += 1
        try:
            config = (await anext(requests)).config
            began_at_s = time.monotonic()
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
                    self.stream_times_s.append((began_at_s, time.monotonic()))
                    await end[1].abort(context)
                yield stream_pb2.InferStreamResponse(result=self._result(config, message.frame, sequence))
                sequence += 1
        finally:
            self.open_streams -= 1
            self.stream_ended.set()

    def _result(self, config: Any, frame: Any, sequence: int) -> stream_pb2.FrameResult:
        result = stream_pb2.FrameResult(frame_id=frame.frame_id, sequence=sequence)
        if frame.HasField("capture_time"):
            result.capture_time.CopyFrom(frame.capture_time)
        response = self.frame_faults.get(sequence) or inspected(config.reference_id, frame.image, config.output)
        if isinstance(response, Fault):
            result.error.CopyFrom(response.status())
        else:
            response.overlay_png = self.overlay or response.overlay_png
            result.response.CopyFrom(response)
        return result


@contextmanager
def serving(credentials: grpc.ServerCredentials | None = None) -> Iterator[FakeServer]:
    """A FakeServer that runs in another thread, on a free port."""
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
