"""The counts of the server as a message."""

from __future__ import annotations

from collections.abc import Sequence

from google.protobuf.timestamp_pb2 import Timestamp

from patchserve.v1 import server_info_pb2
from patchserve_server.serving.application import Application
from patchserve_server.serving.statistics import Counts, Histogram, OutcomeCounts


def server_stats(application: Application, counts: Counts) -> server_info_pb2.GetServerStatsResponse:
    """What the server has counted until now."""
    start_time = Timestamp()
    start_time.FromDatetime(counts.start_time)
    return server_info_pb2.GetServerStatsResponse(
        process_id=counts.process_id,
        processes=len(counts.process_ids),
        start_time=start_time,
        uptime_s=counts.uptime_s,
        calls_in_progress=application.calls.held.count,
        images_in_progress=application.images.held.count,
        loads_in_progress=application.loads.held.count,
        streams_open=counts.streams_open,
        calls=[
            server_info_pb2.CallCount(method=method, code=code, count=count) for method, code, count in counts.calls
        ],
        failures=[server_info_pb2.FailureCount(reason=reason, count=count) for reason, count in counts.failures],
        wait=_histogram(counts.wait_counts, counts.wait_sum_s),
        inspection=_histogram(counts.inspection_counts, counts.inspection_sum_s),
        references=[_reference(*each) for each in sorted(counts.references, key=lambda each: (each[0] == "", each[0]))],
    )


def _histogram(counts: Sequence[int], sum_s: float) -> server_info_pb2.DurationHistogram:
    return server_info_pb2.DurationHistogram(bounds_s=Histogram.BOUNDS_S, counts=counts, sum_s=sum_s)


def _reference(reference_id: str, counts: OutcomeCounts) -> server_info_pb2.ReferenceStats:
    return server_info_pb2.ReferenceStats(
        reference_id=reference_id, intact=counts.intact, anomalous=counts.anomalous, failed=counts.failed
    )
