"""Which addresses other machines can reach."""

from __future__ import annotations

import pytest

from patchserve_server.rpc.transport import is_loopback


@pytest.mark.parametrize("host", ["127.0.0.1", "127.8.9.10", "localhost", "::1", "127.1"])
def test_loopback_addresses_are_recognized(host: str) -> None:
    assert is_loopback(host)


@pytest.mark.parametrize(
    "host", ["0.0.0.0", "0", "::", "", " ", "192.0.2.1", "fe80::1%lo", "no.such.host.invalid", "unix", "x" * 300, "\0"]
)
def test_other_addresses_count_as_reachable_by_others(host: str) -> None:
    assert not is_loopback(host)
