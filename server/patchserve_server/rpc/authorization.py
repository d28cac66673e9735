"""Authorization: checks the token of a call at its start, and again while a stream runs."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Callable
from typing import Any, Final, Self

from patchserve_server.access import Authenticator
from patchserve_server.contract.methods import OPEN, Method
from patchserve_server.domain.callers import Scope
from patchserve_server.domain.errors import InvalidCredentialsError, PermissionDeniedError
from patchserve_server.rpc.calls import IncomingCall

# Checking a JWT takes 0.1 ms or more: too long to do it for every frame.
RECHECK_INTERVAL_S: Final = 1.0


def authorize(
    authenticator: Authenticator, method: Method, incoming: IncomingCall, requests: AsyncIterator[Any]
) -> AsyncIterator[Any]:
    """Checks the call's token and stores its name in `incoming`.

    Returns:
        The caller's messages. The token is checked again once a second. When it has expired or was revoked, the
        messages end with the error; earlier messages are still answered.

    Raises:
        UnauthenticatedError: there is no valid token.
        PermissionDeniedError: the token is valid, but lacks the scope of the method.
    """
    scope = method.scope
    if scope == OPEN:
        return requests
    metadata = incoming.context.invocation_metadata() or ()
    values = [str(value) for key, value in metadata if key == "authorization"]

    def check() -> None:
        if len(values) > 1:
            raise InvalidCredentialsError("The metadata has more than one `authorization`; send one.")
        caller = authenticator.authenticate("".join(values))
        incoming.token_name = caller.name
        if isinstance(scope, Scope) and scope not in caller.scopes:
            raise PermissionDeniedError(incoming.method_name, scope)

    check()
    return _CheckedRequests(requests, check)


class _CheckedRequests:
    """The caller's messages, as long as the check passes."""

    def __init__(self, requests: AsyncIterator[Any], check: Callable[[], None]) -> None:
        self._requests = requests
        self._check = check
        self._checked_at_s = time.monotonic()

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Any:  # noqa: ANN401 - a message of any method
        request = await anext(self._requests)
        if (now_s := time.monotonic()) - self._checked_at_s >= RECHECK_INTERVAL_S:
            self._check()
            self._checked_at_s = now_s
        return request
