"""Which addresses other machines can reach."""

from __future__ import annotations

import pytest

from patchserve_server.access.addresses import is_loopback, listening_address, private_socket_file
from patchserve_server.domain.errors import StartupError


@pytest.mark.parametrize(
    "host", ["127.0.0.1", "127.8.9.10", "localhost", "::1", "[::1]", "127.1", "unix:x", "unix:///x", "unix-abstract:x"]
)
def test_loopback_addresses_are_recognized(host: str) -> None:
    assert is_loopback(host)


@pytest.mark.parametrize(
    "host",
    [
        "0.0.0.0",
        "0",
        "::",
        "",
        " ",
        "192.0.2.1",
        "fe80::1%lo",
        "no.such.host.invalid",
        "unix",
        "[::]",
        "[::1",
        "x" * 300,
        "\0",
    ],
)
def test_other_addresses_count_as_reachable_by_others(host: str) -> None:
    assert not is_loopback(host)


@pytest.mark.parametrize(
    ("host", "address"),
    [
        ("127.0.0.1", "127.0.0.1:5"),
        ("localhost", "localhost:5"),
        ("::1", "[::1]:5"),
        ("[::1]", "[::1]:5"),
        ("unix:/a/b", "unix:/a/b"),
        ("unix-abstract:a", "unix-abstract:a"),
    ],
)
def test_an_ipv6_address_may_have_brackets_and_a_unix_socket_has_no_port(host: str, address: str) -> None:
    assert listening_address(host, 5) == address


@pytest.mark.parametrize("address", ["unix:", "unix://", "unix-abstract:a"])
def test_a_unix_socket_without_a_file_is_refused_because_it_has_no_permissions(address: str) -> None:
    with pytest.raises(StartupError, match="Every user of this machine"), private_socket_file(address):
        pass
