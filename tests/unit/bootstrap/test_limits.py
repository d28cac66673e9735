"""Limits that depend on several settings."""

from __future__ import annotations

from typing import Any

from patchserve_server.bootstrap.limits import open_admissions, server_limits
from patchserve_server.config import Settings
from patchserve_server.serving.application import ServerLimits

MIB = 2**20


def limits(**settings: Any) -> ServerLimits:
    chosen = Settings(**settings)
    return server_limits(chosen, open_admissions(chosen, events=None))


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
