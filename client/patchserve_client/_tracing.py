"""The trace that the caller's program is in, for the server: W3C Trace Context, as OpenTelemetry sends it."""

from __future__ import annotations

import sys


def trace_headers() -> tuple[tuple[str, str], ...]:
    """Metadata that names the current span, in the formats of the program (OTEL_PROPAGATORS); without a span, none.

    This package does not import OpenTelemetry by itself: without it, nothing can have begun a span.
    """
    trace = sys.modules.get("opentelemetry.trace")
    if trace is None or not trace.get_current_span().get_span_context().is_valid:
        return ()
    from opentelemetry import propagate  # noqa: PLC0415 - only in a program that uses it

    headers: dict[str, str] = {}
    propagate.inject(headers)
    return tuple((name.lower(), value) for name, value in headers.items())
