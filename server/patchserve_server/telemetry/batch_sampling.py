"""Which spans are recorded: as the SDK's sampler says, and those of batches as their images are."""

from __future__ import annotations

from collections.abc import Sequence

from opentelemetry.context import Context
from opentelemetry.sdk.trace.sampling import Decision, Sampler, SamplingResult
from opentelemetry.trace import Link, SpanKind, TraceState
from opentelemetry.util.types import Attributes


class LinkedSampler(Sampler):
    """Records a span that has links and no parent if what it is linked with is recorded.

    Such a span is the root of its own trace. By itself, a sampler that records a share of all traces would record
    others than those of its images.
    """

    def __init__(self, others: Sampler) -> None:
        self._others = others

    def should_sample(  # noqa: PLR0917 - the SDK names them
        self,
        parent_context: Context | None,
        trace_id: int,
        name: str,
        kind: SpanKind | None = None,
        attributes: Attributes = None,
        links: Sequence[Link] | None = None,
        trace_state: TraceState | None = None,
    ) -> SamplingResult:
        if not links:
            return self._others.should_sample(parent_context, trace_id, name, kind, attributes, links, trace_state)
        is_recorded = any(link.context.trace_flags.sampled for link in links)
        return SamplingResult(Decision.RECORD_AND_SAMPLE if is_recorded else Decision.DROP, attributes)

    def get_description(self) -> str:
        return f"LinkedSampler({self._others.get_description()})"
