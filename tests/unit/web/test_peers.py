"""A caller without a token is one client on both ports: its address is written as gRPC writes it."""

from __future__ import annotations

from typing import Any

import pytest

from patchserve_server.web.peers import Peer, address_text, certificate_name


@pytest.mark.parametrize(
    ("host", "text"),
    [
        ("127.0.0.1", "ipv4:127.0.0.1"),
        ("::1", "ipv6:%5B::1%5D"),
        ("2001:db8::7", "ipv6:%5B2001:db8::7%5D"),
        ("fe80::1%eth0", "ipv6:%5Bfe80::1%25eth0%5D"),
        ("::ffff:192.0.2.1", "ipv4:192.0.2.1"),  # a client of IPv4 on a socket of IPv6
    ],
)
def test_addresses_are_written_as_grpc_writes_them(host: str, text: str) -> None:
    assert address_text(host) == text


@pytest.mark.parametrize(
    ("subject", "name"),
    [
        ((), ""),
        (((("commonName", "camera-3"),),), "camera-3"),
        (((("countryName", "XX"),), (("commonName", "a"), ("commonName", "b"))), "ab"),
        (((("commonName", "line\nbreak é"),),), r"line\nbreak \xe9"),
        (((("commonName", "a" * 100),),), "a" * 64),
    ],
)
def test_the_name_of_a_certificate_is_printable(subject: Any, name: str) -> None:
    assert certificate_name({"subject": subject}) == name
    assert certificate_name(None) == ""


def test_a_certificate_names_the_client_and_else_its_address() -> None:
    assert Peer("ipv4:127.0.0.1", "", lambda: None).client == "peer ipv4:127.0.0.1"
    assert Peer("ipv4:127.0.0.1", "camera-3", lambda: None).client == "certificate camera-3"
