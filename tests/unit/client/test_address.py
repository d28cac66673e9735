"""The address of a server: every form, with and without a port."""

from __future__ import annotations

import contextlib

import pytest
from fakes.either_client import CallMethod
from fakes.fake_server import FakeServer
from hypothesis import given
from hypothesis import strategies as st

from patchserve_client import Client, Health
from patchserve_client._address import DEFAULT_PORT, parsed


@pytest.mark.parametrize(
    ("text", "target", "is_here"),
    [
        ("localhost", "localhost:50051", True),
        ("localhost:1", "localhost:1", True),
        ("127.0.0.1", "127.0.0.1:50051", True),
        ("127.9.9.9:1", "127.9.9.9:1", True),
        ("[::1]", "[::1]:50051", True),
        ("[::1]:1", "[::1]:1", True),
        ("[2001:db8::1]", "[2001:db8::1]:50051", False),
        ("[fe80::1%eth0]:1", "[fe80::1%eth0]:1", False),
        ("inspect.example", "inspect.example:50051", False),
        ("my_service:65535", "my_service:65535", False),
        ("localhost.example:1", "localhost.example:1", False),
        ("dns:localhost", "dns:localhost:50051", True),
        ("dns:localhost:1", "dns:localhost:1", True),
        ("dns:///inspect.example", "dns:///inspect.example:50051", False),
        ("dns:///localhost:1", "dns:///localhost:1", True),
        ("dns://ns.example/localhost", "dns://ns.example/localhost:50051", False),  # what another machine says
        ("ipv4:127.0.0.1", "ipv4:127.0.0.1:50051", True),
        ("ipv4:127.0.0.1:1,192.0.2.1", "ipv4:127.0.0.1:1,192.0.2.1:50051", False),
        ("ipv6:[::1]", "ipv6:[::1]:50051", True),
        ("unix:/run/patchserve.sock", "unix:/run/patchserve.sock", True),
        ("unix:patchserve.sock", "unix:patchserve.sock", True),
        ("unix:///run/patchserve.sock", "unix:///run/patchserve.sock", True),
        ("unix-abstract:patchserve", "unix-abstract:patchserve", True),
    ],
)
def test_an_address_gets_our_port_and_not_that_of_https(text: str, target: str, *, is_here: bool) -> None:
    address = parsed(text)
    assert (address.target, address.is_on_this_machine) == (target, is_here)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "is empty"),
        (" ", "blank"),
        ("localhost :50051", "blank"),
        ("localhost: 50051", "blank"),
        ("localhost:50051\n", "blank"),
        ("local\x1bhost", "control character"),
        ("http://localhost:50051", "URL"),
        ("https://inspect.example", "URL"),
        ("grpc://inspect.example:1/path", "URL"),
        ("localhost:", "port"),
        ("localhost:grpc", "port"),
        ("localhost:0", "port"),
        ("localhost:65536", "port"),
        ("localhost:-1", "port"),
        ("localhost:\u0665", "port"),
        ("localhost:50051/", "port"),
        ("::1", "brackets"),
        ("2001:db8::1:50051", "brackets"),
        ("ipv6:::1", "brackets"),
        (":50051", "host"),
        ("[::1", "host"),
        ("user@localhost:1", "host"),
        ("dns:", "port"),
        ("dns:///", "host"),
        ("unix:", "path"),
        ("unix://", "path"),
    ],
)
def test_another_form_is_rejected_with_what_is_wrong_and_what_is_allowed(text: str, says: str) -> None:
    with pytest.raises(ValueError, match=says) as caught:
        parsed(text)
    assert "Use HOST, HOST:PORT" in str(caught.value)
    with pytest.raises(ValueError, match=says):
        Client(text)


NAMES = st.from_regex(r"[a-z0-9_]([a-z0-9_.-]{0,20}[a-z0-9])?", fullmatch=True)
HOSTS = st.one_of(NAMES, st.ip_addresses(v=4).map(str), st.ip_addresses(v=6).map(lambda address: f"[{address}]"))


@given(HOSTS, st.none() | st.integers(1, 65535))
def test_every_host_keeps_its_port_or_gets_the_default(host: str, port: int | None) -> None:
    address = parsed(host if port is None else f"{host}:{port}")
    assert address.target == f"{host}:{port or DEFAULT_PORT}"
    assert parsed(address.target) == address


@given(st.text())
def test_any_text_is_an_address_with_a_port_or_a_sentence(text: str) -> None:
    with contextlib.suppress(ValueError):  # its text is tested above
        address = parsed(text)
        is_socket = address.target.startswith("unix")
        assert is_socket or 1 <= int(address.target.rpartition(":")[2]) <= 65535


def test_the_forms_of_grpc_reach_a_server(fake: FakeServer, call: CallMethod) -> None:
    for form in ("{}", "dns:{}", "dns:///{}", "ipv4:{}"):
        assert call(form.format(fake.address), "health") == Health(alive=True, ready=True)
