"""What the documented HTTP service answers to bad input, to callers without a right, and to those who leave."""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
import requests
from e2e.documented import GOOD, TIMEOUT_S, assert_error, get, post
from e2e.in_process import RunningServer, running_server
from fakes.detector import FakeDetector
from fakes.waiting import wait_until

from patchserve_server.access.tokens import new_token
from patchserve_server.bootstrap import composition
from patchserve_server.domain.callers import Scope
from patchserve_server.serving.admission import NOTHING, Capacity
from patchserve_server.serving.application import Application


@pytest.fixture(scope="module")
def server() -> Iterator[RunningServer]:
    """A server with the reference `default`."""
    with running_server() as server:
        assert post(server, "load_reference", GOOD).status_code == 200
        yield server


def test_without_a_reference_the_memory_bank_is_not_loaded(server: RunningServer) -> None:
    with running_server() as empty:
        for path in ("infer", "infer_json"):
            for images in ([GOOD], [b"no image"], []):
                answer = post(empty, path, *images)
                assert_error(answer, 404, "REFERENCE_NOT_FOUND", "")
                assert answer.json()["error"] == "Memory bank not loaded"
    answer = post(server, "infer", GOOD, reference_id="missing")
    assert_error(answer, 404, "REFERENCE_NOT_FOUND", 'Memory bank not loaded: there is no reference "missing"')


PATHS = ("load_reference", "infer", "infer_json")


@pytest.mark.parametrize("path", PATHS)
def test_a_request_without_an_image_says_so(server: RunningServer, path: str) -> None:
    url = f"{server.http_url}/{path}"
    chosen_no_file = {"image": ("", b"")}
    for answer in (
        requests.post(url, timeout=TIMEOUT_S),
        requests.post(url, files={"reference_id": (None, "default")}, timeout=TIMEOUT_S),
        requests.post(url, files=chosen_no_file, timeout=TIMEOUT_S),
    ):
        assert_error(answer, 400, "INVALID_FIELD", "No image file provided")
    forgotten_at_sign = requests.post(url, files={"image": (None, "a.jpg")}, timeout=TIMEOUT_S)  # curl -F image=a.jpg
    assert_error(
        forgotten_at_sign, 400, "INVALID_FIELD", "No image file provided: image is text. curl sends a file with @"
    )


@pytest.mark.parametrize("path", PATHS)
def test_bad_input_gets_a_sentence_and_changes_nothing(server: RunningServer, path: str) -> None:
    url = f"{server.http_url}/{path}"
    before = post(server, "infer_json", GOOD).json()["reference_revision"]
    assert_error(post(server, path, b"no image"), 400, "UNDECODABLE_IMAGE", "not a JPEG, PNG")
    assert_error(post(server, path, b""), 400, "EMPTY_IMAGE", "empty")
    assert_error(post(server, path, GOOD, reference_id="a/b"), 400, "INVALID_FIELD", "reference_id")
    assert_error(post(server, path, GOOD, sensitivity="2"), 400, "INVALID_FIELD", "only: image, reference_id")
    upload = {"reference_id": ("id.txt", b"default")}
    assert_error(requests.post(url, files=upload, timeout=TIMEOUT_S), 400, "INVALID_FIELD", "text, not a file")
    for sent in ({"data": GOOD}, {"json": {"image": "..."}}, {"data": {"reference_id": "default"}}):
        answer = requests.post(url, timeout=TIMEOUT_S, **sent)
        assert_error(answer, 415, "UNSUPPORTED_MEDIA_TYPE", "multipart/form-data")
    headers = {"content-type": "multipart/form-data; boundary=b"}
    answer = requests.post(url, data=b"--b\r\n", headers=headers, timeout=TIMEOUT_S)
    assert_error(answer, 400, "MALFORMED_MESSAGE", "ends before the final boundary")
    assert post(server, "infer_json", GOOD).json()["reference_revision"] == before


def test_two_images_are_too_many_to_inspect(server: RunningServer) -> None:
    assert_error(post(server, "infer", GOOD, GOOD), 400, "INVALID_FIELD", "at most 1 file ")


def test_an_unknown_output_says_why_it_may_be_gone(server: RunningServer) -> None:
    for name in ("result_12345.png", "..%2Fserver.py", "x" * 300):
        assert_error(get(server, f"outputs/{name}"), 404, "OUTPUT_NOT_FOUND" if "%" not in name else "UNKNOWN_PATH", "")
    assert_error(get(server, "outputs/result_12345.png"), 404, "OUTPUT_NOT_FOUND", "kept for a few minutes")


def test_an_unknown_path_and_a_wrong_method_are_errors_of_the_same_form(server: RunningServer) -> None:
    assert_error(get(server, "predict"), 404, "UNKNOWN_PATH", "nothing at this path")
    assert_error(get(server, "health/"), 404, "UNKNOWN_PATH", "No path ends with a slash.")
    answer = get(server, "infer")
    assert_error(answer, 405, "HTTP_METHOD", "POST only")
    assert answer.headers["allow"] == "POST"
    answer = requests.delete(f"{server.http_url}/health", timeout=TIMEOUT_S)
    assert_error(answer, 405, "HTTP_METHOD", "GET only")


@pytest.mark.parametrize("path", ["v1/nothing", "session/nothing", "watch/nothing"])
def test_unknown_paths_of_other_parts_have_the_errors_of_these_parts(server: RunningServer, path: str) -> None:
    answer = get(server, path)
    assert (answer.status_code, answer.json()["code"]) == (404, 5)
    assert answer.json()["details"][0]["reason"] == "UNKNOWN_PATH"


def test_a_token_is_needed_where_the_server_needs_one(tmp_path: Path) -> None:
    infer, infer_line = new_token("camera", [Scope.INFER])
    manage, manage_line = new_token("operator", [Scope.MANAGE])
    (tmp_path / "tokens").write_text(f"{infer_line}\n{manage_line}\n")
    with running_server(auth_tokens=tmp_path / "tokens") as server:

        def request(path: str, token: str | None, method: str = "POST") -> requests.Response:
            headers = {"authorization": f"Bearer {token}"} if token else {}
            files = {"image": ("a.jpg", GOOD)} if method == "POST" else None
            return requests.request(
                method, f"{server.http_url}/{path}", headers=headers, files=files, timeout=TIMEOUT_S
            )

        assert request("health", None, "GET").status_code == 200
        assert get(server, "", accept="text/html").status_code == 200, "the page asks for the token"
        for path, method in (("load_reference", "POST"), ("infer", "POST"), ("outputs/a.png", "GET"), ("", "GET")):
            answer = request(path, None, method)
            assert_error(answer, 401, "NO_CREDENTIALS", "token")
            assert answer.headers["www-authenticate"] == "Bearer"
        assert_error(request("load_reference", infer), 403, "SCOPE_MISSING", '"manage"')
        assert request("load_reference", manage).status_code == 200
        assert_error(request("infer_json", manage), 403, "SCOPE_MISSING", '"infer"')
        name = request("infer_json", infer).json()["output_image"]
        assert_error(request(f"outputs/{name}", manage, "GET"), 403, "SCOPE_MISSING", '"infer"')
        assert request(f"outputs/{name}", infer, "GET").status_code == 200


def connection_to(server: RunningServer) -> socket.socket:
    address = urlsplit(server.http_url)
    return socket.create_connection((address.hostname, address.port), timeout=TIMEOUT_S)


HEAD = (
    b"POST /infer HTTP/1.1\r\nHost: localhost\r\nContent-Length: %d\r\n"
    b"Content-Type: multipart/form-data; boundary=b\r\n\r\n"
)
PART = b'--b\r\nContent-Disposition: form-data; name="image"; filename="a.jpg"\r\n\r\n'


def test_a_body_that_says_it_is_too_large_is_refused_before_it_is_sent(server: RunningServer) -> None:
    with connection_to(server) as connection:
        connection.sendall(HEAD % 10**12)
        assert connection.recv(4096).startswith(b"HTTP/1.1 413 ")


def test_a_body_that_does_not_say_its_length_is_refused_when_it_is_too_large() -> None:
    def chunks() -> Iterator[bytes]:
        yield PART
        for _ in range(48):
            yield bytes(2**16)

    with running_server(max_message_mib=1, max_image_mib=1, max_pending_mib=16) as server:
        post(server, "load_reference", GOOD)
        headers = {"content-type": "multipart/form-data; boundary=b"}
        answer = requests.post(f"{server.http_url}/infer", data=chunks(), headers=headers, timeout=TIMEOUT_S)
        assert_error(answer, 413, "REQUEST_TOO_LARGE", "1,048,576 bytes")
        assert post(server, "infer", GOOD).status_code == 200, "all of it is given back"


def test_an_image_over_the_limit_is_413() -> None:
    with running_server(max_image_mib=1) as server:
        post(server, "load_reference", GOOD)
        for path in PATHS:
            assert_error(post(server, path, bytes(2**20 + 1)), 413, "IMAGE_TOO_LARGE", "1,048,576 bytes")


def test_more_images_than_a_reference_takes_are_refused() -> None:
    with running_server(max_reference_images=2) as server:
        assert_error(post(server, "load_reference", *[GOOD] * 3), 400, "INVALID_FIELD", "at most 2 files")
        assert post(server, "load_reference", *[GOOD] * 2).status_code == 200


@contextmanager
def server_and_counters(detector: FakeDetector) -> Iterator[tuple[RunningServer, Callable[[], list[Capacity]]]]:
    """A server with the reference `default`, and what its callers hold: calls, images, loads."""
    applications: list[Application] = []
    create = composition.create_application

    async def create_and_keep(*arguments: Any) -> Application:
        applications.append(await create(*arguments))
        return applications[-1]

    with ExitStack() as stack:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(composition, "create_application", create_and_keep)
            server = stack.enter_context(running_server(detector=detector, first_message_timeout_s=TIMEOUT_S))
        stack.callback(detector.gate.set)
        post(server, "load_reference", GOOD)
        [at] = applications
        yield server, lambda: [admission.held for admission in (at.calls, at.images, at.loads)]


BODY = PART + GOOD + b"\r\n--b--\r\n"


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("sent", [0, len(PART), len(BODY) // 2, len(BODY) - 1])
def test_a_caller_who_leaves_in_the_middle_of_its_body_leaves_nothing_behind(path: str, sent: int) -> None:
    with server_and_counters(FakeDetector()) as (server, held):
        with connection_to(server) as connection:
            connection.sendall((HEAD % len(BODY)).replace(b"infer", path.encode(), 1) + BODY[:sent])
            wait_until(lambda: held()[0] == Capacity(1))
        wait_until(lambda: held() == [NOTHING] * 3)
        assert post(server, "infer", GOOD).status_code == 200


@pytest.mark.parametrize("path", ["infer", "infer_json"])
def test_a_caller_who_leaves_while_its_image_is_scored_leaves_nothing_behind(path: str) -> None:
    detector = FakeDetector()
    with server_and_counters(detector) as (server, held):
        detector.gate.clear()
        with connection_to(server) as connection:
            connection.sendall((HEAD % len(BODY)).replace(b"infer", path.encode(), 1) + BODY)
            wait_until(lambda: len(detector.batches) == 1)
            assert held()[1].count == 1
            assert held()[1].bytes >= len(BODY)
        wait_until(lambda: held() == [NOTHING] * 3)


def test_a_reference_stays_as_it_was_when_its_replacement_fails(server: RunningServer) -> None:
    first = post(server, "load_reference", GOOD, reference_id="kept").json()["revision"]
    answer = post(server, "load_reference", GOOD, b"no image", reference_id="kept")
    assert_error(answer, 400, "UNDECODABLE_IMAGE", "")
    assert post(server, "infer_json", GOOD, reference_id="kept").json()["reference_revision"] == first
