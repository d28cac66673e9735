"""Each call ends with one log line and, if it fails, with a status."""

from __future__ import annotations

import asyncio
import gc
import logging
import time
import weakref
from collections.abc import Sequence
from typing import Any, NamedTuple

import grpc
import pytest
from fakes.waiting import until
from grpc import aio

from patchserve_server.contract.methods import Method
from patchserve_server.domain.call_events import CALL_LOG, OK_LOG, CallEnd, CallInfo, current_call
from patchserve_server.domain.callers import Scope
from patchserve_server.domain.errors import QueueFullError, ReferenceNotFoundError, UnauthenticatedError
from patchserve_server.domain.events import NOBODY, Events
from patchserve_server.rpc.calls import Endings, IncomingCall
from patchserve_server.serving.entrance import Entrance
from patchserve_server.serving.failure_log import FailureLog
from patchserve_server.serving.readiness import Readiness
from patchserve_server.serving.reception import Reception
from patchserve_server.serving.refusal_pacing import RefusalPacing

METHOD = "/patchserve.v1.PatchCoreService/Infer"
INFER, PROBE, AUDITED = Method(Scope.INFER), Method("open", always_answered=True), Method("any", is_audited=True)


class SentStatus(NamedTuple):
    """The status of a call, as its caller gets it."""

    code: grpc.StatusCode
    details: str
    trailing_metadata: tuple[tuple[str, str | bytes], ...]


class FakeContext:
    """A call from 10.0.0.1, with or without a client certificate; keeps the status that is sent, as gRPC does."""

    def __init__(
        self, certificate: bytes = b"", *, has_left: bool = False, metadata: Sequence[tuple[str, str]] = ()
    ) -> None:
        self._certificate = certificate
        self._metadata = metadata
        self._has_left = has_left
        self.status: Any = None
        self.raised: aio.AbortError | None = None

    def peer(self) -> str:
        return "ipv4:10.0.0.1:5000"

    def auth_context(self) -> dict[str, list[bytes]]:
        return {"x509_common_name": [self._certificate]} if self._certificate else {}

    def invocation_metadata(self) -> Sequence[tuple[str, str]]:
        return self._metadata

    def time_remaining(self) -> float | None:
        return None

    async def abort(self, code: grpc.StatusCode, details: str, trailing_metadata: Any) -> None:
        if self._has_left:
            raise aio.InternalError
        self.status = SentStatus(code, details, trailing_metadata)
        self.raised = aio.AbortError()
        raise self.raised


def entrance(pacing: RefusalPacing | None = None, events: Events = NOBODY) -> Entrance:
    return Entrance(Readiness(), Reception(8), pacing or RefusalPacing(0), FailureLog(), events)


def incoming(context: FakeContext, method: Method = INFER, *, events: Events = NOBODY) -> IncomingCall:
    call: Any = context
    return IncomingCall(METHOD, call, Endings(entrance(events=events), 60, has_tls=True), method)


async def succeed() -> None:
    pass


async def fail(error: Exception) -> None:
    raise error


def test_a_client_is_identified_by_token_else_certificate_else_address() -> None:
    assert incoming(FakeContext()).client == "peer ipv4:10.0.0.1"
    call = incoming(FakeContext(b"camera-3"))
    assert call.client == "certificate camera-3"
    call.token_name = "robot"
    assert call.client == "token robot"


def test_a_certificates_name_is_short_printable_ascii() -> None:
    assert incoming(FakeContext(b"a\n\x1b[2J\xff")).client == r"certificate a\n\x1b[2J\ufffd"
    assert len(incoming(FakeContext(b"a" * 1000)).client) == len("certificate ") + 64


@pytest.mark.parametrize(
    ("method", "logger", "level"),
    [(INFER, OK_LOG, logging.INFO), (PROBE, OK_LOG, logging.DEBUG), (AUDITED, CALL_LOG, logging.INFO)],
    ids=["usual", "probe", "audited"],
)
async def test_a_call_that_succeeds_has_a_line_at_a_level_that_fits(
    method: Method, logger: str, level: int, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    await incoming(FakeContext(), method).run(succeed())
    (record,) = caplog.records
    assert (record.name, record.levelno, record.getMessage()) == (logger, level, "Infer OK")
    assert {"code": "OK"}.items() <= record.__dict__.items()
    assert record.__dict__["duration_ms"] >= 0


async def test_what_runs_in_a_call_knows_the_call_and_its_trace() -> None:
    seen: list[CallInfo | None] = []

    async def work() -> None:
        seen.append(current_call.get())

    trace_parent = f"00-{'ab' * 16}-{'cd' * 8}-01"
    call = incoming(FakeContext(metadata=[("traceparent", trace_parent)]))
    await asyncio.create_task(call.run(work()))
    assert seen == [call]
    assert call.trace_parent == trace_parent
    assert current_call.get() is None


@pytest.mark.parametrize(
    ("error", "level"), [(ReferenceNotFoundError("box"), logging.INFO), (QueueFullError("full", 0.5), logging.DEBUG)]
)
async def test_an_error_is_sent_as_a_status_and_logged(
    error: Exception, level: int, caplog: pytest.LogCaptureFixture
) -> None:
    """Rejections are at debug level, because admission logs their sum."""
    caplog.set_level(logging.DEBUG)
    context = FakeContext()
    await incoming(context).run(fail(error))
    assert context.status.details == str(error)
    assert [record.levelno for record in caplog.records] == [level]
    assert caplog.records[0].getMessage().endswith(f": {error}")


@pytest.mark.parametrize(
    ("error", "milliseconds"), [(QueueFullError("full", 0.5), "500"), (ReferenceNotFoundError("box"), None)]
)
async def test_a_delay_is_also_sent_as_retries_of_grpc_read_it(error: Exception, milliseconds: str | None) -> None:
    context = FakeContext()
    await incoming(context).run(fail(error))
    trailing = dict(context.status.trailing_metadata)
    assert trailing.pop("grpc-retry-pushback-ms", None) == milliseconds
    assert list(trailing) == ["grpc-status-details-bin"]


async def test_an_error_whose_caller_has_left_goes_nowhere(caplog: pytest.LogCaptureFixture) -> None:
    await incoming(FakeContext(has_left=True)).run(fail(ReferenceNotFoundError("box")))
    assert [record.levelno for record in caplog.records if record.levelno > logging.INFO] == []


async def test_a_refusal_waits_for_its_turn_and_leaves_with_its_caller() -> None:
    pacing, context = RefusalPacing(max_delayed=1), FakeContext()
    pacing.take_turn("peer ipv4:10.0.0.1", time.monotonic() + 3600)  # so many refusals that the next one waits
    call: Any = context
    refused = IncomingCall(METHOD, call, Endings(entrance(pacing), 60, has_tls=True), INFER)
    task = asyncio.create_task(refused.run(fail(UnauthenticatedError())))
    await until(lambda: pacing.delayed == 1)
    assert context.status is None
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert pacing.delayed == 0


async def test_a_refusal_that_waits_holds_nothing() -> None:
    """Otherwise two callers that try again at once would take all places of --max-calls."""
    pacing, released = RefusalPacing(max_delayed=1), asyncio.Event()
    pacing.take_turn("peer ipv4:10.0.0.1", time.monotonic() + 3600)
    call: Any = FakeContext()
    refused = IncomingCall(METHOD, call, Endings(entrance(pacing), 60, has_tls=True), INFER)
    refused.until_answered.callback(released.set)
    task = asyncio.create_task(refused.run(fail(QueueFullError("full", 0.5))))
    await until(lambda: pacing.delayed == 1)
    assert released.is_set()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_other_failures_hold_their_place_until_the_status_is_sent() -> None:
    context, released = FakeContext(), asyncio.Event()
    call = incoming(context)
    call.until_answered.callback(lambda: released.set() if context.status is not None else None)
    await call.run(fail(ReferenceNotFoundError("box")))
    assert released.is_set()


async def test_a_bug_is_sent_without_details_and_with_the_request_id() -> None:
    context = FakeContext()
    call = incoming(context)
    await call.run(fail(ValueError("secret")))
    assert call.request_id in context.status.details
    assert "secret" not in str(context.status)


async def test_a_cancelled_call_sends_no_status(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    context = FakeContext()
    task = asyncio.create_task(incoming(context).run(asyncio.sleep(3600)))
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert context.status is None
    assert len(caplog.records) == 1


async def test_a_failed_call_that_grpc_keeps_does_not_keep_its_arguments_in_memory() -> None:
    class Bank:
        pass

    async def fail_with_a_bank(bank: Bank) -> None:
        raise ReferenceNotFoundError(f"{bank}")

    context, bank = FakeContext(), Bank()
    bank_reference = weakref.ref(bank)
    work = fail_with_a_bank(bank)
    del bank
    gc.disable()  # it would hide a reference cycle
    try:
        await incoming(context).run(work)
        del work
        assert context.raised is not None
        assert context.raised.__traceback__ is None, "it would refer to the call"
        assert bank_reference() is None
    finally:
        gc.enable()


class Heard(Events):
    """Remembers calls that began, and the ends of calls that ended."""

    def __init__(self) -> None:
        self.began: list[CallInfo] = []
        self.ended: list[tuple[CallInfo, CallEnd]] = []

    def call_began(self, call: CallInfo) -> None:
        self.began.append(call)

    def call_ended(self, call: CallInfo, end: CallEnd) -> None:
        self.ended.append((call, end))


@pytest.mark.parametrize(
    ("error", "code", "reason"),
    [
        (None, "OK", ""),
        (ReferenceNotFoundError("box"), "NOT_FOUND", "REFERENCE_NOT_FOUND"),
        (QueueFullError("full", 0.5), "RESOURCE_EXHAUSTED", "QUEUE_FULL"),
        (ValueError("a bug"), "INTERNAL", "INTERNAL"),
    ],
)
async def test_a_call_is_told_at_its_begin_and_once_at_its_end(error: Exception | None, code: str, reason: str) -> None:
    heard = Heard()
    call = incoming(FakeContext(), events=heard)
    await asyncio.create_task(call.run(succeed() if error is None else fail(error)))
    assert heard.began == [call]
    [(ended, end)] = heard.ended
    assert ended is call
    assert (end.code, end.reason) == (code, reason)
    assert (call.service, call.method_name) == ("patchserve.v1.PatchCoreService", "Infer")


@pytest.mark.parametrize(
    ("remaining_s", "code"), [(None, "CANCELLED"), (5.0, "CANCELLED"), (-0.01, "DEADLINE_EXCEEDED")]
)
async def test_a_cancelled_call_was_left_by_its_caller_unless_its_deadline_is_over(
    remaining_s: float | None, code: str
) -> None:
    heard, context = Heard(), FakeContext()
    context.time_remaining = lambda: remaining_s  # type: ignore[method-assign]
    call = incoming(context, events=heard)
    running = asyncio.create_task(call.run(asyncio.Event().wait()))  # type: ignore[arg-type] # what it returns is ignored
    await until(lambda: bool(heard.began))
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    [(_, end)] = heard.ended
    assert (end.code, end.reason) == (code, "")


async def test_what_runs_for_a_call_knows_it() -> None:
    seen: list[CallInfo | None] = []

    async def look() -> None:
        seen.append(current_call.get())
        await asyncio.create_task(look_on())

    async def look_on() -> None:
        seen.append(current_call.get())

    for call in (incoming(FakeContext(), events=Heard()), incoming(FakeContext())):
        await asyncio.create_task(call.run(look()))
        assert seen == [call, call]
        seen.clear()
    assert current_call.get() is None
