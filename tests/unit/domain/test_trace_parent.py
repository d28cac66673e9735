"""The trace that a caller names."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from patchserve_server.domain.trace_parent import is_recorded, trace_id_of

TRACE_ID = "0af7651916cd43dd8448eb211c80319c"
SPAN_ID = "b7ad6b7169203331"


@pytest.mark.parametrize(("flags", "recorded"), [("01", True), ("03", True), ("00", False), ("02", False)])
def test_a_trace_is_recorded_if_its_caller_says_so(flags: str, recorded: bool) -> None:
    trace_parent = f"00-{TRACE_ID}-{SPAN_ID}-{flags}"
    assert (trace_id_of(trace_parent), is_recorded(trace_parent)) == (TRACE_ID, recorded)


@pytest.mark.parametrize(
    "trace_parent",
    [
        "",
        f"00-{'0' * 32}-{SPAN_ID}-01",
        f"00-{TRACE_ID}-{'0' * 16}-01",
        f"ff-{TRACE_ID}-{SPAN_ID}-01",
        f"00-{TRACE_ID}-{SPAN_ID}",
        f"00-{TRACE_ID.upper()}-{SPAN_ID}-01",
        f"00-{TRACE_ID}\n-{SPAN_ID}-01",
    ],
)
def test_what_names_no_trace_has_none(trace_parent: str) -> None:
    assert (trace_id_of(trace_parent), is_recorded(trace_parent)) == ("", False)


@given(st.text())
def test_no_text_of_a_caller_becomes_anything_but_an_id(text: str) -> None:
    found = trace_id_of(text)
    assert found == "" or (len(found) == 32 and set(found) <= set("0123456789abcdef"))
