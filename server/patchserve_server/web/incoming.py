"""A call over HTTP before it is admitted."""

from __future__ import annotations

from starlette.requests import HTTPConnection

from patchserve_server.access import Authenticator
from patchserve_server.contract.incoming import IncomingCallBase
from patchserve_server.contract.methods import Method
from patchserve_server.domain.call_events import Face
from patchserve_server.serving.entrance import Entrance
from patchserve_server.web.authorization import Authorization
from patchserve_server.web.deadlines import timeout_of
from patchserve_server.web.peers import peer_of


class IncomingCall(IncomingCallBase):
    """A call over HTTP before it is admitted.

    Args:
        name: of the call, for the log and for errors, such as `Infer`.
        method: what it may use.
        request: Starlette's.
        authenticator: None: callers need no token.
        entrance: what all faces of the server share.
        is_stream: whether images come in and results go out until one side ends it.
    """

    def __init__(
        self,
        name: str,
        method: Method,
        request: HTTPConnection,
        authenticator: Authenticator | None,
        entrance: Entrance,
        *,
        is_stream: bool = False,
    ) -> None:
        self.peer = peer_of(request.scope)
        super().__init__(
            entrance,
            face=Face.HTTP,
            service="",
            method_name=name,
            address=self.peer.address,
            certificate_name=self.peer.certificate_name,
            is_audited=method.is_audited,
            is_probe=method.always_answered,
            is_stream=is_stream,
        )
        self.method = method
        self.request = request
        self.authorization = Authorization(authenticator, request, name, method)
        self.timeout_s: float | None = None  # the caller's own time limit, after `authorize`

    @property
    def remaining_s(self) -> float | None:
        return self.timeout_s

    def header(self, name: str) -> str:
        return self.request.headers.get(name, "")

    def authorize(self) -> None:
        """Checks the token and the caller's time limit.

        Raises:
            UnauthenticatedError, PermissionDeniedError, InvalidInputError.
        """
        try:
            self.authorization.check()
        finally:
            self.token_name = self.authorization.token_name  # also of a token that lacks the scope
        self.timeout_s = timeout_of(self.request)
