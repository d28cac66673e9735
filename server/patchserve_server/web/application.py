"""All routes of the HTTP face."""

from __future__ import annotations

from starlette.applications import Starlette

from patchserve_server.access import Authenticator
from patchserve_server.serving.entrance import Entrance
from patchserve_server.web import documented
from patchserve_server.web.calls import Calls
from patchserve_server.web.listening import HttpListening
from patchserve_server.web.page import routes as page


def create_web_application(
    entrance: Entrance, authenticator: Authenticator | None, listening: HttpListening
) -> Starlette:
    calls = Calls(entrance, authenticator, listening)
    return Starlette(routes=[*documented.routes(calls, entrance.readiness), *page.routes()])
