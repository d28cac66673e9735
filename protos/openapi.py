"""Write the OpenAPI document of the contract as JSON to standard output, from a compiled contract with comments.

buf build protos --path protos/patchserve/v1 --path protos/google/rpc --exclude-imports -o - | python -m protos.openapi
"""

from __future__ import annotations

import json
import sys
from typing import Any, Final

from google.api import annotations_pb2
from google.protobuf import descriptor_pb2
from protos.openapi_schemas import DETAILS, PACKAGE, Contract, Field, component, error_detail, leaves, line_of
from protos.protocol_page import comments_of

JSON: Final = "application/json"
STATUS: Final = ".google.rpc.Status"
PATH_EXAMPLES: Final[dict[str, str | int]] = {"reference_id": "default", "index": 0}
SECURITY_SCHEMES: Final = {
    "bearer": {"type": "http", "scheme": "bearer", "description": "A token, or a JWT of a known issuer."},
    "session": {
        "type": "apiKey",
        "in": "cookie",
        "name": "patchserve",
        "description": "The cookie of the server's own page, which POST /session sets. Its name ends with the port.",
    },
}


def main() -> None:
    files = descriptor_pb2.FileDescriptorSet.FromString(sys.stdin.buffer.read()).file
    json.dump(document(list(files)), sys.stdout, indent=2, ensure_ascii=False)
    sys.stdout.write("\n")


def document(files: list[descriptor_pb2.FileDescriptorProto]) -> dict[str, Any]:
    contract = Contract(files)
    (service_file,) = (file for file in files if file.package == PACKAGE and file.service)
    comments, service = comments_of(service_file), service_file.service[0]
    paths: dict[str, dict[str, Any]] = {}
    requests, responses = [], [STATUS, *(f".google.rpc.{name}" for name in DETAILS)]
    for index, method in enumerate(service.method):
        rule = method.options.Extensions[annotations_pb2.http]
        if (verb := rule.WhichOneof("pattern")) is None:
            continue
        path = getattr(rule, verb)
        operation = _operation(contract, method, path, line_of(comments[6, 0, 2, index]), has_body=bool(rule.body))
        paths.setdefault(path, {})[verb] = operation
        requests.append(method.input_type)
        responses.append(method.output_type)
    in_requests = contract.reachable(requests)
    names = sorted({*in_requests, *contract.reachable(responses)})
    schemas = {component(name): contract.schema(name, is_request=name in in_requests) for name in names}
    return {
        "openapi": "3.1.0",
        "info": {
            "title": service.name,
            "version": PACKAGE.rpartition(".")[2],
            "description": line_of(comments[6, 0]),
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "servers": [{"url": "/"}],
        "security": [{"bearer": []}, {"session": []}, {}],
        "paths": paths,
        "components": {"schemas": {**schemas, "ErrorDetail": error_detail()}, "securitySchemes": SECURITY_SCHEMES},
    }


def _operation(
    contract: Contract,
    method: descriptor_pb2.MethodDescriptorProto,
    path: str,
    description: str,
    *,
    has_body: bool,
) -> dict[str, Any]:
    summary = f"{description.partition('. ')[0].removesuffix('.')}."  # the first sentence
    operation: dict[str, Any] = {"operationId": method.name, "summary": summary, "description": description}
    parameters = []
    for name, owner, field in leaves(contract, method.input_type):
        is_in_path = f"{{{name}}}" in path
        if is_in_path or not (has_body or field.type_name in contract.messages):
            parameters.append(_parameter(contract, name, owner, field, is_in_path=is_in_path))
    if parameters:
        operation["parameters"] = parameters
    if has_body:
        content = {JSON: {"schema": _ref(method.input_type)}, "multipart/form-data": _form(contract, method, path)}
        operation["requestBody"] = {"content": content}
    operation["responses"] = {
        "200": _answer(method.output_type, contract.comments[method.output_type]),
        "default": _answer(STATUS, "An error, with the code of HTTP for its code of gRPC."),
    }
    return operation


def _parameter(contract: Contract, name: str, owner: str, field: Field, *, is_in_path: bool) -> dict[str, Any]:
    described = contract.property_of(owner, field)
    description = described.pop("description")
    if not is_in_path:
        return {"name": name, "in": "query", "description": description, "schema": described}
    description = description.partition(" Empty: ")[0]  # a part of a path is never empty
    example = {"example": PATH_EXAMPLES[name]}
    return {"name": name, "in": "path", "description": description, "required": True, **example, "schema": described}


def _form(contract: Contract, method: descriptor_pb2.MethodDescriptorProto, path: str) -> dict[str, Any]:
    """A file for each image, and text for each other field; that of a message or a list is JSON."""
    properties = {}
    for name, owner, field in leaves(contract, method.input_type):
        if f"{{{name}}}" in path:
            continue
        schema = contract.property_of(owner, field)
        if field.type == Field.TYPE_BYTES:
            file = {"contentMediaType": "application/octet-stream"}
            is_list = field.label == Field.LABEL_REPEATED
            schema = {**({"type": "array", "items": file} if is_list else file), "description": schema["description"]}
        properties[name] = schema
    return {"schema": {"type": "object", "properties": properties, "additionalProperties": False}}


def _answer(message: str, description: str) -> dict[str, Any]:
    return {"description": description, "content": {JSON: {"schema": _ref(message)}}}


def _ref(message: str) -> dict[str, str]:
    return {"$ref": f"#/components/schemas/{component(message)}"}


if __name__ == "__main__":
    main()
