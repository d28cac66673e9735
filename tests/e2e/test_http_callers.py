"""Callers over HTTP that leave, do not read, send slowly or too much: they are ended, and everything is given back."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
import requests
from e2e.counted import LIMITS, SMALL, UNREAD, CountedServer
from e2e.in_process import running_server
from fakes.raw_http import RawConnection, form
from fakes.waiting import wait_until

from patchserve_server.access.tokens import new_token
from patchserve_server.domain.callers import Scope
from patchserve_server.web import bodies, http_connection

FORM, BODY = form(SMALL)
LENGTH = f"Content-Length: {len(BODY)}"
PART = b"--x\r\ncontent-disposition: form-data; name=image; filename=a.png\r\n\r\n".ljust(65536)
TIMEOUT_S = 60


@pytest.fixture(scope="module")
def server() -> Iterator[CountedServer]:
    with ExitStack() as stack:
        counted = CountedServer(stack)
        counted.load_default()
        yield counted


@pytest.fixture(autouse=True)
def nothing_is_held(server: CountedServer) -> Iterator[None]:
    yield
    server.detector.gate.set()
    server.wait_until_nothing_is_held()


def is_in_work(server: CountedServer) -> bool:
    return server.application.images.held.count > 0


def test_a_caller_who_leaves_stops_its_work(server: CountedServer) -> None:
    server.detector.gate.clear()
    with RawConnection(server.http_url) as caller:
        caller.request("POST", "/infer", FORM, LENGTH, body=BODY)
        wait_until(lambda: bool(server.application.images.held.bytes))
    server.wait_until_nothing_is_held()
    assert not server.detector.gate.is_set(), "nothing was waited for"


def test_a_caller_who_does_not_read_is_ended(server: CountedServer) -> None:
    kind, body = form(UNREAD)
    with RawConnection(server.http_url, receive_buffer=1024) as caller:
        caller.request("POST", "/infer", kind, f"Content-Length: {len(body)}", body=body)
        wait_until(lambda: is_in_work(server))
        server.wait_until_nothing_is_held()
        with pytest.raises(ConnectionError):  # it is cut off, not finished
            caller.answer()


def test_a_caller_who_reads_slowly_gets_all_of_it(server: CountedServer) -> None:
    kind, body = form(UNREAD)
    expected = requests.post(f"{server.http_url}/infer", files={"image": UNREAD}, timeout=TIMEOUT_S).content
    with RawConnection(server.http_url, receive_buffer=65536) as caller:
        caller.request("POST", "/infer", kind, f"Content-Length: {len(body)}", body=body)
        assert caller.answer().body == expected


def test_a_body_counts_as_it_comes(server: CountedServer) -> None:
    with RawConnection(server.http_url) as caller:
        caller.request("POST", "/infer", FORM, "Transfer-Encoding: chunked")
        wait_until(lambda: is_in_work(server))
        for start in range(0, len(BODY), 100):
            part = BODY[start : start + 100]
            caller.send(f"{len(part):x}\r\n", part, "\r\n")
            wait_until(lambda: server.application.images.held.bytes >= start + len(part))  # noqa: B023
        caller.send("0\r\n\r\n")
        assert caller.answer().code == 200


def test_a_body_says_what_it_needs_before_it_comes(server: CountedServer) -> None:
    with RawConnection(server.http_url) as caller:
        caller.request("POST", "/infer", FORM, "Content-Length: 1000000")
        wait_until(lambda: server.application.images.held.bytes == 1_000_000)


@pytest.mark.parametrize("path", ["/infer", "/load_reference"])
@pytest.mark.parametrize(
    "header", ["Content-Length: 2000000", f"Content-Length: {2**60}", "Transfer-Encoding: chunked"]
)
def test_a_body_that_is_too_large_is_not_read(server: CountedServer, path: str, header: str) -> None:
    with RawConnection(server.http_url) as caller:
        caller.request("POST", path, FORM, header)
        with contextlib.suppress(ConnectionError):
            for _ in range(20):
                caller.send("10000\r\n" if "chunked" in header else "", PART, "\r\n")
        answer = caller.answer()
        assert answer.code == 413
        assert answer.reason in ("REQUEST_TOO_LARGE", "IMAGE_TOO_LARGE")
        assert answer.headers["connection"] == "close"


def test_a_refused_caller_need_not_send_its_body(server: CountedServer) -> None:
    with RawConnection(server.http_url) as caller:
        caller.request("POST", "/infer", FORM, "Expect: 100-continue", "Content-Length: 2000000")
        assert caller.answer().code == 413


def test_a_caller_that_asks_first_is_told_to_go_on(server: CountedServer) -> None:
    with RawConnection(server.http_url) as caller:
        caller.request("POST", "/infer", FORM, "Expect: 100-continue", LENGTH)
        assert caller.answer().code == 100
        caller.send(BODY)
        assert caller.answer().code == 200


def test_a_body_that_does_not_come_in_time_ends_its_call(server: CountedServer, tmp_path: Path) -> None:
    with running_server(first_message_timeout_s=0.2) as quick, RawConnection(quick.http_url) as caller:
        requests.post(f"{quick.http_url}/load_reference", files={"image": SMALL}, timeout=TIMEOUT_S)
        caller.request("POST", "/infer", FORM, LENGTH, body=BODY[:-1])
        answer = caller.answer()
        assert (answer.code, answer.reason) == (504, "MESSAGE_TIMEOUT")


def test_slow_bodies_give_way_to_a_caller_that_sends(server: CountedServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """On either port."""
    monkeypatch.setattr(bodies, "KEEPS_S", 0.0)
    monkeypatch.setattr(bodies, "_STEADY_BYTES_PER_S", 2**40)  # they have sent enough to be slow at once
    for other in ("http", "grpc"):
        with ExitStack() as stack:
            slow = [stack.enter_context(RawConnection(server.http_url)) for _ in range(LIMITS["max_pending_images"])]
            for caller in slow:
                caller.request("POST", "/infer", FORM, LENGTH, body=BODY[:-1])
            wait_until(lambda: server.application.images.held.count == LIMITS["max_pending_images"])
            if other == "http":
                response = requests.post(f"{server.http_url}/infer", files={"image": SMALL}, timeout=TIMEOUT_S)
                assert response.status_code == 200
            else:
                server.load_default()
                server.infer()
            answer = slow[0].answer()
            assert (answer.code, answer.reason) == (429, "IDLE")
            assert int(answer.headers["retry-after"]) >= 1
        server.wait_until_nothing_is_held()


def test_the_callers_own_time_limit(server: CountedServer) -> None:
    server.detector.gate.clear()
    with RawConnection(server.http_url) as caller:
        caller.request("POST", "/infer", FORM, LENGTH, "grpc-timeout: 50m", body=BODY)
        assert caller.answer().reason == "DEADLINE"
        caller.request("POST", "/infer", FORM, LENGTH, "grpc-timeout: soon", body=BODY)
        assert caller.answer().reason == "INVALID_FIELD"


def test_every_answer_has_the_id_of_its_call(server: CountedServer) -> None:
    ids = {requests.get(f"{server.http_url}/", timeout=TIMEOUT_S).headers["x-request-id"] for _ in range(2)}
    assert len(ids) == 2
    refused = requests.post(f"{server.http_url}/infer", timeout=TIMEOUT_S)
    assert refused.status_code == 400
    assert refused.headers["x-request-id"]


def test_a_caller_without_a_token_gets_the_answer_though_it_sends_a_body(tmp_path: Path) -> None:
    _, line = new_token("a", [Scope.INFER])
    (tmp_path / "tokens").write_text(line)
    with running_server(auth_tokens=tmp_path / "tokens") as guarded:
        url = f"{guarded.http_url}/infer"
        refused = requests.post(url, files={"image": bytes(40 * 2**20)}, timeout=TIMEOUT_S)
        assert refused.status_code == 401
        assert refused.headers["www-authenticate"] == "Bearer"


def test_a_body_that_nobody_wants_is_read_for_a_while_only(
    server: CountedServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(http_connection, "LINGER_S", 0.2)
    with RawConnection(server.http_url) as caller:
        caller.request("POST", "/no/such/path", "Content-Length: 1000000000")
        assert caller.answer().code == 404
        with pytest.raises(ConnectionError):
            caller.send(*[bytes(65536)] * 100_000)


def test_the_log_has_no_text_of_a_caller(server: CountedServer, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("DEBUG", "patchserve_server")
    for path in ("/said%1b%0a", "/infer?said=%1b%0a", "/outputs/said%1b%0a"):
        with RawConnection(server.http_url) as caller:
            caller.request("POST", path, "User-Agent: said", "X-Request-ID: said", "Content-Length: 0")
            assert 400 <= caller.answer().code < 500
    for data in ("said \x1b\r\n\r\n", "GET /said HTTP/1.1\r\n: said\x1b\r\n\r\n"):
        with RawConnection(server.http_url) as caller:
            caller.send(data)
            assert caller.answer().code == 400
    assert "HTTP" in caplog.text
    assert "said" not in caplog.text
