"""Identifies the caller of a call by its `authorization`."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

from patchserve_server.domain.callers import Caller
from patchserve_server.domain.errors import InvalidCredentialsError, UnauthenticatedError

Verify: TypeAlias = Callable[[str], Caller]
"""Returns the caller that a token belongs to; raises an UnauthenticatedError if the token is not valid."""


class Authenticator:
    """Accepts tokens of the token file, JWTs, or both. At least one verifier is required."""

    def __init__(self, verify_token: Verify | None, verify_jwt: Verify | None) -> None:
        self._verify_token = verify_token
        self._verify_jwt = verify_jwt

    def authenticate(self, authorization: str) -> Caller:
        """The caller who sent this `authorization` ("" if none was sent). Errors and the log never contain it.

        Raises:
            UnauthenticatedError: there is no bearer token, or the token is not valid or has expired.
        """
        scheme, _, token = authorization.strip().partition(" ")
        if not authorization.strip():
            raise UnauthenticatedError
        if scheme.lower() != "bearer" or not token.strip():
            raise InvalidCredentialsError("Send it in the form `authorization: Bearer TOKEN`.")
        token = token.strip()
        # A JWT contains dots, a token of the file does not.
        verify = self._verify_jwt if "." in token else self._verify_token
        if verify is None:
            raise InvalidCredentialsError
        return verify(token)
