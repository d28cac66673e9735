"""The method table has every method of every service, with the right scope, capacity and time limit."""

from __future__ import annotations

import pytest
from google.protobuf.descriptor import MethodDescriptor
from grpc_health.v1 import health_pb2
from grpc_reflection.v1alpha import reflection_pb2

from patchserve.kserve import open_inference_pb2
from patchserve.v1 import reference_pb2, service_pb2
from patchserve_server.contract.methods import KSERVE, OPEN, SERVICE, InitialPermit, Method, RequestSize, TimeLimit
from patchserve_server.domain.callers import Scope
from patchserve_server.rpc.methods import HEALTH, METHODS, REFLECTION
from patchserve_server.rpc.reflection import REFLECTION_V1, V1_DESCRIPTOR
from patchserve_server.rpc.wire import check_message

HEALTH_CHECKS = {"Check", "Watch", "List"}
LARGE = {
    "ImportReference",
    "Infer",
    "InferStream",
    "LoadReference",
    "LoadReferenceStream",
    "ModelInfer",
    "ModelStreamInfer",
}
FILES = (
    service_pb2.DESCRIPTOR,
    open_inference_pb2.DESCRIPTOR,
    health_pb2.DESCRIPTOR,
    reflection_pb2.DESCRIPTOR,
    V1_DESCRIPTOR,
)
DESCRIPTORS: dict[str, MethodDescriptor] = {
    f"/{service.full_name}/{method.name}": method
    for file in FILES
    for service in file.services_by_name.values()
    for method in service.methods
}


def names(**attributes: object) -> set[str]:
    """The short names of the methods with these attributes."""
    return {
        full_name.rpartition("/")[2]
        for full_name, method in METHODS.items()
        if all(getattr(method, name) == value for name, value in attributes.items())
    }


def test_the_table_has_every_method_of_every_service_and_nothing_else() -> None:
    assert set(METHODS) == set(DESCRIPTORS)
    assert {full_name.split("/")[1] for full_name in METHODS} == {SERVICE, KSERVE, HEALTH, REFLECTION, REFLECTION_V1}


def test_only_probes_need_no_credentials() -> None:
    assert names(scope=OPEN) == {*HEALTH_CHECKS, "ServerLive", "ServerReady"}
    assert all(METHODS[name].always_answered for name in METHODS if METHODS[name].scope == OPEN)


def test_methods_that_change_references_need_manage_and_are_audited() -> None:
    loads = {"LoadReference", "LoadReferenceStream", "ImportReference"}
    changes = {*loads, "TuneReference", "RestoreReference", "DeleteReference"}
    assert names(is_audited=True) == changes
    assert names(scope=Scope.MANAGE) == {
        *changes,
        "ListLoads",
        "GetReferenceImage",
        "GetReferenceHistory",
        "ExportReference",
    }


def test_calls_with_images_take_capacity_before_they_are_read() -> None:
    assert names(initial_permit=InitialPermit.IMAGE) == {"Infer", "ModelInfer", "GetReferenceImage"}
    assert names(initial_permit=InitialPermit.LOAD) == {
        "LoadReference",
        "LoadReferenceStream",
        "ImportReference",
        "ExportReference",
    }


def test_calls_that_save_or_read_a_bank_have_the_time_limit_of_a_load() -> None:
    files = {"ImportReference", "ExportReference"}
    loads = {"LoadReference", "LoadReferenceStream", "TuneReference", "RestoreReference"}
    assert names(time_limit=TimeLimit.LOAD) == loads | files


def test_health_and_reflection_and_probes_are_always_answered() -> None:
    probes = {"ServerLive", "ServerReady", "ModelReady"}
    assert names(always_answered=True) == {*HEALTH_CHECKS, "ServerReflectionInfo", *probes}
    assert names(always_answered=True, stays_open=True) == names(stays_open=True) == {"Watch", "ServerReflectionInfo"}


def test_only_messages_with_images_may_be_large() -> None:
    assert names(request_size=RequestSize.LARGE) == LARGE
    for full_name, method in METHODS.items():
        largest = method.max_request_bytes(2**26)
        assert largest == (2**26 if full_name.rpartition("/")[2] in LARGE else 8192)


def test_a_method_that_is_always_answered_needs_no_permit() -> None:
    with pytest.raises(ValueError, match="needs no permit"):
        Method(Scope.INFER, InitialPermit.IMAGE, always_answered=True)


def test_a_message_may_have_all_images_of_a_reference_with_their_names() -> None:
    load = METHODS[f"/{SERVICE}/LoadReference"]
    for count in (1, 1000, 50_000):
        request = reference_pb2.LoadReferenceRequest(images=[b"x"] * count, image_names=["a"] * count)
        check_message(request.SerializeToString(), request.DESCRIPTOR, load.max_request_elements(count))
