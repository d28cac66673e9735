"""Messages to receivers: order, retries, bounded memory."""

from __future__ import annotations

import threading
from collections import deque

import pytest
from fakes.waiting import wait_until
from hypothesis import given
from hypothesis import strategies as st

from patchserve_client.cli._delivery import Delivery, DeliveryError
from patchserve_client.cli._outbox import Message, Outbox


class Scripted:
    """A receiver that fails as it is told, and then takes everything."""

    kind, address = "webhook", "http://receiver"

    def __init__(self, *failures: DeliveryError | None) -> None:
        self.failures = deque(failures)
        self.taken: list[str] = []
        self.may_answer = threading.Event()
        self.may_answer.set()
        self.is_asked = threading.Event()

    def send(self, message: Message) -> None:
        self.is_asked.set()
        self.may_answer.wait(60)
        if self.failures and (failure := self.failures.popleft()) is not None:
            raise failure
        self.taken.append(message.message_id)

    def flush(self, timeout_s: float) -> int:
        return 0

    def close(self) -> None:
        self.may_answer.set()


def message(number: int, size: int = 2) -> Message:
    return Message(str(number), b"x" * size)


def test_a_message_is_tried_until_it_is_taken_and_the_order_stays() -> None:
    receiver, told = Scripted(*[DeliveryError("It is down.")] * 4), []
    with Delivery(receiver, lambda kind, text: told.append((kind, text)), jitter=lambda: 0.001) as delivery:
        for number in range(5):
            delivery.add(message(number))
    assert receiver.taken == ["0", "1", "2", "3", "4"]
    assert told == [
        ("webhook", "http://receiver: It is down. Trying again."),
        ("webhook", "http://receiver takes messages again."),
    ]


def started(delivery: Delivery) -> Delivery:
    return delivery.__enter__()


def end(delivery: Delivery) -> None:
    delivery.__exit__(None, None, None)


def test_a_message_that_is_rejected_is_given_up_and_the_next_one_sent() -> None:
    receiver, told = Scripted(*[DeliveryError("No.", is_final=True)] * 2), []
    delivery = started(Delivery(receiver, lambda kind, text: told.append(text)))
    for number in range(3):
        delivery.add(message(number))
    with pytest.raises(OSError, match=r"^2 messages did not reach http://receiver: 2 rejected\.$"):
        end(delivery)
    assert receiver.taken == ["2"]
    assert told == ["http://receiver rejects messages: No."]  # once


def test_if_the_receiver_is_away_the_oldest_messages_are_dropped_and_counted() -> None:
    receiver = Scripted()
    receiver.may_answer.clear()
    delivery = started(Delivery(receiver, lambda *_: None, outbox=Outbox(max_messages=2)))
    delivery.add(message(0))
    assert receiver.is_asked.wait(60)  # the first one is on its way
    for number in range(1, 10):
        delivery.add(message(number))
    receiver.may_answer.set()
    with pytest.raises(OSError, match=r"^7 messages did not reach http://receiver: 7 dropped for newer ones\.$"):
        end(delivery)
    assert receiver.taken == ["0", "8", "9"]


def test_the_end_waits_for_what_is_left_but_not_forever(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("patchserve_client.cli._delivery.END_TIMEOUT_S", 0.05)
    receiver = Scripted()
    receiver.may_answer.clear()
    delivery = started(Delivery(receiver, lambda *_: None))
    for number in range(3):
        delivery.add(message(number))
    assert receiver.is_asked.wait(60)
    with pytest.raises(OSError, match=r"^3 messages did not reach http://receiver: 3 not delivered at the end\.$"):
        end(delivery)


def test_after_an_error_of_the_stream_nothing_is_waited_for_and_the_error_stays() -> None:
    receiver = Scripted()
    receiver.may_answer.clear()
    delivery = started(Delivery(receiver, lambda *_: None))
    delivery.add(message(0))
    delivery.__exit__(KeyboardInterrupt, KeyboardInterrupt(), None)
    assert receiver.may_answer.is_set()  # it was closed at once


def test_nothing_is_told_after_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("patchserve_client.cli._delivery.END_TIMEOUT_S", 0.05)
    receiver, told = Scripted(DeliveryError("It is down.")), []
    receiver.may_answer.clear()
    delivery = started(Delivery(receiver, lambda kind, text: told.append(text)))
    delivery.add(message(0))
    assert receiver.is_asked.wait(60)
    with pytest.raises(OSError, match="1 message"):
        end(delivery)
    wait_until(lambda: not delivery._thread.is_alive())
    assert told == []


@given(st.lists(st.integers(0, 30), max_size=60), st.integers(1, 8), st.integers(30, 90))
def test_an_outbox_has_the_newest_messages_within_its_limits(sizes: list[int], most: int, most_bytes: int) -> None:
    outbox = Outbox(most, most_bytes)
    for number, size in enumerate(sizes):
        outbox.add(message(number, size))
    outbox.close()
    kept = []
    while (one := outbox.take()) is not None:
        kept.append(one)
    assert len(kept) <= most
    assert sum(len(one.body) for one in kept) <= most_bytes
    numbers = [int(one.message_id) for one in kept]
    assert numbers == list(range(len(sizes)))[len(sizes) - len(kept) :]  # the newest, in order
    assert outbox.dropped_count == len(sizes) - len(kept)
    if len(kept) < len(sizes):  # one more would not fit
        dropped = sizes[len(sizes) - len(kept) - 1]
        assert len(kept) == most or sum(len(one.body) for one in kept) + dropped > most_bytes
