"""All routes of the HTTP face, behind the rules of `web.sites`."""

from __future__ import annotations

from http import HTTPStatus
from typing import Final

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Match, Route
from starlette.types import ASGIApp

from patchserve_server.access import Authenticator
from patchserve_server.contract.status import status_of
from patchserve_server.domain.http_errors import HttpMethodError, UnknownPathError
from patchserve_server.serving.admission import Capacity
from patchserve_server.serving.entrance import Entrance
from patchserve_server.serving.failure_log import FailureLog
from patchserve_server.web import documented, infer_socket, session_routes, watch
from patchserve_server.web.calls import Calls
from patchserve_server.web.errors import ErrorFormat, status_response
from patchserve_server.web.kept_overlays import LIMIT, KeptOverlays
from patchserve_server.web.listening import HttpListening
from patchserve_server.web.negotiation import PageRoute
from patchserve_server.web.open_inference import routes as open_inference
from patchserve_server.web.open_inference.request import HEADER_LENGTH
from patchserve_server.web.page import routes as page
from patchserve_server.web.security_headers import SecurityHeaders
from patchserve_server.web.sites import SiteGuard, SiteRules
from patchserve_server.web.transcoding import routes as transcoding

_METHODS = ("GET", "POST", "DELETE")
# By the first segment of the path. All others are written as the documented service writes its errors.
_ERROR_FORMATS: Final[dict[str, ErrorFormat]] = dict.fromkeys(
    ("v1", "session", "watch", "openapi.json"), status_response
) | {"v2": open_inference.error_response}


def create_web_application(
    entrance: Entrance, authenticator: Authenticator | None, listening: HttpListening
) -> ASGIApp:
    calls = Calls(entrance, authenticator, listening)
    limit = LIMIT.at_least(Capacity(bytes=listening.max_message_bytes))
    overlays = KeptOverlays(limit, peers=entrance.peers)
    routes = [
        PageRoute("/", page.page_response),
        *documented.routes(calls, entrance.readiness, overlays),
        *session_routes.routes(calls, authenticator, entrance),
        *open_inference.routes(calls, entrance.readiness),
        *infer_socket.routes(calls),
        *watch.routes(calls),
        *transcoding.routes(calls),
        *page.routes(),
    ]
    app = Starlette(routes=routes, exception_handlers={HTTPException: _no_route})
    app.router.redirect_slashes = False  # a path has one form
    rules = SiteRules(listening.known_hosts(needs_token=authenticator is not None), listening.allowed_origins)
    return _guarded(app, rules, entrance.failures)


def _guarded(app: ASGIApp, rules: SiteRules, failures: FailureLog) -> ASGIApp:
    app = SiteGuard(app, rules, _error_format, failures)
    if rules.origins:  # outside of the guard, so that an allowed site can read its refusals
        # Without credentials: the cookie is for the page alone; other sites send the header.
        app = CORSMiddleware(
            app,
            rules.origins,
            _METHODS,
            ["authorization", "grpc-timeout", "x-patchserve-reference", HEADER_LENGTH],  # the third is for balancers
            allow_private_network=True,
            expose_headers=["retry-after", "x-request-id", HEADER_LENGTH],
        )
    return SecurityHeaders(app)


def _error_format(path: str) -> ErrorFormat:
    """How the errors of a path are written, also of one where nothing is."""
    return _ERROR_FORMATS.get(path.removeprefix("/").partition("/")[0], documented.error_response)


def _no_route(request: Request, error: Exception) -> Response:
    """There is nothing at the path, or not for this method."""
    write = _error_format(request.url.path)
    if not isinstance(error, HTTPException) or error.status_code != HTTPStatus.METHOD_NOT_ALLOWED:
        return write(status_of(UnknownPathError(request.url.path), ""))
    allowed: set[str] = set()  # several routes may have the same path
    for route in request.app.routes:
        if isinstance(route, Route) and route.matches(request.scope)[0] is not Match.NONE:
            allowed |= route.methods or set()
    response = write(status_of(HttpMethodError(tuple(sorted(allowed - {"HEAD"}))), ""))
    response.headers["allow"] = ", ".join(sorted(allowed))
    return response
