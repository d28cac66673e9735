"""What both clients say about the server: frozen data, no protobuf."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from patchserve_client._choices import HeatmapScale


@dataclass(frozen=True, slots=True)
class Limits:
    """The limits of the server."""

    max_image_bytes: int
    max_image_pixels: int
    max_image_side_px: int
    max_message_bytes: int
    max_reference_images: int
    max_pending_images: int
    max_in_flight: int
    default_in_flight: int
    default_timeout_s: float
    load_timeout_s: float
    max_bank_bytes: int
    max_pending_bytes: int
    max_pending_loads: int
    max_calls: int
    max_client_pending_images: int  # 0: no limit
    max_client_pending_bytes: int
    max_client_pending_loads: int
    max_client_calls: int
    max_batch_size: int
    stream_write_timeout_s: float
    max_connection_age_s: float  # 0: no limit
    max_timeout_s: float
    max_load_timeout_s: float
    first_message_timeout_s: float
    max_idle_streams: int  # of one caller


@dataclass(frozen=True, slots=True)
class StoreInfo:
    """Where the server keeps its references."""

    kind: str  # "memory", "folder", or the scheme of the URL of an object storage; empty: the server is older
    url: str  # of a shared store; else empty
    shared: bool  # whether several servers use it
    synced_age_s: float  # since the server has last learned what others have changed; 0: it is not shared
    reachable: bool  # whether the store could be reached then; if not, references cannot be changed


@dataclass(frozen=True, slots=True)
class ServerInfo:
    """What `GetServerInfo` returns: version, backbone, device, precision, limits and store."""

    version: str
    http_url: str  # of its HTTP face, such as http://127.0.0.1:8080; empty: it has none
    grpc_address: str  # as the server is bound: HOST:PORT or unix:PATH
    backbone: str
    weights_digest: str
    weights_source: str
    fallback_reason: str  # why it is not the requested backbone; empty if it is
    device: str
    precision: str
    decode: str  # where JPEGs are decoded: "cpu", or "device" for the device above; empty: the server is older
    input_size_px: int  # of a reference that sets no other
    input_step_px: int  # the sides of model inputs are multiples of it
    search_product: str  # the number format of the first product of exact searches: "fp32", "bf16" or "int8"
    search_threads: int
    feature_dim: int
    heatmap_scale: HeatmapScale | None  # the default of a request; None: unknown to this client
    limits: Limits
    store: StoreInfo


@dataclass(frozen=True, slots=True)
class Health:
    """Whether the server is alive, and whether it is ready to inspect images."""

    alive: bool
    ready: bool


@dataclass(frozen=True, slots=True)
class CallCount:
    """How many calls of a method ended with a code."""

    method: str
    code: str
    count: int


@dataclass(frozen=True, slots=True)
class FailureCount:
    """How many calls and frames failed for a reason."""

    reason: str
    count: int


@dataclass(frozen=True, slots=True)
class DurationHistogram:
    """Durations by classes: the last count is that of durations above all bounds."""

    bounds_s: tuple[float, ...]
    counts: tuple[int, ...]
    sum_s: float


@dataclass(frozen=True, slots=True)
class ReferenceStats:
    """What was inspected with a reference."""

    reference_id: str  # empty: all that have no entry of their own
    intact: int
    anomalous: int
    failed: int


@dataclass(frozen=True, slots=True)
class ServerStats:
    """What `GetServerStats` returns. Counts begin with the server and only grow: take differences."""

    process_id: str  # with another one than before, all counts have begun again
    processes: int  # that answer calls; the counts are those of all
    start_time: datetime  # UTC
    uptime_s: float
    calls_in_progress: int
    images_in_progress: int
    loads_in_progress: int
    streams_open: int
    calls: tuple[CallCount, ...]
    failures: tuple[FailureCount, ...]
    wait: DurationHistogram  # of images, for a turn, a thread or a batch
    inspection: DurationHistogram  # of images, waits included
    references: tuple[ReferenceStats, ...]
