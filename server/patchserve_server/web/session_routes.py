"""`/session`: a person signs in with a token, the page asks who that is, and the person signs out."""

from __future__ import annotations

import asyncio
import json
import re
from typing import Final

from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response
from starlette.routing import BaseRoute, Route

from patchserve_server.access import Authenticator
from patchserve_server.contract.methods import PROBE, SMALL_MESSAGE_BYTES
from patchserve_server.domain.callers import Caller, Scope
from patchserve_server.domain.errors import (
    InvalidCredentialsError,
    InvalidInputError,
    RequestTooLargeError,
    UnauthenticatedError,
)
from patchserve_server.domain.http_errors import OtherSiteError
from patchserve_server.serving.entrance import Entrance
from patchserve_server.serving.waiting_calls import Waiting
from patchserve_server.web.calls import Calls
from patchserve_server.web.errors import status_response
from patchserve_server.web.peers import peer_of
from patchserve_server.web.sessions import authorization_of, forget_token, keep_token
from patchserve_server.web.sites import is_own_request

MAX_TOKEN_CHARACTERS: Final = 3800  # browsers keep at most 4096 bytes of a cookie: its name, value and attributes
_TOKEN = re.compile(r"[A-Za-z0-9._~+/-]+=*", re.ASCII)  # RFC 6750; a cookie may contain each of them


def routes(calls: Calls, authenticator: Authenticator | None, entrance: Entrance) -> list[BaseRoute]:
    """POST with `{"token": "..."}`, GET and DELETE; each answers who is signed in then.

    They are probes: who has no token yet takes no place among the calls of those who have one.

    Args:
        calls: the entrance.
        authenticator: None: no token is needed.
        entrance: its pacing delays the answers to tokens that are not valid, so that guessing them is slow.
    """

    async def open_session(request: Request) -> Response:
        if not is_own_request(request):  # a site that may use this server does not sign its visitors in here
            raise OtherSiteError
        client = peer_of(request.scope).client
        waiting = Waiting(client, {}, lambda: None, asyncio.timeout(None), is_first=True)  # a drain ends it
        token = _sent_token(await entrance.reception.waiting.receive(_body(request), waiting, ""))
        if authenticator is None:
            return _response(None)
        response = _response(authenticator.authenticate(f"Bearer {token}"))
        keep_token(request, response, token)
        return response

    async def show_session(request: Request) -> Response:
        if authenticator is None:
            return _response(None)
        authorization = authorization_of(request)
        if not authorization:
            return _signed_out()
        try:
            return _response(authenticator.authenticate(authorization))
        except UnauthenticatedError as error:
            await entrance.pacing.wait(peer_of(request.scope).client, None)
            response = _signed_out(error.message)
            forget_token(request, response)
            return response

    async def close_session(request: Request) -> Response:
        response = _response(None) if authenticator is None else _signed_out()
        forget_token(request, response)
        return response

    handlers = {"POST": open_session, "GET": show_session, "DELETE": close_session}
    return [
        Route("/session", calls.probe(f"{method} /session", PROBE, handler, status_response), methods=[method])
        for method, handler in handlers.items()
    ]


async def _body(request: Request) -> bytes:
    """The body, of a few KiB. The time limit of a probe is its own too."""
    body = bytearray()
    try:
        async for chunk in request.stream():
            body += chunk
            if len(body) > SMALL_MESSAGE_BYTES:
                raise RequestTooLargeError(f"The body has more than {SMALL_MESSAGE_BYTES:,} bytes.")
    except ClientDisconnect:
        raise asyncio.CancelledError from None
    return bytes(body)


def _sent_token(body: bytes) -> str:
    """The token of a request; one that no cookie can hold is refused."""
    try:
        content = json.loads(body)
    except (ValueError, RecursionError):
        content = None
    token = content.get("token") if isinstance(content, dict) else None
    if not isinstance(token, str) or not token.strip():
        raise InvalidInputError("token", 'Send the token as JSON: {"token": "TOKEN"}.')
    token = token.strip()
    if len(token) > MAX_TOKEN_CHARACTERS:
        message = (
            f"The token has {len(token):,} characters, and browsers keep at most {MAX_TOKEN_CHARACTERS:,}. Send it "
            "with each request: `authorization: Bearer TOKEN`."
        )
        raise InvalidInputError("token", message)
    if not _TOKEN.fullmatch(token):
        raise InvalidCredentialsError
    return token


def _response(caller: Caller | None) -> JSONResponse:
    """Who is signed in; None: the server needs no token, and everybody may do everything."""
    if caller is None:
        return JSONResponse({"token_needed": False, "signed_in": False, "scopes": sorted(Scope)})
    content = {"token_needed": True, "signed_in": True, "name": caller.name, "scopes": sorted(caller.scopes)}
    return JSONResponse(content)


def _signed_out(problem: str = "") -> JSONResponse:
    """Nobody is signed in; `problem` is a sentence that says why the token no longer counts."""
    return JSONResponse({"token_needed": True, "signed_in": False, "problem": problem, "scopes": []})
