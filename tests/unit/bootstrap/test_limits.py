"""Limits that depend on several settings."""

from __future__ import annotations

from typing import Any

import pytest

from patchserve_server.bootstrap.limits import batch_size, open_admissions, server_limits
from patchserve_server.config import Settings
from patchserve_server.domain.events import NOBODY
from patchserve_server.serving.application import ServerLimits

MIB = 2**20


def limits(**settings: Any) -> ServerLimits:
    chosen = Settings(**settings)
    return server_limits(chosen, open_admissions(chosen, NOBODY), max_batch_size=4)


def test_a_message_of_the_largest_size_is_always_admitted() -> None:
    found = limits(max_message_mib=64, max_pending_mib=1, client_share=0.1)
    assert found.max_message_bytes == found.max_pending_bytes == found.max_client_pending_bytes == 64 * MIB


def test_a_client_gets_its_share_of_every_limit_and_at_least_one_call() -> None:
    found = limits(max_pending_images=64, max_pending_mib=256, max_pending_loads=4, max_calls=512, client_share=0.25)
    assert (found.max_client_pending_images, found.max_client_pending_bytes) == (16, 64 * MIB)
    assert (found.max_client_pending_loads, found.max_client_calls) == (1, 128)
    smallest = limits(max_pending_images=2, max_pending_loads=1, max_calls=2, client_share=0.01)
    assert smallest.max_client_pending_images == smallest.max_client_pending_loads == smallest.max_client_calls == 1


def test_a_stream_does_not_get_more_frames_by_default_than_it_may_ask_for() -> None:
    assert limits(max_in_flight=4, default_in_flight=8).default_in_flight == 4


@pytest.mark.parametrize(
    ("threads", "device", "expected"), [(1, "cpu", 4), (2, "cpu", 4), (3, "cpu", 6), (64, "cpu", 8), (2, "cuda:0", 64)]
)
def test_a_batch_on_a_cpu_is_as_large_as_its_threads_can_use(threads: int, device: str, expected: int) -> None:
    assert batch_size(Settings(threads=threads), device) == expected


def test_the_largest_batch_can_be_set() -> None:
    assert batch_size(Settings(max_batch_size=3), "cpu") == 3
