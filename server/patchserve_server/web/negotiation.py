"""Content negotiation: which media type a caller prefers, by its Accept header (RFC 9110, section 12.5.1)."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Final

from starlette.requests import HTTPConnection, Request
from starlette.responses import Response
from starlette.routing import Match, Route
from starlette.types import Scope

_QUALITY: Final = re.compile(r"q\s*=\s*(0(?:\.[0-9]{0,3})?|1(?:\.0{0,3})?)", re.ASCII | re.IGNORECASE)

_MAX_RANGES: Final = 64  # of a header; browsers send eight


class PageRoute(Route):
    """A route for those who prefer HTML. For all others, a later route has the same path."""

    def __init__(self, path: str, page: Callable[[Request], Response]) -> None:
        async def answer(request: Request) -> Response:
            response = page(request)
            response.headers["vary"] = "Accept"
            return response

        super().__init__(path, answer)

    def matches(self, scope: Scope) -> tuple[Match, Scope]:
        match, child = super().matches(scope)
        if match is Match.NONE or not prefers_html(HTTPConnection(scope)):
            return Match.NONE, {}
        return match, child


def prefers_html(request: HTTPConnection) -> bool:
    """Whether the caller prefers text/html to application/json: browsers do, other programs take anything."""
    accept = ",".join(request.headers.getlist("accept"))
    return quality_of("text/html", accept) > quality_of("application/json", accept)


def quality_of(media_type: str, accept: str) -> float:
    """How much a caller likes a media type: 0 (not at all) to 1, as its most specific range in the header says."""
    kind = media_type.partition("/")[0]
    specificity = {media_type: 3, f"{kind}/*": 2, "*/*": 1}
    best, quality = 0, 0.0 if accept.strip() else 1.0
    for part in accept.split(",", _MAX_RANGES)[:_MAX_RANGES]:
        name, *parameters = (word.strip() for word in part.split(";"))
        rank = specificity.get(name.lower(), 0)
        if rank > best:
            best, quality = rank, _quality_in(parameters)
    return quality


def _quality_in(parameters: list[str]) -> float:
    for parameter in parameters:
        if found := _QUALITY.fullmatch(parameter):
            return float(found[1])
    return 1.0
