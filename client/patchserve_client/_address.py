"""The address of a server: what a caller may write, and what gRPC gets."""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass
from typing import Final

DEFAULT_PORT: Final = 50051
DEFAULT_SERVER: Final = f"localhost:{DEFAULT_PORT}"

_LARGEST_PORT = 65_535
_FORMS = "HOST, HOST:PORT, [IPV6]:PORT, dns:///HOST:PORT or unix:PATH"  # those for people; gRPC has a few more
# A name, an IPv4 address, or an IPv6 address in brackets; then perhaps a port.
_HOST_AND_PORT = re.compile(r"(?P<host>\[[^\[\]]+\]|[^\[\]:/@?#]+)(?::(?P<port>.*))?")


@dataclass(frozen=True, slots=True)
class Address:
    """A checked address. `target` is for gRPC; it has a port, or is a Unix socket."""

    target: str
    is_on_this_machine: bool
    names_several: bool = False  # servers that share the calls: a list, or a name that is looked up with `dns://`


def parsed(text: str) -> Address:
    """The address in `text`. Without a port it gets patchserve's; gRPC would use 443.

    Raises:
        ValueError: the text is not one of the supported forms.
    """
    if not text:
        raise _error(text, "is empty")
    if any(char.isspace() or not char.isprintable() for char in text):
        raise _error(text, "has a blank or a control character in it")
    scheme, _, rest = text.partition(":")
    if scheme in ("unix", "unix-abstract"):
        if not rest.removeprefix("//"):
            raise _error(text, "has no path")
        return Address(text, is_on_this_machine=True)
    if scheme in ("ipv4", "ipv6") and rest:  # a list of addresses
        endpoints = [_Endpoint.parsed(item, text) for item in rest.split(",")]
        target = f"{scheme}:{','.join(map(str, endpoints))}"
        return Address(target, all(one.is_on_this_machine for one in endpoints), names_several=len(endpoints) > 1)
    if scheme == "dns" and rest.startswith("//"):
        name_server, _, name = rest[2:].rpartition("/")
        endpoint = _Endpoint.parsed(name, text)
        is_on_this_machine = endpoint.is_on_this_machine and not name_server
        return Address(f"dns://{name_server}/{endpoint}", is_on_this_machine, names_several=True)
    if "://" in text:
        raise _error(text, "is a URL; leave the scheme and the path out")
    prefix = "dns:" if scheme == "dns" and rest else ""
    endpoint = _Endpoint.parsed(text.removeprefix(prefix), text)
    return Address(f"{prefix}{endpoint}", endpoint.is_on_this_machine)


@dataclass(frozen=True, slots=True)
class _Endpoint:
    host: str
    port: int

    @classmethod
    def parsed(cls, name: str, text: str) -> _Endpoint:
        """The host and port in `name`, a part of the address `text`."""
        if name.count(":") > 1 and not name.startswith("["):
            raise _error(text, "has several colons; an IPv6 address needs brackets")
        match = _HOST_AND_PORT.fullmatch(name)
        if match is None:
            raise _error(text, "is not a host and a port")
        host, port = match["host"], match["port"]
        if port is None:
            return cls(host, DEFAULT_PORT)
        if not (port.isascii() and port.isdigit() and 0 < int(port) <= _LARGEST_PORT):
            raise _error(text, f"has the port {port!r}; a port is a number from 1 to {_LARGEST_PORT}")
        return cls(host, int(port))

    def __str__(self) -> str:
        return f"{self.host}:{self.port}"

    @property
    def is_on_this_machine(self) -> bool:
        try:
            return self.host == "localhost" or ipaddress.ip_address(self.host.strip("[]")).is_loopback
        except ValueError:
            return False


def _error(text: str, problem: str) -> ValueError:
    return ValueError(f"The server's address {text!r} {problem}. Use {_FORMS}, such as {DEFAULT_SERVER}.")
