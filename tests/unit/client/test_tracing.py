"""The client sends the trace of the program around it, if that has one."""

from __future__ import annotations

import subprocess
import sys

import pytest
from fakes.either_client import CallMethod
from fakes.fake_server import FakeServer

pytest.importorskip("opentelemetry.sdk")  # the environment of the oldest dependencies has none

from opentelemetry import baggage, context
from opentelemetry.sdk.trace import TracerProvider


def test_a_call_inside_a_span_names_it(fake: FakeServer, call: CallMethod) -> None:
    tracer = TracerProvider(shutdown_on_exit=False).get_tracer("program")
    call(fake.address, "server_info")
    with tracer.start_as_current_span("work") as span:
        call(fake.address, "server_info")
    at = span.get_span_context()
    seen = [metadata.get("traceparent") for metadata in fake.metadata]
    assert seen == [None, f"00-{at.trace_id:032x}-{at.span_id:016x}-{at.trace_flags:02x}"]


def test_what_the_program_sends_along_goes_along(fake: FakeServer, call: CallMethod) -> None:
    tracer = TracerProvider(shutdown_on_exit=False).get_tracer("program")
    with tracer.start_as_current_span("work"):
        token = context.attach(baggage.set_baggage("line", "7"))
        call(fake.address, "server_info")
        context.detach(token)
    assert fake.metadata[-1].get("baggage") == "line=7"


def test_a_program_without_opentelemetry_does_not_get_it() -> None:
    code = (
        "import sys; from patchserve_client import Client\n"
        "from patchserve_client._tracing import trace_headers\n"
        "print(trace_headers(), [name for name in sys.modules if 'opentelemetry' in name])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "() []\n"
