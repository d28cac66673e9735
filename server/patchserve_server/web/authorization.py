"""Authorization: checks the token of a call at its start, and again while the call goes on."""

from __future__ import annotations

import time
from typing import Final

from starlette.requests import HTTPConnection

from patchserve_server.access import Authenticator
from patchserve_server.contract.methods import OPEN, Method
from patchserve_server.domain.callers import Scope
from patchserve_server.domain.errors import PermissionDeniedError
from patchserve_server.web.sessions import authorization_of

RECHECK_INTERVAL_S: Final = 1.0  # checking a JWT takes 0.1 ms or more


class Authorization:
    """What the token of a request allows.

    Args:
        authenticator: None: callers need no token.
        request: has the token.
        name: of the method.
        scope: that the method needs.
    """

    def __init__(self, authenticator: Authenticator | None, request: HTTPConnection, name: str, method: Method) -> None:
        self._authenticator = authenticator if method.scope != OPEN else None
        self._request = request
        self._name = name
        self._scope = method.scope
        self._checked_at_s = 0.0
        self.token_name = ""  # after the check; empty if no token is needed

    def check(self) -> None:
        """Checks the token.

        Raises:
            UnauthenticatedError: there is no valid token.
            PermissionDeniedError: the token is valid, but lacks the scope of the method.
        """
        self._checked_at_s = time.monotonic()
        if self._authenticator is None:
            return
        caller = self._authenticator.authenticate(authorization_of(self._request))
        self.token_name = caller.name
        if isinstance(self._scope, Scope) and self._scope not in caller.scopes:
            raise PermissionDeniedError(self._name, self._scope)

    def check_again(self) -> None:
        """The same, but at most once a second: for a call that goes on."""
        if time.monotonic() - self._checked_at_s >= RECHECK_INTERVAL_S:
            self.check()
