"""All routes of the HTTP face, behind the rules of `web.sites`."""

from __future__ import annotations

from starlette.applications import Starlette
from starlette.middleware.cors import CORSMiddleware
from starlette.types import ASGIApp

from patchserve_server.access import Authenticator
from patchserve_server.serving.entrance import Entrance
from patchserve_server.web import documented, session_routes
from patchserve_server.web.calls import Calls
from patchserve_server.web.errors import ErrorFormat, status_response
from patchserve_server.web.listening import HttpListening
from patchserve_server.web.page import routes as page
from patchserve_server.web.security_headers import SecurityHeaders
from patchserve_server.web.sites import SiteGuard, SiteRules

_METHODS = ("GET", "POST", "DELETE")


def create_web_application(
    entrance: Entrance, authenticator: Authenticator | None, listening: HttpListening
) -> ASGIApp:
    calls = Calls(entrance, authenticator, listening)
    routes = [
        *documented.routes(calls, entrance.readiness),
        *session_routes.routes(calls, authenticator, entrance.pacing),
        *page.routes(),
    ]
    return _guarded(Starlette(routes=routes), authenticator, listening)


def _guarded(app: ASGIApp, authenticator: Authenticator | None, listening: HttpListening) -> ASGIApp:
    origins = listening.allowed_origins
    hosts = listening.known_hosts(needs_token=authenticator is not None)
    app = SiteGuard(app, SiteRules(hosts, origins), _error_format)
    if origins:  # outside of the guard, so that an allowed site can read its refusals
        # Without credentials: the cookie is for the page alone; other sites send the header.
        app = CORSMiddleware(
            app, origins, _METHODS, ["authorization"], allow_private_network=True, expose_headers=["retry-after"]
        )
    return SecurityHeaders(app)


def _error_format(_: str) -> ErrorFormat:
    return status_response
