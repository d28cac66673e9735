"""Which sites may make a browser send requests to this server: its own page, and the origins that a setting lists.

A browser sends requests of any site that its user visits, also to a server that only this machine or its network can
reach. Requests of other programs have neither `Sec-Fetch-Site` nor `Origin`; they pass.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import Final
from urllib.parse import urlsplit

from starlette.requests import HTTPConnection
from starlette.types import ASGIApp, Receive, Scope, Send

from patchserve_server.contract.status import status_of
from patchserve_server.domain.http_errors import OtherSiteError, UnknownHostError
from patchserve_server.serving.failure_log import FailureLog
from patchserve_server.web.errors import ErrorFormat
from patchserve_server.web.peers import peer_of

_SAFE_METHODS: Final = ("GET", "HEAD", "OPTIONS")
_HOST: Final = re.compile(r"(\[(?P<address>[0-9A-Fa-f:.]+)\]|(?P<name>[A-Za-z0-9._-]+))(:(?P<port>[0-9]{0,5}))?")
_MAX_PORT: Final = 65535
_OWN_SITES: Final = ("same-origin", "none")  # none: a person entered the address


def is_own_request(request: HTTPConnection) -> bool:
    """Whether a request comes from our own page or from no page at all."""
    site = request.headers.get("sec-fetch-site")
    if site is not None:
        return site in _OWN_SITES
    origin = request.headers.get("origin")
    return origin is None or _host_of(origin) == request.headers.get("host", "").lower()


@dataclass(frozen=True, slots=True)
class SiteRules:
    """Which hosts and origins may be in a request.

    Args:
        hosts: names of this server, without ports; None: any. IP addresses are always allowed: a site that makes its
            own name point to this server (DNS rebinding) needs a name.
        origins: of other sites that may use this server, such as `https://line.example.com`.
    """

    hosts: Collection[str] | None
    origins: Collection[str]

    def check(self, request: HTTPConnection) -> None:
        """Passes a request of our own page, of an allowed site, or of no site.

        Raises:
            UnknownHostError: it asks for another host than this server.
            OtherSiteError: it comes from another site.
        """
        self._check_host(request.headers.get("host", ""))
        if is_own_request(request) or request.headers.get("origin") in self.origins:
            return
        if request.scope["type"] == "http" and request.scope["method"] in _SAFE_METHODS and _shows_us(request):
            return
        raise OtherSiteError

    def _check_host(self, host: str) -> None:
        if not host and self.hosts is None:
            return  # HTTP/1.0
        name = _name_in(host)
        if name is None or not (self.hosts is None or name in self.hosts or _is_address(name)):
            raise UnknownHostError


class SiteGuard:
    """Middleware: answers requests that the rules do not allow with an error.

    Args:
        app: gets the others.
        rules: which requests are allowed.
        error_format: for a path.
        failures: logs them.
    """

    def __init__(
        self, app: ASGIApp, rules: SiteRules, error_format: Callable[[str], ErrorFormat], failures: FailureLog
    ) -> None:
        self._app = app
        self._rules = rules
        self._error_format = error_format
        self._failures = failures

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        app = self._app
        if scope["type"] != "lifespan":
            try:
                self._rules.check(HTTPConnection(scope))
            except (OtherSiteError, UnknownHostError) as error:
                client = peer_of(scope).client
                self._failures.add(error.reason, client, f"HTTP request refused: {error.message}")
                app = self._error_format(scope["path"])(status_of(error, ""))
        await app(scope, receive, send)


def _shows_us(request: HTTPConnection) -> bool:
    """Whether a safe request of another site is a link that a person followed, as far as the browser tells."""
    if "sec-fetch-site" not in request.headers:
        return "origin" not in request.headers  # scripts and event sources have one, links have none
    return (request.headers.get("sec-fetch-mode"), request.headers.get("sec-fetch-dest")) == ("navigate", "document")


def _host_of(origin: str) -> str | None:
    try:
        return urlsplit(origin.lower()).netloc or None
    except ValueError:
        return None


def _name_in(host: str) -> str | None:
    """The name or address in a Host header; None if it is none."""
    found = _HOST.fullmatch(host)
    if found is None or int(found["port"] or 0) > _MAX_PORT or (found["address"] and not _is_address(found["address"])):
        return None
    return (found["address"] or found["name"]).lower().rstrip(".")


def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True
