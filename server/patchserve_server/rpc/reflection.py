"""gRPC's reflection, versions v1 and v1alpha: which services, methods and messages there are.

grpcio-reflection has v1alpha only. Version v1 has the same messages in another package, byte for byte. The details of
our errors (google.rpc) are known too, so that tools can show them.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any, Final, Protocol

import grpc
from google.protobuf import descriptor_pb2, descriptor_pool
from google.protobuf.descriptor import FileDescriptor
from google.rpc import error_details_pb2  # noqa: F401 - so that the pool of descriptors has it
from grpc_reflection.v1alpha import reflection, reflection_pb2, reflection_pb2_grpc

_OLD_PACKAGE: Final = reflection_pb2.DESCRIPTOR.package
_PACKAGE: Final = "grpc.reflection.v1"


def _v1_file() -> FileDescriptor:
    """The file of v1alpha as that of v1, in the pool of all descriptors."""
    file = descriptor_pb2.FileDescriptorProto()
    reflection_pb2.DESCRIPTOR.CopyToProto(file)
    file.name, file.package = "grpc/reflection/v1/reflection.proto", _PACKAGE
    for field in (field for message in _messages(file.message_type) for field in message.field):
        if field.type_name:
            field.type_name = field.type_name.replace(f".{_OLD_PACKAGE}.", f".{_PACKAGE}.")
    for method in (method for service in file.service for method in service.method):
        method.input_type = method.input_type.replace(f".{_OLD_PACKAGE}.", f".{_PACKAGE}.")
        method.output_type = method.output_type.replace(f".{_OLD_PACKAGE}.", f".{_PACKAGE}.")
    pool = descriptor_pool.Default()
    pool.AddSerializedFile(file.SerializeToString())
    return pool.FindFileByName(file.name)


def _messages(messages: Iterable[descriptor_pb2.DescriptorProto]) -> Iterator[descriptor_pb2.DescriptorProto]:
    for message in messages:
        yield message
        yield from _messages(message.nested_type)


V1_DESCRIPTOR: Final = _v1_file()
REFLECTION_V1: Final = f"{_PACKAGE}.ServerReflection"


class Registry(Protocol):
    """Where methods are added: what generated functions use of a server."""

    def add_registered_method_handlers(self, service: str, handlers: dict[str, Any]) -> None:
        """Adds the methods of a service, by name."""

    def add_generic_rpc_handlers(self, handlers: tuple[grpc.GenericRpcHandler, ...]) -> None:
        """Adds them once more, for servers that do not know registered ones."""


def add_reflection(registry: Registry, services: Iterable[str]) -> None:
    """Answer both versions, about these services."""
    servicer = reflection.aio.ReflectionServicer(services)
    reflection_pb2_grpc.add_ServerReflectionServicer_to_server(servicer, registry)
    handler = grpc.stream_stream_rpc_method_handler(
        servicer.ServerReflectionInfo,
        request_deserializer=reflection_pb2.ServerReflectionRequest.FromString,
        response_serializer=reflection_pb2.ServerReflectionResponse.SerializeToString,
    )
    registry.add_registered_method_handlers(REFLECTION_V1, {"ServerReflectionInfo": handler})
