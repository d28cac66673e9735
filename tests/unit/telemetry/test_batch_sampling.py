"""A batch is recorded if one of its images is."""

from __future__ import annotations

import pytest
from opentelemetry.context import Context
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF, ALWAYS_ON, Sampler
from opentelemetry.trace import Link, SpanContext, TraceFlags

from patchserve_server.telemetry.batch_sampling import LinkedSampler


def link(*, sampled: bool) -> Link:
    return Link(SpanContext(1, 2, is_remote=False, trace_flags=TraceFlags(int(sampled))))


@pytest.mark.parametrize("others", [ALWAYS_ON, ALWAYS_OFF], ids=["on", "off"])
def test_links_decide_for_a_span_that_has_some_and_the_other_sampler_for_all_others(others: Sampler) -> None:
    tracer = TracerProvider(LinkedSampler(others), shutdown_on_exit=False).get_tracer("test")

    def is_recorded(*links: Link) -> bool:
        return tracer.start_span("batch", Context(), links=links).is_recording()

    assert is_recorded(link(sampled=False), link(sampled=True))
    assert not is_recorded(link(sampled=False), link(sampled=False))
    assert is_recorded() == (others is ALWAYS_ON)
