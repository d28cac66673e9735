"""`/session`: a person signs in with a token, the page asks who that is, and the person signs out."""

from __future__ import annotations

import json
import re
from typing import Final

from starlette.responses import JSONResponse, Response
from starlette.routing import BaseRoute, Route

from patchserve_server.access import Authenticator
from patchserve_server.contract.methods import OPEN, Method
from patchserve_server.domain.callers import Caller, Scope
from patchserve_server.domain.errors import InvalidCredentialsError, InvalidInputError, UnauthenticatedError
from patchserve_server.serving.refusal_pacing import RefusalPacing
from patchserve_server.web.calls import Calls, HttpCall
from patchserve_server.web.errors import status_response
from patchserve_server.web.sessions import authorization_of, forget_token, keep_token

MAX_TOKEN_CHARACTERS: Final = 3800  # browsers keep at most 4096 bytes of a cookie: its name, value and attributes
_TOKEN = re.compile(r"[A-Za-z0-9._~+/-]+=*", re.ASCII)  # RFC 6750; a cookie may contain each of them
_SESSION: Final = Method(OPEN)


def routes(calls: Calls, authenticator: Authenticator | None, pacing: RefusalPacing) -> list[BaseRoute]:
    """POST with `{"token": "..."}`, GET and DELETE; each answers who is signed in then.

    Args:
        calls: the entrance.
        authenticator: None: no token is needed.
        pacing: delays the answers to tokens that are not valid, so that guessing them is slow.
    """

    async def open_session(call: HttpCall) -> Response:
        token = _sent_token(await call.body.read())
        if authenticator is None:
            return _response(None)
        response = _response(authenticator.authenticate(f"Bearer {token}"))
        keep_token(call.request, response, token)
        return response

    async def show_session(call: HttpCall) -> Response:
        if authenticator is None:
            return _response(None)
        authorization = authorization_of(call.request)
        if not authorization:
            return _signed_out()
        try:
            return _response(authenticator.authenticate(authorization))
        except UnauthenticatedError as error:
            call.holdings.give_back()  # as every other refusal that waits
            await pacing.wait(call.client, None)
            response = _signed_out(error.message)
            forget_token(call.request, response)
            return response

    async def close_session(call: HttpCall) -> Response:
        response = _response(None) if authenticator is None else _signed_out()
        forget_token(call.request, response)
        return response

    handlers = {"POST": open_session, "GET": show_session, "DELETE": close_session}
    return [
        Route("/session", calls.endpoint(f"{method} /session", _SESSION, handler, status_response), methods=[method])
        for method, handler in handlers.items()
    ]


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
