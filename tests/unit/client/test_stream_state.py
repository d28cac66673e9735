"""The decisions of a stream, one call after the other: no threads, no sockets, no real clock."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from patchserve.v1.stream_pb2 import Frame, InferStreamRequest, InferStreamResponse, StreamConfig, StreamReady
from patchserve_client import (
    FailedPrecondition,
    FrameResult,
    Internal,
    NoticeKind,
    PatchserveError,
    StreamNotice,
    Unauthenticated,
    Unavailable,
)
from patchserve_client._backoff import Backoff
from patchserve_client._errors import ErrorDetails
from patchserve_client._own_changes import OwnChanges
from patchserve_client._stream_state import StreamState

CONFIG = InferStreamRequest(config=StreamConfig(reference_id="belt"))
READY = InferStreamResponse(ready=StreamReady())
LOST = Unavailable("The connection is lost.")


def new_state(resume_for_s: float = 60.0) -> StreamState:
    return StreamState(CONFIG, Backoff(resume_for_s), OwnChanges())


def frame(number: int) -> InferStreamRequest:
    return InferStreamRequest(frame=Frame(frame_id=str(number)))


def result(frame_id: object, sequence: int) -> InferStreamResponse:
    message = InferStreamResponse()
    message.result.frame_id, message.result.sequence = str(frame_id), sequence
    return message


def sent(state: StreamState, connection: int) -> list[str]:
    """What the connection sends now: "config", or the ids of frames."""
    requests = state.requests(connection)
    return ["config" if request.HasField("config") else request.frame.frame_id for request in requests]


def received(state: StreamState, frame_id: object, sequence: int) -> tuple[str, int]:
    event = state.receive(result(frame_id, sequence))
    assert isinstance(event, FrameResult)
    return event.frame_id, event.sequence


def test_a_new_stream_connects_at_once_and_sends_its_config_first() -> None:
    state = new_state()
    assert state.connect_after_s == 0
    assert not state.is_connected
    connection = state.connect()
    assert state.is_connected
    state.add_frame(frame(0))
    assert sent(state, connection) == ["config", "0"]


def test_a_frame_is_needed_only_when_nothing_waits_to_be_sent() -> None:
    state = new_state()
    connection = state.connect()
    assert state.needs_frame(connection)
    state.add_frame(frame(0))
    assert not state.needs_frame(connection)
    sent(state, connection)
    assert state.needs_frame(connection)
    state.end_frames()
    assert not state.needs_frame(connection)


def test_sending_ends_after_the_last_frame_but_the_config_is_always_sent() -> None:
    state = new_state()
    state.end_frames()
    connection = state.connect()
    assert state.is_sending(connection)
    assert sent(state, connection) == ["config"]
    assert not state.is_sending(connection)


def test_the_stream_ends_when_the_server_ends_it() -> None:
    state = new_state()
    state.connect()
    assert state.receive(None) is None
    assert not state.is_connected
    assert state.connect_after_s is None


def test_messages_become_results_notices_or_nothing() -> None:
    state = new_state()
    state.connect()
    notice = InferStreamResponse()
    notice.notice.kind, notice.notice.message = 1, "Shutting down."  # type: ignore[assignment]
    assert state.receive(READY) is None
    assert state.receive(notice) == StreamNotice(NoticeKind.DRAINING, "Shutting down.")
    assert received(state, "a", 0) == ("a", 0)


def test_frames_without_a_result_are_sent_again_in_order_and_keep_their_place() -> None:
    state = new_state()
    first = state.connect()
    for number in range(4):
        state.add_frame(frame(number))
    assert sent(state, first) == ["config", "0", "1", "2", "3"]
    assert received(state, 1, 1) == ("1", 1)
    state.lose(LOST)
    assert not state.is_connected
    second = state.connect()
    state.add_frame(frame(4))
    assert sent(state, second) == ["config", "0", "2", "3", "4"]
    assert received(state, 3, 2) == ("3", 3), "the server counts the frames of one connection, the caller of the stream"
    state.lose(LOST)
    assert sent(state, state.connect()) == ["config", "0", "2", "4"]


def test_an_earlier_connection_sends_nothing_more() -> None:
    state = new_state()
    first = state.connect()
    assert sent(state, first) == ["config"]
    state.lose(LOST)
    second = state.connect()
    state.add_frame(frame(0))  # drawn for the first connection
    assert not state.is_sending(first)
    assert not state.needs_frame(first)
    assert sent(state, first) == []
    assert sent(state, second) == ["config", "0"]


def test_a_connection_that_is_lost_after_the_last_result_ends_the_stream() -> None:
    state = new_state()
    connection = state.connect()
    state.add_frame(frame(0))
    sent(state, connection)
    state.end_frames()
    received(state, 0, 0)
    state.lose(LOST)
    assert state.connect_after_s is None


@pytest.mark.parametrize("error", [LOST, Internal("A bug.", ErrorDetails(reason="INTERNAL"))])
def test_without_reconnecting_every_error_ends_the_stream_and_no_frame_is_held(error: PatchserveError) -> None:
    state = new_state(resume_for_s=0)
    connection = state.connect()
    state.add_frame(frame(0))
    assert sent(state, connection) == ["config", "0"]
    assert not state._unanswered
    with pytest.raises(type(error)) as caught:
        state.lose(error)
    assert caught.value is error
    assert (state.is_connected, state.connect_after_s) == (False, None)


def test_an_error_of_the_callers_frames_is_raised_after_the_results() -> None:
    state = new_state()
    connection = state.connect()
    state.add_frame(frame(0))
    state.end_frames(LookupError("the camera was unplugged"))
    assert sent(state, connection) == ["config", "0"]
    assert received(state, 0, 0) == ("0", 0)
    with pytest.raises(LookupError, match="unplugged"):
        state.receive(None)
    assert state.connect_after_s is None


@pytest.mark.parametrize("resume_for_s", [0.0, 60.0])
def test_an_error_of_the_callers_frames_comes_before_an_error_of_the_connection(resume_for_s: float) -> None:
    state = new_state(resume_for_s)
    state.connect()
    state.end_frames(LookupError("the camera was unplugged"))
    with pytest.raises(LookupError, match="unplugged"):
        state.lose(LOST)
    assert state.connect_after_s is None


class Clock:
    def __init__(self) -> None:
        self.now_s = 100.0

    def __call__(self) -> float:
        return self.now_s


def test_delays_grow_and_end_when_the_time_is_over() -> None:
    clock = Clock()
    backoff = Backoff(10, clock)
    first_s = backoff.delay_s(LOST)
    assert first_s is not None
    assert 0.05 < first_s < 0.2
    delays_s = [backoff.delay_s(LOST) or 99 for _ in range(20)]
    assert 1 < max(delays_s) <= 2.5
    clock.now_s = 109.9
    assert (backoff.delay_s(LOST) or 99) <= 0.1 + 1e-9
    clock.now_s = 110.0
    assert backoff.delay_s(LOST) is None
    backoff.reset()
    assert (backoff.delay_s(LOST) or 99) < 0.2
    assert (backoff.delay_s(Unavailable("Soon.", ErrorDetails(retry_after_s=4))) or 0) >= 3


def test_a_result_starts_the_time_again_and_ready_does_so_only_when_nothing_is_sent_again() -> None:
    clock = Clock()
    state = StreamState(CONFIG, Backoff(10, clock), OwnChanges())
    connection = state.connect()
    for number in range(2):
        state.add_frame(frame(number))
    sent(state, connection)
    state.lose(LOST)
    sent(state, state.connect())
    clock.now_s += 9
    state.receive(READY)
    state.lose(LOST)
    assert 0 < (state.connect_after_s or 0) <= 1.01, "one second of ten is left"
    sent(state, state.connect())
    received(state, 0, 0)
    clock.now_s += 9
    state.lose(LOST)
    sent(state, state.connect())
    received(state, 1, 0)
    clock.now_s += 100
    state.receive(READY)
    state.lose(LOST)
    assert state.connect_after_s is not None


def test_an_expired_token_gets_one_more_connection() -> None:
    expired = Unauthenticated("Expired.", ErrorDetails(reason="CREDENTIALS_EXPIRED"))
    backoff = Backoff(60)
    assert backoff.delay_s(expired) is not None
    assert backoff.delay_s(expired) is None


@pytest.mark.parametrize("resume_for_s", [-1.0, float("nan")])
def test_a_time_below_zero_is_rejected(resume_for_s: float) -> None:
    with pytest.raises(ValueError, match="resume_for_s must be 0 or more"):
        Backoff(resume_for_s)


@settings(deadline=None)
@given(st.lists(st.tuples(st.sampled_from(["draw", "send", "answer", "lose"]), st.integers(0, 9)), max_size=60))
def test_each_frame_has_exactly_one_result_in_every_order_of_events(events: list[tuple[str, int]]) -> None:
    state = new_state()
    connection = state.connect()
    pending = state.requests(connection)
    drawn = sequence = 0
    waiting: list[tuple[str, int]] = []  # frames on the server: id, sequence
    results: list[tuple[str, int]] = []
    for event, number in [*events, ("lose", 0)]:
        if event == "draw":
            state.add_frame(frame(drawn))
            drawn += 1
        elif event == "send":
            request = next(pending, None)
            pending = state.requests(connection)
            if request is not None and request.HasField("frame"):
                waiting.append((request.frame.frame_id, sequence))
                sequence += 1
        elif event == "answer" and waiting:
            results.append(received(state, *waiting.pop(number % len(waiting))))
        elif event == "lose":
            state.lose(LOST)
            connection = state.connect()
            pending = state.requests(connection)
            waiting, sequence = [], 0
    state.end_frames()
    _, *ids = sent(state, connection)
    results += [received(state, frame_id, sequence) for sequence, frame_id in enumerate(ids)]
    assert not state.is_sending(connection)
    assert sorted(results, key=lambda one: one[1]) == [(str(number), number) for number in range(drawn)]


def test_a_loss_and_its_end_are_told_once_each() -> None:
    state = new_state()
    connection = state.connect()
    state.add_frame(frame(0))
    sent(state, connection)
    assert state.receive(READY) is None
    lost = state.lose(LOST)
    assert lost == StreamNotice(
        NoticeKind.RECONNECTING, "The stream lost its server, reconnecting: The connection is lost."
    )
    for _ in range(3):
        state.connect()
        assert state.lose(LOST) is None
    sent(state, state.connect())
    resumed = state.receive(READY)
    assert isinstance(resumed, StreamNotice)
    assert resumed.kind is NoticeKind.RESUMED
    assert resumed.message.endswith("1 frame without a result will be sent again.")
    assert state.receive(READY) is None
    received(state, 0, 0)
    lost_again = state.lose(LOST)
    assert isinstance(lost_again, StreamNotice)
    assert lost_again.kind is NoticeKind.RECONNECTING


def test_the_loss_that_ends_a_stream_is_an_error_and_no_notice() -> None:
    state = new_state(resume_for_s=0)
    state.connect()
    with pytest.raises(Unavailable):
        state.lose(LOST)
    finished = new_state()
    finished.connect()
    finished.end_frames()
    assert finished.lose(LOST) is None
    assert finished.connect_after_s is None


def test_a_stream_is_silent_while_its_reader_waits_for_something_that_the_server_has_to_send(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    now_s = 100.0
    monkeypatch.setattr("time.monotonic", lambda: now_s)
    state = new_state()
    connection = state.connect()
    with state.reading():
        now_s += 5
        assert state.silent_for_s() == 0, "nothing is sent yet"
        sent(state, connection)
        now_s += 5
        assert state.silent_for_s() == 5, "the server has to send `ready`"
        state.receive(READY)
        now_s += 5
        assert state.silent_for_s() == 0, "the camera is slow"
        for number in range(2):
            state.add_frame(frame(number))
        sent(state, connection)
        now_s += 5
        assert state.silent_for_s() == 5
        state.receive(result(0, 0))
        now_s += 3
        assert state.silent_for_s() == 3, "one frame has no result"
    now_s += 5
    assert state.silent_for_s() == 0, "the caller is slow"
    with state.reading():
        now_s += 2
        assert state.silent_for_s() == 2
        state.receive(result(1, 1))
        assert state.silent_for_s() == 0
        connection = state.connect()
        now_s += 5
        assert state.silent_for_s() == 0, "another connection"


def test_a_connection_that_asked_for_a_wrong_revision_takes_no_more_frames() -> None:
    own = OwnChanges()
    own.note(CONFIG.config.reference_id or "default", "a" * 64)
    state = StreamState(CONFIG, Backoff(0), own)
    first = state.connect()
    state.add_frame(InferStreamRequest())
    assert len(list(state.requests(first))) == 2
    details = ErrorDetails(reason="REVISION_MISMATCH")
    assert state.lose(FailedPrecondition("It has another revision.", details)) is None
    state.add_frame(InferStreamRequest())
    assert not list(state.requests(first))  # its thread may still run
    assert len(list(state.requests(state.connect()))) == 3
