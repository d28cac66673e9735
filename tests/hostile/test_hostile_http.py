"""What is not HTTP, contradicts itself, is too much or never ends: refused in time, and nobody else notices."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import pytest
from e2e.in_process import running_server
from fakes.raw_http import RawConnection
from fakes.waiting import wait_until

from patchserve_server.web import http_connection
from patchserve_server.web.refusals import MAX_HEADER_BYTES

GET = "GET /health HTTP/1.1\r\n"
POST = "POST /session HTTP/1.1\r\nHost: localhost\r\n"
MALFORMED = {
    "no HTTP": "\x16\x03\x01\x02\x00\x01\x00\x01",
    "gRPC": "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    "no version": "GET /health\r\n\r\n",
    "another version": "GET /health HTTP/3.7\r\n\r\n",
    "no host": f"{GET}\r\n",
    "two hosts": f"{GET}Host: a\r\nHost: b\r\n\r\n",
    "a space before a colon": f"{GET}Host : a\r\n\r\n",
    "a header without a name": f"{GET}Host: a\r\n: b\r\n\r\n",
    "a line break in a header": f"{GET}Host: a\r\nx: a\nb\r\n\r\n",
    "a zero byte": f"{GET}Host: a\r\nx: \0\r\n\r\n",
    "a negative length": f"{POST}Content-Length: -1\r\n\r\n",
    "a length with a sign": f"{POST}Content-Length: +1\r\n\r\na",
    "a length beyond numbers": f"{POST}Content-Length: {10**30}\r\n\r\n",
    "two lengths": f"{POST}Content-Length: 1\r\nContent-Length: 2\r\n\r\nab",
    "a list of lengths": f"{POST}Content-Length: 1, 1\r\n\r\na",
    "a length and chunks": f"{POST}Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "chunks that are not last": f"{POST}Transfer-Encoding: chunked, gzip\r\n\r\n0\r\n\r\n",
    "an unknown coding": f"{POST}Transfer-Encoding: cow\r\n\r\n",
    "a chunk of no size": f"{POST}Transfer-Encoding: chunked\r\n\r\nx\r\n\r\n",
    "a chunk of a negative size": f"{POST}Transfer-Encoding: chunked\r\n\r\n-1\r\n\r\n",
    "a chunk longer than its size": f"{POST}Transfer-Encoding: chunked\r\n\r\n1\r\nabc\r\n0\r\n\r\n",
    "a path that is not one": "GET :// HTTP/1.1\r\nHost: a\r\n\r\n",
    "a tunnel": "CONNECT example.com:443 HTTP/1.1\r\nHost: a\r\n\r\n",
}


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    with running_server() as server:
        yield server.http_url


@pytest.fixture(autouse=True)
def others_are_served(url: str) -> Iterator[None]:
    yield
    with RawConnection(url) as other:
        other.request("GET", "/health")
        assert other.answer().code == 200


@pytest.mark.parametrize("data", MALFORMED.values(), ids=list(MALFORMED))
def test_what_is_not_a_request_is_refused_and_the_connection_closed(url: str, data: str) -> None:
    with RawConnection(url) as caller:
        caller.send(data)
        answer = caller.answer()
        assert (answer.code, answer.reason, answer.headers["connection"]) == (400, "MALFORMED_REQUEST", "close")
        assert caller.is_closed()


def test_a_request_that_hides_behind_another_is_not_answered(url: str) -> None:
    """A proxy that looks at another length than the server would take it for a part of the first one."""
    with RawConnection(url) as caller:
        caller.send(f"{POST}Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n{GET}Host: a\r\n\r\n")
        assert caller.answer().code == 400
        assert caller.is_closed()


@pytest.mark.parametrize("headers", [f"x: {'a' * MAX_HEADER_BYTES}\r\n", "x: a\r\n" * 2000], ids=["long", "many"])
def test_headers_that_are_too_large_are_refused(url: str, headers: str) -> None:
    with RawConnection(url) as caller:
        caller.send(f"{GET}Host: localhost\r\n{headers}\r\n")
        answer = caller.answer()
        assert (answer.code, answer.reason) == (431, "HEADERS_TOO_LARGE")
        assert caller.is_closed()


@pytest.mark.parametrize(
    "start",
    [
        "GET /",
        "GET /?",
        f"{GET}x: ",
        f"{GET}x",
        f"{POST}Transfer-Encoding: chunked\r\n\r\n1\r\na\r\n0\r\nx: ",
        f"{POST}Transfer-Encoding: chunked\r\n\r\n1;",
        f"{POST}Transfer-Encoding: chunked\r\n\r\n0",
    ],
    ids=["path", "query", "header", "name of a header", "trailer", "extension of a chunk", "size of a chunk"],
)
def test_what_never_ends_is_refused_before_it_fills_memory(url: str, start: str) -> None:
    with RawConnection(url) as caller:
        caller.send(start)
        with contextlib.suppress(ConnectionError):
            for _ in range(100):
                caller.send(("0" if start.endswith("\r\n0") else "a") * MAX_HEADER_BYTES)
        with contextlib.suppress(ConnectionError):
            assert caller.answer().code in (400, 431)
        assert caller.is_closed()


@pytest.mark.parametrize(
    "data", ["", "G", f"{GET}Host: localhost\r\n", "\r\n"], ids=["nothing", "G", "headers", "empty"]
)
def test_a_connection_without_a_request_is_closed_in_time(url: str, data: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http_connection, "HEADERS_TIMEOUT_S", 0.1)
    with RawConnection(url) as caller:
        caller.send(data)
        assert caller.is_closed()


def test_bytes_that_come_one_by_one_gain_no_time(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http_connection, "HEADERS_TIMEOUT_S", 0.3)
    with RawConnection(url) as caller:

        def is_closed() -> bool:
            try:
                caller.send("a")
            except ConnectionError:
                return True
            return False

        caller.send(f"{GET}x: ")
        wait_until(is_closed)


def test_requests_that_come_at_once_are_answered_in_their_order(url: str) -> None:
    with RawConnection(url) as caller:
        paths = ["/health", "/no/such/path", "/health"]
        caller.send("".join(f"GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n" for path in paths))
        assert [caller.answer().code for _ in paths] == [200, 404, 200]


def test_of_very_many_requests_at_once_a_few_are_answered(url: str) -> None:
    with RawConnection(url) as caller:
        caller.send(f"{GET}Host: localhost\r\n\r\n" * 5000)
        assert caller.answer().code == 200
        count = 1
        with contextlib.suppress(ConnectionError):
            while caller.answer().code == 200:
                count += 1
        assert count < 100


def test_what_follows_a_request_does_not_change_its_answer(url: str) -> None:
    with RawConnection(url) as caller:
        caller.send(f"{GET}Host: localhost\r\n\r\n\x16\x03\x01")
        assert caller.answer().code == 200
        assert caller.is_closed()


@pytest.mark.parametrize("header", ["Content-Encoding: gzip", "Transfer-Encoding: gzip, chunked"])
def test_a_compressed_body_is_refused(url: str, header: str) -> None:
    with RawConnection(url) as caller:
        length = () if header.startswith("Transfer") else ("Content-Length: 5",)
        form = "Content-Type: multipart/form-data; boundary=x"
        caller.request("POST", "/infer", form, header, *length, body=b"")
        answer = caller.answer()
        assert (answer.code, answer.reason) == (400, "INVALID_FIELD")
        assert "compressed" in answer.json["error"]


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH", "OPTIONS", "TRACE", "PROPFIND"])
def test_a_method_that_the_path_does_not_take(url: str, method: str) -> None:
    with RawConnection(url) as caller:
        caller.request(method, "/health", "Content-Length: 0")
        answer = caller.answer()
        assert (answer.code, answer.reason) == (405, "HTTP_METHOD")
        assert "GET" in answer.headers["allow"]


@pytest.mark.parametrize(("count", "words"), [(4000, "This is not JSON"), (5000, "not valid HTTP")])
def test_very_many_tiny_chunks_are_refused(url: str, count: int, words: str) -> None:
    """Each of them costs as much as a large one."""
    with RawConnection(url) as caller:
        caller.request("POST", "/v2/models/m/infer", "Transfer-Encoding: chunked")
        with contextlib.suppress(ConnectionError):
            caller.send(b"1\r\na\r\n" * count + b"0\r\n\r\n")
        assert words in caller.answer().body.decode()


@pytest.mark.parametrize("path", ["/infer", "/v1/references/default:infer"])
def test_a_content_type_of_very_many_parameters_is_refused(url: str, path: str) -> None:
    with RawConnection(url) as caller:
        caller.request("POST", path, "Content-Type: multipart/form-data; boundary=x" + ";" * 16, "Content-Length: 0")
        assert caller.answer().reason == "MALFORMED_MESSAGE"
