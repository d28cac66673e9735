"""The methods that Ray's proxies relay."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

from patchserve_server.ray.methods import RELAYED
from patchserve_server.ray.proxy import add_services
from patchserve_server.ray.replica import Replica
from patchserve_server.rpc.methods import METHODS, REFLECTION
from patchserve_server.rpc.reflection import REFLECTION_V1


def test_every_method_is_relayed_but_reflection_which_ray_has_and_watch() -> None:
    relayed = {method.full_name for method in RELAYED}
    not_relayed = {name for name in METHODS if name.split("/")[1] in (REFLECTION, REFLECTION_V1)}
    assert relayed == set(METHODS) - not_relayed - {"/grpc.health.v1.Health/Watch"}


def test_names_of_methods_are_unique_as_ray_knows_no_services() -> None:
    assert len({method.name for method in RELAYED}) == len(RELAYED)


def test_a_replica_has_each_method_as_ray_calls_it() -> None:
    for method in RELAYED:
        function: Callable[..., Any] = getattr(Replica, method.name)
        assert inspect.isasyncgenfunction(function) == method.has_response_stream
        assert "grpc_context" in inspect.signature(function).parameters


class Server:
    """A server of Ray, which puts its own handlers in the place of those that it is given."""

    def __init__(self) -> None:
        self.added: list[Any] = []

    def add_generic_rpc_handlers(self, handlers: tuple[Any]) -> None:
        (handler,) = handlers
        for name, each in handler._method_handlers.items():
            handler._method_handlers[name] = each._replace(unary_unary=_of_ray, response_serializer=None)
        self.added.append(handler)


async def _of_ray(request: bytes, context: Any) -> bytes:
    timeout: str = dict(context.invocation_metadata())["grpc-timeout"]
    return request + timeout.encode()


class Context:
    """gRPC's context."""

    def invocation_metadata(self) -> list[tuple[str, str]]:
        return []

    def trailing_metadata(self) -> list[tuple[str, str]]:
        return []

    def time_remaining(self) -> float:
        return 2.0

    def code(self) -> int:
        return 0


async def test_the_handlers_of_ray_are_wrapped_and_get_bytes() -> None:
    server = Server()
    add_services(object(), server)  # type: ignore[arg-type]
    found = [
        handler.service(SimpleNamespace(method="/patchserve.v1.PatchCoreService/Infer")) for handler in server.added
    ]
    (infer,) = [handler for handler in found if handler is not None]
    assert infer.request_deserializer is None
    assert not infer.request_streaming
    assert await infer.unary_unary(b"message ", Context()) == b"message 2000m"
    assert all(handler.service(SimpleNamespace(method="/nobody/Knows")) is None for handler in server.added)
