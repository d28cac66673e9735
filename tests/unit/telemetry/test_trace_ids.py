"""The trace that a caller records."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from patchserve_server.telemetry.metrics.trace_ids import trace_id_of

TRACE_ID = "0af7651916cd43dd8448eb211c80319c"
SPAN_ID = "b7ad6b7169203331"


def test_the_id_of_a_recorded_trace() -> None:
    assert trace_id_of(f"00-{TRACE_ID}-{SPAN_ID}-01") == TRACE_ID
    assert trace_id_of(f"01-{TRACE_ID}-{SPAN_ID}-03-more") == TRACE_ID


@pytest.mark.parametrize(
    "traceparent",
    [
        "",
        f"00-{TRACE_ID}-{SPAN_ID}-00",  # nobody keeps it
        f"00-{'0' * 32}-{SPAN_ID}-01",
        f"00-{TRACE_ID}-{SPAN_ID}",
        f"00-{TRACE_ID.upper()}-{SPAN_ID}-01",
        f"00-{TRACE_ID}\n-{SPAN_ID}-01",
    ],
)
def test_what_is_no_recorded_trace_has_none(traceparent: str) -> None:
    assert trace_id_of(traceparent) == ""


@given(st.text())
def test_no_text_of_a_caller_becomes_anything_but_an_id(text: str) -> None:
    found = trace_id_of(text)
    assert found == "" or (len(found) == 32 and set(found) <= set("0123456789abcdef"))
