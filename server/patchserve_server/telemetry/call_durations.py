"""How long calls take, as OpenTelemetry's conventions for RPC name it: `rpc.server.call.duration`."""

from __future__ import annotations

from typing import Final

from opentelemetry.metrics import Meter

from patchserve_server.domain.call_events import CallEnd, CallInfo
from patchserve_server.domain.events import Events
from patchserve_server.telemetry import span_attributes as names

# Those of the conventions, in seconds.
_BOUNDARIES_S: Final = (0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1, 2.5, 5, 7.5, 10)


class CallDurations(Events):
    """Records the duration of each call.

    Args:
        meter: OpenTelemetry's.
    """

    def __init__(self, meter: Meter) -> None:
        self._durations = meter.create_histogram(
            "rpc.server.call.duration",
            unit="s",
            description="Duration of calls, from the arrival to the answer.",
            explicit_bucket_boundaries_advisory=_BOUNDARIES_S,
        )

    def call_ended(self, call: CallInfo, end: CallEnd) -> None:
        attributes: names.Attributes = {**names.rpc_of(call), names.STATUS_CODE: end.code}
        if end.code in names.SERVER_ERRORS:
            attributes[names.ERROR_TYPE] = end.code
        self._durations.record(end.duration_s, attributes)
