"""The methods that Ray's proxy relays, from the descriptors of their services."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from google.protobuf.descriptor import ServiceDescriptor
from grpc_health.v1 import health_pb2

from patchserve.kserve import open_inference_pb2
from patchserve.v1 import service_pb2

# It would say how one replica is, whichever it is, and count as an ongoing request as long as somebody watches.
_NOT_RELAYED: Final = "Watch"


@dataclass(frozen=True, slots=True)
class RelayedMethod:
    """A method. Ray finds the one of a replica by its short name."""

    service: str
    name: str
    has_request_stream: bool
    has_response_stream: bool

    @property
    def full_name(self) -> str:
        return f"/{self.service}/{self.name}"


def _methods() -> Iterator[RelayedMethod]:
    services: list[ServiceDescriptor] = [
        service_pb2.DESCRIPTOR.services_by_name["PatchCoreService"],
        open_inference_pb2.DESCRIPTOR.services_by_name["GRPCInferenceService"],
        health_pb2.DESCRIPTOR.services_by_name["Health"],
    ]
    for service in services:
        for method in service.methods:
            if method.name != _NOT_RELAYED:
                yield RelayedMethod(service.full_name, method.name, method.client_streaming, method.server_streaming)


RELAYED: Final = tuple(_methods())
