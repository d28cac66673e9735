"""Which scope each method needs, and the interceptor that sees to it."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any, Final, Self

import grpc
from grpc import aio
from grpc_health.v1 import health
from grpc_reflection.v1alpha import reflection

from patchserve.kserve import open_inference_pb2
from patchserve.v1 import service_pb2
from patchserve_server.access import Authenticator
from patchserve_server.domain.callers import Scope
from patchserve_server.domain.errors import InvalidCredentialsError, PermissionDeniedError
from patchserve_server.rpc.interceptors import CALLER, Context, Handler

SERVICE: Final = service_pb2.DESCRIPTOR.services_by_name["PatchCoreService"].full_name
KSERVE: Final = open_inference_pb2.DESCRIPTOR.services_by_name["GRPCInferenceService"].full_name

# The one table: every method and the scope that it needs. What is not in it, and not open, is refused.
SCOPES: Final[dict[str, Scope | None]] = {
    f"/{SERVICE}/Infer": Scope.INFER,
    f"/{SERVICE}/InferStream": Scope.INFER,
    f"/{SERVICE}/GetServerInfo": Scope.INFER,
    f"/{SERVICE}/GetReference": Scope.INFER,
    f"/{SERVICE}/ListReferences": Scope.INFER,
    f"/{SERVICE}/LoadReference": Scope.MANAGE,
    f"/{SERVICE}/LoadReferenceStream": Scope.MANAGE,
    f"/{SERVICE}/ListLoads": Scope.MANAGE,
    f"/{SERVICE}/DeleteReference": Scope.MANAGE,
    f"/{KSERVE}/ServerMetadata": Scope.INFER,
    f"/{KSERVE}/ModelReady": Scope.INFER,
    f"/{KSERVE}/ModelMetadata": Scope.INFER,
    f"/{KSERVE}/ModelInfer": Scope.INFER,
    f"/{KSERVE}/ModelStreamInfer": Scope.INFER,
    # Any good token: the contract is public, but not that a server with it is here.
    f"/{reflection.SERVICE_NAME}/ServerReflectionInfo": None,
}
# Probes of orchestrators and load balancers have no token.
OPEN: Final = frozenset(
    {
        f"/{health.SERVICE_NAME}/Check",
        f"/{health.SERVICE_NAME}/Watch",
        f"/{KSERVE}/ServerLive",
        f"/{KSERVE}/ServerReady",
    }
)
# Checking a JWT takes a tenth of a millisecond and more, of which frames have none to spare.
RECHECK_S: Final = 1.0


class AuthorizationInterceptor(aio.ServerInterceptor):
    """Lets a call through whose token carries the method's scope. Stands behind StatusInterceptor, which sends errors.

    A stream is looked at again while it sends, once a second: when its token has expired or is taken back, what was
    accepted is answered and the stream ends with UNAUTHENTICATED.
    """

    def __init__(self, authenticator: Authenticator) -> None:
        self._authenticator = authenticator

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[Handler | None]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> Handler | None:
        handler = await continuation(handler_call_details)
        method = str(handler_call_details.method)
        if handler is None or method in OPEN:
            return handler
        metadata = handler_call_details.invocation_metadata or ()
        given = [str(value) for key, value in metadata if key == "authorization"]

        def check() -> None:
            self._check(method, given)

        try:
            check()
        except Exception as error:  # noqa: BLE001 - whatever goes wrong here, the call does not go through
            return _refusal(error)
        return _checked_again(handler, check)

    def _check(self, method: str, given: list[str]) -> None:
        if len(given) > 1:
            raise InvalidCredentialsError("There is more than one `authorization` in the metadata.")
        caller = self._authenticator.authenticate("".join(given))
        CALLER.set(caller.name)
        scope = SCOPES[method]
        if scope is not None and scope not in caller.scopes:
            raise PermissionDeniedError(method.rpartition("/")[2], scope)


def _refusal(error: Exception) -> Handler:
    """Answers before a message is read, whatever the method's kind: who is refused does not get to send an image."""

    async def refuse(_requests: object, _context: Context) -> AsyncIterator[Any]:
        raise error
        yield  # makes it a generator, as StatusInterceptor expects

    return grpc.stream_stream_rpc_method_handler(refuse)


def _checked_again(handler: Any, check: Callable[[], None]) -> Handler:  # noqa: ANN401 - grpc's handlers are untyped
    """The same handler, whose caller's messages are checked too. All stream, as AdmissionInterceptor makes it."""
    return grpc.stream_stream_rpc_method_handler(
        lambda requests, context: handler.stream_stream(_Checked(requests, check), context),
        request_deserializer=handler.request_deserializer,
        response_serializer=handler.response_serializer,
    )


class _Checked:
    """The caller's messages, for as long as the check passes."""

    def __init__(self, requests: AsyncIterator[Any], check: Callable[[], None]) -> None:
        self._requests = requests  # grpc's own warns where its iterator is asked for and then not used
        self._check = check
        self._checked_at_s = time.monotonic()

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Any:  # noqa: ANN401 - whatever the method takes
        request = await anext(aiter(self._requests))
        if (now_s := time.monotonic()) - self._checked_at_s >= RECHECK_S:
            self._check()
            self._checked_at_s = now_s
        return request
