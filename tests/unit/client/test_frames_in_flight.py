"""Frames of a live source are taken only when the server has a place for them."""

from __future__ import annotations

import threading
from collections.abc import Iterator

from hypothesis import given, settings
from hypothesis import strategies as st

from patchserve_client import Frame
from patchserve_client.cli._frames_in_flight import FramesInFlight


def numbered(count: int, taken: list[int]) -> Iterator[Frame]:
    for number in range(count):
        taken.append(number)
        yield Frame(str(number).encode(), str(number))


@settings(deadline=None)
@given(st.integers(1, 5), st.integers(0, 20), st.data())
def test_no_more_frames_are_taken_than_there_are_places(max_count: int, count: int, data: st.DataObject) -> None:
    taken: list[int] = []
    frames = FramesInFlight(numbered(count, taken), max_count, threading.Event(), keeps_images=True)
    sending, sent, answered = iter(frames), 0, 0
    while answered < count:
        can_send = sent - answered < max_count and sent < count
        if can_send and (sent == answered or data.draw(st.booleans())):
            assert next(sending).frame_id == str(sent)
            sent += 1
        else:
            assert frames.answered(answered) == str(answered).encode()
            answered += 1
        assert len(taken) == sent
    assert next(sending, None) is None


def test_ctrl_c_ends_the_wait_for_a_place() -> None:
    end = threading.Event()
    sending = iter(FramesInFlight(numbered(9, []), 1, end, keeps_images=False))
    next(sending)
    end.set()
    assert next(sending, None) is None


def test_images_are_kept_only_if_they_are_needed() -> None:
    frames = FramesInFlight(numbered(2, []), None, threading.Event(), keeps_images=False)
    assert len(list(frames)) == 2
    assert frames.answered(0) is None
