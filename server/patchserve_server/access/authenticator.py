"""From a call's `authorization` to its caller."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

from patchserve_server.domain.callers import Caller
from patchserve_server.domain.errors import InvalidCredentialsError, UnauthenticatedError

Taking: TypeAlias = Callable[[str], Caller]
"""Whose token it is; raises an UnauthenticatedError for one that it does not take."""


class Authenticator:
    """Takes tokens of the file, JWTs, or both. At least one is given."""

    def __init__(self, tokens: Taking | None, jwts: Taking | None) -> None:
        self._tokens = tokens
        self._jwts = jwts

    def caller(self, authorization: str) -> Caller:
        """Who sent this `authorization`; "" where there was none. Nothing of it is in an error or in the log.

        Raises:
            UnauthenticatedError: there is no bearer token, or it is none that the server takes, or no longer.
        """
        scheme, _, token = authorization.strip().partition(" ")
        if not authorization.strip():
            raise UnauthenticatedError
        if scheme.lower() != "bearer" or not token.strip():
            raise InvalidCredentialsError("The metadata is of the form `authorization: Bearer TOKEN`.")
        token = token.strip()
        # A JWT has dots, a token of the file has none.
        taking = self._jwts if "." in token else self._tokens
        if taking is None:
            raise InvalidCredentialsError
        return taking(token)
