"""The output of a runner in one form for all languages, and its comparison with the expectation."""

from __future__ import annotations

import base64
import io
import math
from typing import Any

from conformance.calls import Json, method_of
from google.protobuf import json_format, message_factory
from google.rpc import code_pb2
from PIL import Image

TOLERANCE = 1e-4  # of scores: images that happen to share a batch may differ in the last bits
_IMAGES = ("overlay_png", "image", "values")


def full(rpc: str, response: Json) -> Json:
    """A response with all fields by their proto names, defaults included, and a description instead of bytes."""
    message = message_factory.GetMessageClass(method_of(rpc).output_type)()
    json_format.ParseDict(response, message)
    response = described(
        json_format.MessageToDict(message, preserving_proto_field_name=True, always_print_fields_with_no_presence=True)
    )
    assert isinstance(response, dict)
    return response


def described(value: Any, name: str = "") -> Any:
    """Images as "PNG 320x240" or "12 bytes", errors in streams as code, reason and fields, and no times."""
    if isinstance(value, list):
        return [described(item, name) for item in value]
    if isinstance(value, dict):
        if name == "error":
            return status_facts(value)
        return {
            key: described(item, key)
            for key, item in value.items()
            if key not in ("timing", "create_time", "update_time", "ms_per_image")
        }
    if name in _IMAGES and value:
        return image_facts(base64.b64decode(value))
    return value


def image_facts(content: bytes) -> str:
    try:
        with Image.open(io.BytesIO(content)) as image:
            image.load()
            return f"{image.format} {image.width}x{image.height}"
    except OSError:
        return f"{len(content)} bytes"


def status_facts(status: Json) -> Json:
    """A google.rpc.Status as JSON -> code, reason, fields."""
    details = {detail["@type"].rpartition(".")[2]: detail for detail in status["details"]}
    violations = details.get("BadRequest", {}).get("field_violations", [])
    return {
        "code": code_pb2.Code.Name(status["code"]),
        "reason": details["ErrorInfo"]["reason"],
        "fields": [violation["field"] for violation in violations],
    }


def facts(case: Json, line: Json) -> Json:
    """The line of a runner in the form of an expectation."""
    error = line["error"] or {}
    return {
        "code": line["code"],
        "reason": error.get("reason"),
        "fields": [violation["field"] for violation in error.get("field_violations", [])],
        "subjects": [violation["subject"] for violation in error.get("precondition_violations", [])],
        "resource": error.get("resource_name"),
        "retry": error.get("retry_after_s") is not None,
        "responses": [full(case["rpc"], response) for response in line["responses"]],
        "calls": [
            facts(step["call"], call)
            for step, call in zip(
                (step for step in case.get("steps", []) if "call" in step), line["calls"], strict=True
            )
        ],
    }


def differences(expected: Any, found: Any, where: str = "") -> list[str]:
    """Where `found` differs from `expected`. Objects are compared by the keys of `expected`."""
    if isinstance(expected, dict):
        if not isinstance(found, dict):
            return [f"{where}: {found!r} is no object"]
        return [
            line for key, value in expected.items() for line in differences(value, found.get(key), f"{where}.{key}")
        ]
    if isinstance(expected, list):
        if not isinstance(found, list) or len(found) != len(expected):
            return [f"{where}: {len(expected)} expected, not {found!r}"]
        pairs = enumerate(zip(expected, found, strict=True))
        return [line for index, pair in pairs for line in differences(*pair, f"{where}[{index}]")]
    if isinstance(expected, float) and isinstance(found, int | float):
        same = math.isclose(expected, found, rel_tol=TOLERANCE, abs_tol=TOLERANCE)
    else:
        same = bool(found) if expected == "*" else expected == found
    return [] if same else [f"{where}: {expected!r} expected, not {found!r}"]


def unmet(case: Json, found: Json) -> list[str]:
    """The parts of a case's expectation that do not hold."""
    expected = {"code": "OK", **case["expect"]}
    count, some = expected.pop("count", None), expected.pop("any", [])
    for call in expected.get("calls", []):
        call.setdefault("code", "OK")
    lines = differences(expected, found)
    if count is not None and len(found["responses"]) != count:
        lines.append(f"{count} responses expected, not {len(found['responses'])}")
    lines += [f"no response is {one}" for one in some if all(differences(one, it) for it in found["responses"])]
    return lines
