"""Routes from the options of the protos."""

from __future__ import annotations

from urllib.parse import quote

import pytest
from fakes.messages import UNARY
from google.api import annotations_pb2
from google.protobuf import descriptor_pb2, descriptor_pool
from google.protobuf.descriptor import ServiceDescriptor
from hypothesis import given
from hypothesis import strategies as st

from patchserve.v1 import service_pb2
from patchserve_server.contract.operations import OPERATIONS
from patchserve_server.domain.errors import InvalidInputError
from patchserve_server.domain.http_errors import HttpMethodError, UnknownPathError
from patchserve_server.web.transcoding.bindings import Router, bindings_of
from patchserve_server.web.transcoding.path_templates import PathTemplate

SERVICE = service_pb2.DESCRIPTOR.services_by_name["PatchCoreService"]
ROUTER = Router(bindings_of(SERVICE))


def test_every_method_that_is_no_stream_has_a_route_and_an_operation() -> None:
    names = [binding.method.name for binding in bindings_of(SERVICE)]
    assert sorted(names) == sorted(method.name for method in UNARY) == sorted(OPERATIONS)


def test_all_routes_are_different() -> None:
    routes = {
        (binding.http_method, binding.template.segments, binding.template.verb) for binding in bindings_of(SERVICE)
    }
    assert len(routes) == len(bindings_of(SERVICE))


@pytest.mark.parametrize(
    ("http_method", "path", "name"),
    [
        ("GET", "/v1/server", "GetServerInfo"),
        ("HEAD", "/v1/server", "GetServerInfo"),
        ("GET", "/v1/server/stats", "GetServerStats"),
        ("GET", "/v1/references", "ListReferences"),
        ("GET", "/v1/references/x", "GetReference"),
        ("DELETE", "/v1/references/x", "DeleteReference"),
        ("POST", "/v1/references/x:load", "LoadReference"),
        ("POST", "/v1/references/x:infer", "Infer"),
        ("POST", "/v1/references/x:tune", "TuneReference"),
        ("POST", "/v1/references/x:restore", "RestoreReference"),
        ("GET", "/v1/references/x/history", "GetReferenceHistory"),
        ("GET", "/v1/references/x/images/0", "GetReferenceImage"),
        ("GET", "/v1/loads", "ListLoads"),
    ],
)
def test_a_path_leads_to_its_method(http_method: str, path: str, name: str) -> None:
    assert ROUTER.find(http_method, path)[0].method.name == name


@given(st.text(min_size=1))
def test_a_variable_is_percent_decoded(text: str) -> None:
    path = f"/v1/references/{quote(text, safe='')}"
    for http_method, suffix in (("GET", ""), ("POST", ":infer")):
        assert ROUTER.find(http_method, path + suffix)[1] == {"reference_id": text}


@pytest.mark.parametrize(
    "path",
    ["/", "/v1", "/v1/", "/v1/x", "/v1/references/x:inferr", "/v1/references/x/y", "/v1//references", "/v1/server/"],
)
def test_other_paths_are_unknown(path: str) -> None:
    for http_method in ("GET", "POST", "BREW"):
        with pytest.raises(UnknownPathError):
            ROUTER.find(http_method, path)


@pytest.mark.parametrize(
    ("http_method", "path", "allowed"),
    [
        ("PUT", "/v1/references/x", ("DELETE", "GET", "HEAD")),
        ("GET", "/v1/references/x:infer", ("POST",)),
        ("HEAD", "/v1/references/x:infer", ("POST",)),
        ("OPTIONS", "/v1/server", ("GET", "HEAD")),
    ],
)
def test_another_method_is_told_those_that_work(http_method: str, path: str, allowed: tuple[str, ...]) -> None:
    with pytest.raises(HttpMethodError) as caught:
        ROUTER.find(http_method, path)
    assert caught.value.allowed == allowed


@pytest.mark.parametrize("path", ["/v1/references/", "/v1/references/:infer", "/v1/references/%ff"])
def test_an_empty_or_undecodable_variable_is_named(path: str) -> None:
    with pytest.raises(InvalidInputError) as caught:
        ROUTER.find("POST" if path.endswith("infer") else "GET", path)
    assert caught.value.field == "reference_id"


@pytest.mark.parametrize("text", ["v1/x", "/v1/{a=**}", "/v1/*", "/v1/{a", "/v1/x:", ""])
def test_a_template_that_is_not_understood_fails_at_the_start(text: str) -> None:
    with pytest.raises(ValueError, match="is not a path"):
        PathTemplate.parse(text)


@pytest.mark.parametrize(
    "rule", [{}, {"post": "/x", "body": "images"}, {"get": "/x/{images}"}, {"get": "/x/{coreset}"}]
)
def test_a_method_without_a_route_that_is_understood_fails_at_the_start(rule: dict[str, str]) -> None:
    with pytest.raises(ValueError, match="Method"):
        bindings_of(service_with(rule))


def service_with(rule: dict[str, str]) -> ServiceDescriptor:
    """A service with one method that takes a LoadReferenceRequest."""
    pool = descriptor_pool.DescriptorPool()
    for file in ("google/protobuf/timestamp.proto", "patchserve/v1/reference.proto"):
        copied = descriptor_pb2.FileDescriptorProto()
        descriptor_pool.Default().FindFileByName(file).CopyToProto(copied)
        pool.Add(copied)
    own = descriptor_pb2.FileDescriptorProto(name="own.proto", syntax="proto3")
    own.dependency.append("patchserve/v1/reference.proto")
    request = ".patchserve.v1.LoadReferenceRequest"
    method = own.service.add(name="Service").method.add(name="Method", input_type=request, output_type=request)
    for name, value in rule.items():
        setattr(method.options.Extensions[annotations_pb2.http], name, value)
    pool.Add(own)
    return pool.FindServiceByName("Service")
