"""The OpenAPI document: valid, complete, and true of what a real server answers and takes."""

from __future__ import annotations

import base64
from collections.abc import Iterator
from typing import Any

import jsonschema
import pytest
import requests
from e2e.in_process import RunningServer, running_server
from fakes.images import card, encoded
from fakes.messages import UNARY
from openapi_spec_validator import OpenAPIV31SpecValidator

TIMEOUT_S = 60
IMAGES = [base64.b64encode(encoded(card(seed))).decode() for seed in range(3)]
INFER = "/v1/references/{reference_id}:infer"
LOAD = "/v1/references/{reference_id}:load"


@pytest.fixture(scope="module")
def server() -> Iterator[RunningServer]:
    with running_server() as running:
        yield running


@pytest.fixture(scope="module")
def document(server: RunningServer) -> dict[str, Any]:
    result: dict[str, Any] = requests.get(f"{server.http_url}/openapi.json", timeout=TIMEOUT_S).json()
    return result


def operations(document: dict[str, Any]) -> dict[str, dict[str, Any]]:
    return {one["operationId"]: one for path in document["paths"].values() for one in path.values()}


def validate(document: dict[str, Any], schema: dict[str, Any], value: object) -> None:
    """Checks a value against a schema of the document."""
    whole = {**schema, "components": document["components"]}
    jsonschema.Draft202012Validator(whole).validate(value)


def closed(value: Any) -> Any:
    """The document in which no object has other fields than those that are named."""
    if isinstance(value, list):
        return [closed(one) for one in value]
    if not isinstance(value, dict):
        return value
    inner = {name: closed(one) for name, one in value.items()}
    return {"additionalProperties": False, **inner} if isinstance(value.get("properties"), dict) else inner


def test_the_document_is_valid(document: dict[str, Any]) -> None:
    OpenAPIV31SpecValidator(document).validate()


def test_every_operation_has_a_summary_and_every_path_an_example(document: dict[str, Any]) -> None:
    for operation in operations(document).values():
        assert operation["description"].startswith(operation["summary"])
        for parameter in operation.get("parameters", []):
            assert parameter["in"] == "query" or "example" in parameter
            assert parameter["in"] == "query" or "Empty" not in parameter["description"]


def test_every_method_that_is_no_stream_is_described(document: dict[str, Any]) -> None:
    assert operations(document).keys() == {method.name for method in UNARY}
    assert all(operation["description"] for operation in operations(document).values())
    for name, schema in document["components"]["schemas"].items():
        fields = {} if name.startswith("google.") else schema.get("properties", {})
        assert all(one["description"] for one in (schema, *fields.values())), name


def test_answers_have_the_schemas_of_the_document(server: RunningServer, document: dict[str, Any]) -> None:
    polygon = {"points": [{"x": 0.1, "y": 0.1}, {"x": 0.9, "y": 0.1}, {"x": 0.5, "y": 0.9}]}
    load = {"images": IMAGES, "region_of_interest": [polygon], "search_radius": 0.5, "coreset": {"ratio": 0.5}}
    every_output = {"overlay": True, "score_map": True, "sensitivity": 10}
    calls: list[tuple[str, str, str, dict[str, Any] | None]] = [
        ("LoadReference", "post", "/v1/references/a:load", load),
        ("GetReference", "get", "/v1/references/a", None),
        ("ListReferences", "get", "/v1/references", None),
        ("ListLoads", "get", "/v1/loads", None),
        ("Infer", "post", "/v1/references/a:infer", {"image": IMAGES[0], "output": every_output}),
        ("TuneReference", "post", "/v1/references/a:tune", {"sensitivity": 2}),
        ("RestoreReference", "post", "/v1/references/a:restore", {}),
        ("GetReferenceHistory", "get", "/v1/references/a/history", None),
        ("GetReferenceImage", "get", "/v1/references/a/images/0", None),
        ("GetServerInfo", "get", "/v1/server", None),
        ("GetServerStats", "get", "/v1/server/stats", None),
        ("DeleteReference", "delete", "/v1/references/a", None),
    ]
    assert {name for name, *_ in calls} == {method.name for method in UNARY}
    strict = closed(document)
    for name, http_method, path, body in calls:
        operation = operations(strict)[name]
        if body is not None:
            validate(strict, operation["requestBody"]["content"]["application/json"]["schema"], body)
        answer = requests.request(http_method, server.http_url + path, json=body, timeout=TIMEOUT_S)
        assert answer.status_code == 200, answer.text
        validate(strict, operation["responses"]["200"]["content"]["application/json"]["schema"], answer.json())


@pytest.mark.parametrize("path", ["/v1/references/a", "/v1/references/%00", "/v1/nothing", "/v1/references?x=1"])
def test_errors_have_the_schema_of_the_document(path: str, server: RunningServer, document: dict[str, Any]) -> None:
    answer = requests.get(server.http_url + path, timeout=TIMEOUT_S)
    assert answer.status_code in (400, 404)
    strict = closed(document)
    schema = operations(strict)["GetReference"]["responses"]["default"]["content"]["application/json"]["schema"]
    validate(strict, schema, answer.json())


@pytest.mark.parametrize(
    "body", [{"imag": ""}, {"output": {"max_regions": -1}}, {"output": {"heatmap_scale": "RED"}}, {"image": 1}, []]
)
def test_what_the_document_forbids_the_server_refuses(
    body: object, server: RunningServer, document: dict[str, Any]
) -> None:
    schema = document["paths"][INFER]["post"]["requestBody"]["content"]["application/json"]["schema"]
    with pytest.raises(jsonschema.ValidationError):
        validate(document, schema, body)
    answer = requests.post(f"{server.http_url}/v1/references/a:infer", json=body, timeout=TIMEOUT_S)
    assert answer.status_code == 400


def test_the_form_has_a_file_for_each_image_and_a_text_for_each_other_field(document: dict[str, Any]) -> None:
    form = document["paths"][LOAD]["post"]["requestBody"]["content"]["multipart/form-data"]["schema"]["properties"]
    assert form["images"]["items"] == {"contentMediaType": "application/octet-stream"}
    assert form["coreset.max_patches"]["type"] == "integer"
    assert "reference_id" not in form
