"""Reflection in both versions: tools find the services, and the messages of the details of errors."""

from __future__ import annotations

import subprocess
import sys
from graphlib import TopologicalSorter
from pathlib import Path

import grpc
import pytest
from e2e.harness import ServerProcess
from google.protobuf import descriptor_pb2, descriptor_pool
from grpc_reflection.v1alpha import reflection_pb2 as pb

VERSIONS = ("v1", "v1alpha")
SERVICES = {
    "patchserve.v1.PatchCoreService",
    "inference.GRPCInferenceService",
    "grpc.health.v1.Health",
    "grpc.reflection.v1.ServerReflection",
    "grpc.reflection.v1alpha.ServerReflection",
}


def ask(address: str, version: str, **question: str) -> pb.ServerReflectionResponse:
    with grpc.insecure_channel(address) as channel:
        method = channel.stream_stream(
            f"/grpc.reflection.{version}.ServerReflection/ServerReflectionInfo",
            request_serializer=pb.ServerReflectionRequest.SerializeToString,
            response_deserializer=pb.ServerReflectionResponse.FromString,
        )
        (answer,) = method(iter([pb.ServerReflectionRequest(**question)]), timeout=20)
    assert isinstance(answer, pb.ServerReflectionResponse)
    return answer


@pytest.mark.parametrize("version", VERSIONS)
def test_both_versions_list_all_services(version: str, server: ServerProcess) -> None:
    answer = ask(server.address, version, list_services="")
    assert {service.name for service in answer.list_services_response.service} == SERVICES


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("symbol", [*sorted(SERVICES), "google.rpc.ErrorInfo", "google.rpc.BadRequest"])
def test_every_service_and_the_details_of_errors_are_described_completely(
    version: str, symbol: str, server: ServerProcess
) -> None:
    answer = ask(server.address, version, file_containing_symbol=symbol)
    files = {
        file.name: file
        for file in map(
            descriptor_pb2.FileDescriptorProto.FromString, answer.file_descriptor_response.file_descriptor_proto
        )
    }
    pool = descriptor_pool.DescriptorPool()
    order = TopologicalSorter({name: set(file.dependency) for name, file in files.items()})
    for name in order.static_order():  # fails if one that is imported is missing
        pool.Add(files[name])
    assert pool.FindFileContainingSymbol(symbol).name in files


@pytest.mark.parametrize("version", VERSIONS)
def test_buf_calls_the_server_by_reflection_and_shows_the_error(version: str, server: ServerProcess) -> None:
    buf = Path(sys.executable).parent / "buf"
    url = f"http://{server.address}/patchserve.v1.PatchCoreService/GetReference"
    flags = ["--reflect-protocol", f"grpc-{version}", "--protocol", "grpc", "--http2-prior-knowledge"]
    command = [str(buf), "curl", *flags, url, "-d", '{"reference_id": "none"}']
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 8 * grpc.StatusCode.NOT_FOUND.value[0]
    assert '"code": "not_found"' in done.stderr
    assert '"type": "google.rpc.ErrorInfo"' in done.stderr
