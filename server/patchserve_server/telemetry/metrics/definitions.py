"""Every metric: its name, what it tells, and what whoever is on duty does. docs/metrics.md is this table."""

from __future__ import annotations

import enum
from dataclasses import dataclass
from typing import Final

from patchserve_server.domain import errors
from patchserve_server.domain.work_events import Stage

PREFIX: Final = "patchserve_"

_SHORT_S: Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
_CALL_S: Final = (*_SHORT_S[2:], 30.0, 60.0, 300.0)  # loads take minutes
_LOAD_S: Final = (0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0, 600.0, 1800.0)
_BATCH: Final = (1.0, 2.0, 3.0, 4.0, 6.0, 8.0, 12.0, 16.0, 32.0, 64.0)
# Fine around the threshold, 0.5: a score of exactly 0.5 is intact.
_SCORE: Final = (0.2, 0.3, 0.35, 0.4, 0.425, 0.45, 0.475, 0.5, 0.525, 0.55, 0.575, 0.6, 0.65, 0.7, 0.8, 1.0)

# The errors below these are rejections; contract/status.py gives them RESOURCE_EXHAUSTED and UNAVAILABLE.
REJECTIONS: Final = (
    errors.QueueFullError,
    errors.IdleCallError,
    errors.MemoryBudgetError,
    errors.StorageFullError,
    errors.NotReadyError,
    errors.DrainingError,
    errors.EngineLostError,
    errors.StorageUnavailableError,
)

STORE_OPERATIONS: Final = (
    "save", "load", "describe", "load_previous", "describe_previous", "restore", "forget_previous", "list_ids",
    "delete", "poll", "look_up", "load_copy", "maintain",
)  # fmt: skip


class Kind(enum.StrEnum):
    COUNTER = "counter"
    GAUGE = "gauge"
    HISTOGRAM = "histogram"


class Merge(enum.Enum):
    """What a gauge is of several processes that have it with the same labels."""

    SUM = enum.auto()
    MIN = enum.auto()
    MAX = enum.auto()


@dataclass(frozen=True, slots=True)
class Metric:
    """One metric.

    Args:
        name: without the prefix, and without the `_total` of a counter.
        tells: what it is.
        advice: what to look for, and what to do then.
        known: the values of its labels that are known before anything happens. Those series begin at 0, so that a
            query finds them and sees the first event.
    """

    name: str
    kind: Kind
    tells: str
    advice: str
    labels: tuple[str, ...] = ()
    unit: str = ""
    buckets: tuple[float, ...] = ()
    merge: Merge = Merge.SUM
    known: tuple[tuple[str, ...], ...] = ()

    @property
    def full_name(self) -> str:
        """As queries name it; a histogram has `_bucket`, `_sum` and `_count` at the end."""
        return PREFIX + self.name + ("_total" if self.kind is Kind.COUNTER else "")


def _counter(name: str, labels: tuple[str, ...], tells: str, advice: str, *known: tuple[str, ...]) -> Metric:
    return Metric(name, Kind.COUNTER, tells, advice, labels, known=known)


def _gauge(
    name: str, labels: tuple[str, ...], tells: str, advice: str, *, unit: str = "", merge: Merge = Merge.SUM
) -> Metric:
    return Metric(name, Kind.GAUGE, tells, advice, labels, unit, merge=merge)


def _histogram(
    name: str,
    labels: tuple[str, ...],
    buckets: tuple[float, ...],
    tells: str,
    advice: str,
    *known: tuple[str, ...],
    unit: str = "seconds",
) -> Metric:
    return Metric(name, Kind.HISTOGRAM, tells, advice, labels, unit, buckets, known=known)


RPC_REQUESTS: Final = _counter(
    "rpc_requests",
    ("face", "method", "code"),
    "Calls that have ended, over gRPC and HTTP alike. `face` is grpc or http, `code` the name of a gRPC code, also "
    "over HTTP. CANCELLED: the caller left.",
    "A growing share of INTERNAL is a bug: the log has it. UNAVAILABLE and RESOURCE_EXHAUSTED: see "
    "`patchserve_rejected_total`. DEADLINE_EXCEEDED: see `patchserve_queue_wait_seconds`.",
)
RPC_DURATION: Final = _histogram(
    "rpc_duration_seconds",
    ("face", "method"),
    _CALL_S,
    "From the arrival of a call until its outcome is known; of a stream, all of it.",
    "Infer is slower than before: `patchserve_stage_duration_seconds` and `patchserve_queue_wait_seconds` say where.",
)
RPC_IN_FLIGHT: Final = _gauge(
    "rpc_in_flight",
    (),
    "Calls that are being answered, open streams and probes included.",
    "Near --max-calls, calls are rejected: add a replica, or find the client that leaves calls open.",
)
STREAMS_OPEN: Final = _gauge(
    "streams_open",
    (),
    "Streams of images that are open: InferStream over gRPC and WebSockets, ModelStreamInfer.",
    "Fewer than there are cameras: one has lost its connection.",
)
FRAMES: Final = _counter(
    "frames",
    ("outcome", "reason"),
    "Frames of InferStream by outcome: inspected, failed, dropped (DROP_OLDEST), abandoned (the stream ended first). "
    "`reason` is that of the error, see errors.md.",
    "dropped: the camera sends more than the server inspects; lower its rate or add a replica. failed: the reason says "
    "what is wrong with the frames.",
    ("inspected", ""),
    ("dropped", "FRAME_DROPPED"),
    ("abandoned", ""),
)
STAGE_DURATION: Final = _histogram(
    "stage_duration_seconds",
    ("stage",),
    _SHORT_S,
    "One stage of one image: decode, embed and search (both with its batch), render (verdict, regions, overlay), "
    "encode (overlay and response). What a device decodes or draws is in decode, with its batch, and in render, with "
    "the wait for its batch.",
    "embed and search fill the machine when it is busy. decode above them: send smaller images, or JPEG.",
    *((stage.value,) for stage in Stage),
)
QUEUE_WAIT: Final = _histogram(
    "queue_wait_seconds",
    ("kind",),
    (*_SHORT_S, 30.0),
    "How long an image waited in all: for its turn, for a thread, for a batch. `kind`: call, frame (of a stream), load "
    "(a whole load, for its thread). Also of images whose callers left, or whose time was over.",
    "The signal to scale on. If the 95th percentile of calls is above the time that an image itself takes, add a "
    "replica, or a GPU.",
    ("call",),
    ("frame",),
    ("load",),
)
QUEUE_IMAGES: Final = _gauge(
    "queue_images",
    (),
    "Images that wait now, for their turn or for a batch.",
    "It stays above 0 when the server is full: see `patchserve_queue_wait_seconds`.",
)
BATCH_IMAGES: Final = _histogram(
    "batch_images",
    (),
    _BATCH,
    "Images that were scored together.",
    "Batches grow under load. If all have 1 image while others wait, the references have different batch keys (int8).",
    unit="images",
)
DEVICE_FALLBACKS: Final = _counter(
    "device_fallbacks",
    ("stage",),
    "JPEGs of which the CPU did what `--decode device` gives to the device, because the device could not: decode, or "
    "render (the overlay). Callers do not see it.",
    "A few are unusual files. Many: the log says why, once a minute; the device may have too little free memory.",
    ("decode",),
    ("render",),
)
REJECTED: Final = _counter(
    "rejected",
    ("reason",),
    "Calls that ended because a limit was reached or the server cannot serve now (RESOURCE_EXHAUSTED, UNAVAILABLE). "
    "`reason` as in errors.md: QUEUE_FULL, MEMORY_BUDGET, STORAGE_FULL, DRAINING and so on.",
    "QUEUE_FULL: more is sent than is served; add a replica, or let callers wait. STORAGE_FULL: make room. A few of "
    "NOT_READY and DRAINING belong to every rollout.",
    *((error.reason,) for error in REJECTIONS),
)
CANCELLED: Final = _counter(
    "cancelled",
    (),
    "Calls whose callers left before the answer.",
    "Many of them: callers have shorter time limits than the server needs.",
)
VERDICTS: Final = _counter(
    "verdicts",
    ("reference", "verdict"),
    "Inspected images by verdict: anomalous or intact. `reference` is the id for the first 100 of them "
    "(--metrics-max-references), then `other`.",
    "A sudden share of anomalous ones: look at the images (the page's Watch) before you believe in damage.",
)
ANOMALY_SCORE: Final = _histogram(
    "anomaly_score",
    ("reference",),
    _SCORE,
    "Anomaly scores; above 0.5 an image is anomalous.",
    "If the whole distribution moves towards 0.5, the scene has changed: light, camera, product. See "
    "`patchserve_reference_drift`.",
    unit="",
)
REFERENCE_DRIFT: Final = _gauge(
    "reference_drift",
    ("reference",),
    "How recent scores of a reference compare with its normal scores: 0, alike; 0.5, more damage; 1, the scene has "
    "changed. No series: too few images.",
    "1: look at light, camera and product; then load the reference again with images of today. 0.5: look at the line.",
    merge=Merge.MAX,
)
REFERENCE_LOAD_DURATION: Final = _histogram(
    "reference_load_duration_seconds",
    ("mode", "outcome"),
    _LOAD_S,
    "Loads of references: `mode` replace, append, or open (a stored reference is read again). `outcome`: ok, error, "
    "cancelled.",
    "Many with open: the references do not fit into --max-bank-mib together, and push each other out.",
)
REFERENCES: Final = _gauge(
    "references",
    ("state",),
    "References: open, closed (in the store only), mismatched (built with another backbone, weights or precision), "
    "damaged (files cannot be read).",
    "mismatched: load them again. damaged: `patchserve-server store check` says what can be restored.",
)
BANK_BYTES: Final = _gauge(
    "bank_bytes",
    ("place",),
    "Memory of references: open, retired (replaced, but still in use), previous (kept in memory for RestoreReference), "
    "shared (by all of them), reserved (for one that comes).",
    "Near `patchserve_bank_limit_bytes`, loads are rejected, or references push each other out: use a coreset, or "
    "raise --max-bank-mib.",
    unit="bytes",
)
BANK_LIMIT: Final = _gauge("bank_limit_bytes", (), "--max-bank-mib.", "See `patchserve_bank_bytes`.", unit="bytes")
STORE_OPERATION_DURATION: Final = _histogram(
    "store_operation_duration_seconds",
    ("operation", "outcome"),
    (*_SHORT_S, 30.0),
    "Operations of the store: save, load, describe, load_previous, describe_previous, restore, forget_previous, "
    "list_ids, delete; of a shared one also poll, look_up, load_copy and maintain. `outcome`: ok, absent (there is no "
    "such reference), changed (another one is current), error.",
    "error: the log names the cause; the disk is full, read-only or slow.",
    *((operation, "error") for operation in STORE_OPERATIONS),
)
STORE_SYNCED_AGE: Final = _gauge(
    "store_synced_age_seconds",
    (),
    "How long ago this server has last learned what other servers have changed in the store; 0 if it is not shared.",
    "It stays below 3. More: the store cannot be reached, and references cannot be changed; the log says why.",
    unit="seconds",
    merge=Merge.MAX,
)
DEVICE_MEMORY: Final = _gauge(
    "device_memory_bytes",
    ("device", "kind"),
    "Memory of the device: used (by this server), free and total; of a CPU used and total (of the container, if it has "
    "a limit).",
    "used near total: lower --max-bank-mib or --max-batch-size.",
    unit="bytes",
)
READY: Final = _gauge(
    "ready",
    (),
    "1 if the server takes calls, as its health check says; 0 while it starts and drains. With several fronts, 1 if "
    "all do.",
    "0 for longer than a start takes: the log says why.",
    merge=Merge.MIN,
)
BUILD_INFO: Final = _gauge(
    "build_info",
    ("version", "backbone", "weights", "precision", "device", "search", "decode"),
    "Always 1; the labels say what runs.",
    "Differs between replicas during a rollout only: references of another backbone, weights or precision are "
    "mismatched.",
    merge=Merge.MAX,
)
CERTIFICATE_EXPIRY: Final = _gauge(
    "certificate_expiry_timestamp_seconds",
    (),
    "When the certificate of --tls-cert expires, in seconds since 1970.",
    "Less than two weeks away: renew it. The new file is used without a restart.",
    unit="seconds",
    merge=Merge.MIN,
)
TOKEN_EXPIRY: Final = _gauge(
    "token_expiry_timestamp_seconds",
    ("token",),
    "When the last token of a name in --auth-tokens expires; the 100 that expire next.",
    "Add a new one with `patchserve-server token create --another`, and hand it over before.",
    unit="seconds",
    merge=Merge.MIN,
)

METRICS: Final[tuple[Metric, ...]] = (
    RPC_REQUESTS,
    RPC_DURATION,
    RPC_IN_FLIGHT,
    STREAMS_OPEN,
    FRAMES,
    STAGE_DURATION,
    QUEUE_WAIT,
    QUEUE_IMAGES,
    BATCH_IMAGES,
    DEVICE_FALLBACKS,
    REJECTED,
    CANCELLED,
    VERDICTS,
    ANOMALY_SCORE,
    REFERENCE_DRIFT,
    REFERENCE_LOAD_DURATION,
    REFERENCES,
    BANK_BYTES,
    BANK_LIMIT,
    STORE_OPERATION_DURATION,
    STORE_SYNCED_AGE,
    DEVICE_MEMORY,
    READY,
    BUILD_INFO,
    CERTIFICATE_EXPIRY,
    TOKEN_EXPIRY,
)
BY_NAME: Final = {metric.name: metric for metric in METRICS}
