"""The contract as JSON, over a real socket: every method, its errors, and the same answers as gRPC."""

from __future__ import annotations

import base64
import io
import json
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import requests
from e2e.harness import connect
from e2e.in_process import RunningServer, running_server
from fakes.images import card, encoded
from google.protobuf import json_format
from PIL import Image

from patchserve.v1 import inference_pb2, reference_pb2
from patchserve_server.access.tokens import new_token
from patchserve_server.domain.callers import Scope

TIMEOUT_S = 60
IMAGES = [encoded(card(seed)) for seed in range(3)]
DAMAGED = encoded(card(7, scratched=True))
JSON = {"content-type": "application/json"}


@pytest.fixture(scope="module")
def server() -> Iterator[RunningServer]:
    with running_server(max_message_mib=1, max_image_mib=1) as running, connect(running.address) as stub:
        names = [f"card {number}.jpg" for number in range(3)]
        stub.LoadReference(reference_pb2.LoadReferenceRequest(reference_id="cards", images=IMAGES, image_names=names))
        yield running


def text_of(image: bytes) -> str:
    return base64.b64encode(image).decode()


def call(server: RunningServer, http_method: str, path: str, **arguments: Any) -> requests.Response:
    return requests.request(http_method, f"{server.http_url}{path}", timeout=TIMEOUT_S, **arguments)


def answer(server: RunningServer, http_method: str, path: str, **arguments: Any) -> dict[str, Any]:
    response = call(server, http_method, path, **arguments)
    assert response.status_code == 200, response.text
    assert response.headers["content-type"] == "application/json"
    result: dict[str, Any] = response.json()
    return result


def refusal(server: RunningServer, http_method: str, path: str, **arguments: Any) -> tuple[int, str, str]:
    """The HTTP code, the reason, and the field if there is one."""
    response = call(server, http_method, path, **arguments)
    assert response.headers["content-type"] == "application/json"
    error = response.json()
    assert error["message"]
    details = {detail["@type"].rpartition(".")[2]: detail for detail in error["details"]}
    assert details["ErrorInfo"]["domain"] == "patchserve.v1"
    violations = details.get("BadRequest", {"field_violations": [{"field": ""}]})["field_violations"]
    return response.status_code, details["ErrorInfo"]["reason"], violations[0]["field"]


def test_json_and_grpc_give_the_same_result(server: RunningServer) -> None:
    body = {"image": text_of(DAMAGED), "output": {"overlay": True, "scoreMap": True, "max_regions": 3}}
    over_http = answer(server, "POST", "/v1/references/cards:infer", json=body)
    output = inference_pb2.OutputOptions(overlay=True, score_map=True, max_regions=3)
    with connect(server.address) as stub:
        over_grpc = stub.Infer(inference_pb2.InferRequest(reference_id="cards", image=DAMAGED, output=output))
    over_http.pop("timing")
    over_grpc.ClearField("timing")
    assert json_format.ParseDict(over_http, inference_pb2.InferResponse()) == over_grpc
    assert base64.b64decode(over_http["overlay_png"]) == over_grpc.overlay_png != b""


def test_a_form_and_json_give_the_same_result(server: RunningServer) -> None:
    body = {"image": text_of(DAMAGED), "output": {"overlay": True, "max_regions": 3}, "image_name": "ä.jpg"}
    as_json = answer(server, "POST", "/v1/references/cards:infer", json=body)
    by_path = {"output.overlay": "true", "output.maxRegions": "3"}
    for values in (by_path, {"output": json.dumps(body["output"])}):
        files = {"image": ("ä.jpg", DAMAGED)}
        as_form = answer(server, "POST", "/v1/references/cards:infer", files=files, data=values)
        assert as_form | {"timing": None} == as_json | {"timing": None}


def test_what_is_false_zero_or_empty_is_there(server: RunningServer) -> None:
    body = {"image": text_of(IMAGES[0]), "output": {"sensitivity": 0.1}}
    infer = answer(server, "POST", "/v1/references/cards:infer", json=body)
    assert infer["anomaly"]["is_anomalous"] is False
    assert (infer["regions"], infer["overlay_png"]) == ([], "")
    assert "score_map" not in infer
    assert answer(server, "GET", "/v1/loads") == {"loads": []}


def test_a_reference_is_loaded_tuned_listed_and_deleted(server: RunningServer) -> None:
    files = [("images", (f"{number}.jpg", image)) for number, image in enumerate(IMAGES)]
    loaded = answer(server, "POST", "/v1/references/a.b-c:load", files=files, data={"coreset.max_patches": "16"})
    assert (loaded["reference"]["image_count"], loaded["reference"]["coreset"]["max_patches"]) == (3, 16)
    shown = answer(server, "GET", "/v1/references/a%2Eb-c")
    assert [image["name"] for image in shown["images"]] == ["0.jpg", "1.jpg", "2.jpg"]
    body = {"sensitivity": 2, "expected_revision": shown["reference"]["revision"]}
    tuned = answer(server, "POST", "/v1/references/a.b-c:tune", json=body)["reference"]
    assert tuned["sensitivity"] == 2.0
    page = answer(server, "GET", "/v1/references?page_size=1")
    assert [one["reference_id"] for one in page["references"]] == ["a.b-c"]
    page = answer(server, "GET", f"/v1/references?pageToken={page['next_page_token']}")
    assert [one["reference_id"] for one in page["references"]] == ["cards"]
    stale = refusal(server, "DELETE", f"/v1/references/a.b-c?expected_revision={shown['reference']['revision']}")
    assert stale[:2] == (400, "REVISION_MISMATCH")
    restored = answer(server, "POST", "/v1/references/a.b-c:restore")["reference"]
    assert (restored["revision"], restored["sensitivity"]) == (shown["reference"]["revision"], 1.0)
    deleted = answer(server, "DELETE", f"/v1/references/a.b-c?expected_revision={restored['revision']}")
    assert deleted == {"revision": restored["revision"]}


def test_an_image_of_a_reference_is_base64(server: RunningServer) -> None:
    image = answer(server, "GET", "/v1/references/cards/images/2")
    assert (image["media_type"], image["name"]) == ("image/png", "card 2.jpg")
    assert Image.open(io.BytesIO(base64.b64decode(image["image"]))).size == (image["width_px"], image["height_px"])


def test_the_server_describes_itself(server: RunningServer) -> None:
    info = answer(server, "GET", "/v1/server")
    assert info["http_url"] == server.http_url
    assert info["limits"]["max_message_bytes"] == str(2**20)  # 64 bits are a string
    head = call(server, "HEAD", "/v1/server")
    assert (head.status_code, head.text) == (200, "")


HOSTILE = [
    ("GET", "/v1/references/a%2Fb", {}, (400, "INVALID_FIELD", "reference_id")),
    ("GET", "/v1/references/%2e%2e", {}, (400, "INVALID_FIELD", "reference_id")),
    ("GET", "/v1/references/%00", {}, (400, "INVALID_FIELD", "reference_id")),
    ("GET", "/v1/references/%ff", {}, (400, "INVALID_FIELD", "reference_id")),
    ("GET", "/v1/references/%E2%82%AC", {}, (400, "INVALID_FIELD", "reference_id")),
    ("GET", "/v1/references/" + "a" * 65, {}, (400, "INVALID_FIELD", "reference_id")),
    ("GET", "/v1/references/" + "a" * 2000, {}, (400, "INVALID_FIELD", "reference_id")),
    ("GET", "/v1/references/", {}, (400, "INVALID_FIELD", "reference_id")),
    ("POST", "/v1/references/:infer", {"json": {}}, (400, "INVALID_FIELD", "reference_id")),
    ("GET", "/v1/references/nothing", {}, (404, "REFERENCE_NOT_FOUND", "")),
    ("GET", "/v1/references/\xff", {}, (400, "INVALID_FIELD", "reference_id")),
    ("GET", "/v1/references/cards/images/first", {}, (400, "INVALID_FIELD", "index")),
    ("GET", "/v1/references/cards/images/-1", {}, (400, "INVALID_FIELD", "index")),
    ("GET", "/v1/references/cards/images/3", {}, (400, "INVALID_FIELD", "index")),
    ("GET", "/v1/references?page_size=1001", {}, (400, "INVALID_FIELD", "page_size")),
    ("GET", "/v1/references?page_size=many", {}, (400, "INVALID_FIELD", "page_size")),
    ("GET", "/v1/references?page_size=1&page_size=2", {}, (400, "INVALID_FIELD", "page_size")),
    ("GET", "/v1/references?pagesize=1", {}, (400, "INVALID_FIELD", "pagesize")),
    ("GET", "/v1/references/cards?reference_id=other", {}, (400, "INVALID_FIELD", "reference_id")),
    ("GET", "/v1/references?" + "x=1&" * 200, {}, (400, "INVALID_FIELD", "")),
    ("GET", "/v1/references?page_token=%ff", {}, (400, "INVALID_FIELD", "")),
    ("GET", "/v1/references", {"data": b"{}", "headers": JSON}, (400, "INVALID_FIELD", "")),
    ("POST", "/v1/references/cards:infer?image_name=x", {"json": {}}, (400, "INVALID_FIELD", "")),
    ("POST", "/v1/references/cards:infer", {"json": {}}, (400, "EMPTY_IMAGE", "image")),
    ("POST", "/v1/references/cards:infer", {}, (400, "EMPTY_IMAGE", "image")),
    ("POST", "/v1/references/cards:infer", {"json": []}, (400, "MALFORMED_MESSAGE", "")),
    ("POST", "/v1/references/cards:infer", {"json": {"image": "AAAA"}}, (400, "UNDECODABLE_IMAGE", "image")),
    ("POST", "/v1/references/cards:load", {"json": {"images": ["AAAA"]}}, (400, "UNDECODABLE_IMAGE", "images[0]")),
    ("POST", "/v1/references/cards:infer", {"json": {"image": "A?"}}, (400, "INVALID_FIELD", "image")),
    ("POST", "/v1/references/cards:infer", {"json": {"referenceId": "b"}}, (400, "INVALID_FIELD", "reference_id")),
    ("POST", "/v1/references/cards:infer", {"data": b"[" * 100_000, "headers": JSON}, (400, "MALFORMED_MESSAGE", "")),
    ("POST", "/v1/references/cards:infer", {"data": b"{" * 2**21, "headers": JSON}, (413, "REQUEST_TOO_LARGE", "")),
    ("POST", "/v1/references/cards:tune", {"data": b" " * 20_000, "headers": JSON}, (413, "REQUEST_TOO_LARGE", "")),
    ("POST", "/v1/references/cards:infer", {"data": {"image": "x"}}, (415, "UNSUPPORTED_MEDIA_TYPE", "content-type")),
    ("POST", "/v1/references/cards:infer", {"data": DAMAGED}, (415, "UNSUPPORTED_MEDIA_TYPE", "content-type")),
    (
        "POST",
        "/v1/references/cards:infer",
        {"data": b"{}", "headers": {"content-type": "application/json; charset=latin-1"}},
        (415, "UNSUPPORTED_MEDIA_TYPE", "content-type"),
    ),
    ("POST", "/v1/references/cards:infer", {"files": {"picture": DAMAGED}}, (400, "INVALID_FIELD", "picture")),
    ("POST", "/v1/references/cards:inferr", {"json": {}}, (404, "UNKNOWN_PATH", "")),
    ("GET", "/v1", {}, (404, "UNKNOWN_PATH", "")),
    ("GET", "/v1/", {}, (404, "UNKNOWN_PATH", "")),
    ("GET", "/v1/references/cards:infer", {}, (405, "HTTP_METHOD", "")),
]


@pytest.mark.parametrize(("http_method", "path", "arguments", "expected"), HOSTILE)
def test_bad_requests_get_a_clear_error(
    http_method: str, path: str, arguments: dict[str, Any], expected: tuple[int, str, str], server: RunningServer
) -> None:
    assert refusal(server, http_method, path, **arguments) == expected


def test_bytes_in_a_path_that_are_not_ascii_are_an_error_of_the_caller(server: RunningServer) -> None:
    host, _, port = server.http_url.removeprefix("http://").partition(":")
    with socket.create_connection((host, int(port)), TIMEOUT_S) as connection:
        head = f"Host: {host}:{port}\r\nConnection: close\r\n\r\n".encode()
        connection.sendall(b"GET /v1/references/\xff?page_size=\xff HTTP/1.1\r\n" + head)
        assert connection.makefile("rb").readline().split()[1] == b"400"


def test_another_method_of_http_is_told_those_that_work(server: RunningServer) -> None:
    assert call(server, "PUT", "/v1/references/cards").headers["allow"] == "DELETE, GET, HEAD"
    assert call(server, "OPTIONS", "/v1/references/cards:infer").headers["allow"] == "POST"


def test_an_image_of_the_largest_message_fits_as_base64(server: RunningServer) -> None:
    image = encoded(card(0)) + bytes(1000 * 1024)  # a JPEG may have anything behind its end
    size = answer(server, "POST", "/v1/references/cards:infer", json={"image": text_of(image)})
    assert size["anomaly"]["raw_score"] >= 0
    too_large = {"json": {"image": text_of(bytes(2**20 + 1))}}
    assert refusal(server, "POST", "/v1/references/cards:infer", **too_large) == (413, "REQUEST_TOO_LARGE", "")


def test_scopes_are_those_of_grpc(tmp_path: Path) -> None:
    token, entry = new_token("robot", [Scope.INFER])
    (tmp_path / "tokens").write_text(f"{entry}\n")
    with running_server(auth_tokens=tmp_path / "tokens") as server:
        bearer = {"authorization": f"Bearer {token}"}
        assert refusal(server, "GET", "/v1/server") == (401, "NO_CREDENTIALS", "")
        assert call(server, "GET", "/v1/server").headers["www-authenticate"] == "Bearer"
        assert answer(server, "GET", "/v1/references", headers=bearer)["references"] == []
        assert refusal(server, "GET", "/v1/loads", headers=bearer) == (403, "SCOPE_MISSING", "")
        assert refusal(server, "DELETE", "/v1/references/x", headers=bearer) == (403, "SCOPE_MISSING", "")
        assert call(server, "GET", "/openapi.json").status_code == 200
