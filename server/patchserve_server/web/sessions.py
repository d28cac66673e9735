"""Sessions of the page: the token of a person, in a cookie that lasts until the browser is closed.

The cookie holds the token itself, so the server keeps nothing: docs/adr/0013-the-cookie-holds-the-token.md says why.
"""

from __future__ import annotations

from typing import Final

from starlette.requests import HTTPConnection
from starlette.responses import Response

from patchserve_server.domain.errors import InvalidCredentialsError
from patchserve_server.web.sites import is_own_request

_COOKIE: Final = "patchserve"
_SECURE_PREFIX: Final = "__Host-"  # the browser takes and sends it over TLS only, and for this host alone


def authorization_of(request: HTTPConnection) -> str:
    """The caller's `authorization`: the header, else that of the session; "" without both.

    The cookie counts in requests of our own page only. A site that may use this server sends the header.

    Raises:
        InvalidCredentialsError: there is more than one header.
    """
    values = request.headers.getlist("authorization")
    if len(values) > 1:
        raise InvalidCredentialsError("The request has more than one Authorization header; send one.")
    if values:
        return values[0]
    token = _token_of(request)
    return f"Bearer {token}" if token and is_own_request(request) else ""


def keep_token(request: HTTPConnection, response: Response, token: str) -> None:
    """Lets the browser keep the token, and send it with each request of the page."""
    is_secure = _is_secure(request)
    name = _cookie_name(request, is_secure=is_secure)
    response.set_cookie(name, token, path="/", secure=is_secure, httponly=True, samesite="strict")


def forget_token(request: HTTPConnection, response: Response) -> None:
    """Lets the browser forget the token, if it has one."""
    for is_secure in (True, False):
        name = _cookie_name(request, is_secure=is_secure)
        if name in request.cookies:
            response.delete_cookie(name, path="/", secure=is_secure, httponly=True, samesite="strict")


def _token_of(request: HTTPConnection) -> str:
    names = [_cookie_name(request, is_secure=True)]
    if request.url.scheme not in ("https", "wss"):
        names.append(_cookie_name(request, is_secure=False))
    return next((request.cookies[name] for name in names if request.cookies.get(name)), "")


def _is_secure(request: HTTPConnection) -> bool:
    """Whether the browser uses TLS, with this server or with a proxy in front of it: its Origin says so."""
    return request.url.scheme == "https" or request.headers.get("origin", "").startswith("https://")


def _cookie_name(request: HTTPConnection, *, is_secure: bool) -> str:
    """Cookies know no ports, so the name has one: two servers on one machine do not end each other's sessions."""
    port = request.url.port
    return f"{_SECURE_PREFIX if is_secure else ''}{_COOKIE}{'' if port is None else f'-{port}'}"
