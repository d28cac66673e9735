"""`stream --webhook` against a real HTTP server."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from fakes.certificates import Authority
from fakes.fake_server import FakeServer
from fakes.programs import free_port
from fakes.receivers import HookServer, Posted, hook_server
from fakes.responses import png
from fakes.terminal import Run, command
from fakes.waiting import wait_until

from patchserve_client.cli._delivery import Delivery, DeliveryError
from patchserve_client.cli._outbox import Message
from patchserve_client.cli._webhook import Webhook

SECRET = "whsec_" + base64.b64encode(b"0123456789abcdef01234567").decode()
MESSAGE = Message("id-1", b'{"verdict": "anomalous"}')


@pytest.fixture
def hook() -> Iterator[HookServer]:
    with hook_server() as server:
        yield server


def signature(posted: Posted, key: bytes) -> str:
    """As in Standard Webhooks."""
    headers = posted.headers
    signed = b".".join((headers["webhook-id"].encode(), headers["webhook-timestamp"].encode(), posted.body))
    return "v1," + base64.b64encode(hmac.new(key, signed, hashlib.sha256).digest()).decode()


def test_each_anomaly_of_a_stream_is_posted_and_signed(
    run: Run, hook: HookServer, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATCHSERVE_WEBHOOK_SECRET", SECRET)
    code, _, stderr = run("stream", folder, "--webhook", f"{hook.url}/belt?key=1")
    assert (code, stderr) == (0, "")
    (posted,) = hook.posted  # b.png is red, and red is anomalous
    assert posted.path == "/belt?key=1"
    event = json.loads(posted.body)
    assert (event["frame_id"], event["sequence"], event["verdict"]) == ("b.png", 1, "anomalous")
    assert event["source"] == str(folder)
    assert event["regions"][0]["bounding_box"] == {"x_px": 2, "y_px": 3, "width_px": 8, "height_px": 5}
    assert event["id"] == posted.headers["webhook-id"]
    assert abs(int(posted.headers["webhook-timestamp"]) - time.time()) < 600
    assert posted.headers["webhook-signature"] == signature(posted, b"0123456789abcdef01234567")


def test_without_a_secret_nothing_is_signed_and_any_text_is_one(hook: HookServer) -> None:
    Webhook(hook.url).send(MESSAGE)
    Webhook(hook.url, "a plain secret").send(MESSAGE)
    plain, signed = hook.posted
    assert "webhook-signature" not in plain.headers
    assert signed.headers["webhook-signature"] == signature(signed, b"a plain secret")


@pytest.mark.parametrize(
    ("url", "address"),
    [
        ("http://[::1]/belt", ("::1", 80)),
        ("https://[::1]/belt", ("::1", 443)),
        ("http://[::1]:8080", ("::1", 8080)),
        ("https://factory", ("factory", 443)),
    ],
)
def test_the_port_is_that_of_the_url_or_of_its_scheme(
    url: str, address: tuple[str, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []

    def refuse(at: tuple[str, int], *_: object) -> None:
        asked.append(at)
        raise OSError(111, "Connection refused")

    monkeypatch.setattr(socket, "create_connection", refuse)
    with pytest.raises(DeliveryError, match="Connection refused"):
        Webhook(url).send(MESSAGE)
    assert asked == [address]


def test_all_outcomes_are_posted_when_they_are_wanted(run: Run, hook: HookServer, folder: Path) -> None:
    (folder / "c.png").write_bytes(b"no image")
    (folder / "d.png").symlink_to("/proc/self/mem")  # exists, but cannot be read
    run("stream", folder, "--webhook", hook.url, "--only", "all")
    events = [json.loads(posted.body) for posted in hook.posted]
    verdicts = {event["frame_id"]: event["verdict"] for event in events}
    assert verdicts == {"a.png": "intact", "b.png": "anomalous", "c.png": "error", "d.png": "error"}
    assert len({event["id"] for event in events}) == 4


@pytest.mark.parametrize(
    "url",
    [
        "ftp://localhost/hook",
        "file:///etc/passwd",
        "localhost:80",
        "http://",
        "http://user:password@localhost",
        "http://localhost:99999",
        "http://localhost/a b",
        "http://localhost/\r\nX: y",
        "http://localhost/ü",
        "http://localhost/#part",
    ],
)
def test_a_url_that_is_none_is_rejected_before_the_first_frame(
    run: Run, fake: FakeServer, folder: Path, url: str
) -> None:
    code, _, stderr = run("stream", folder, "--webhook", url)
    assert code == 2
    assert stderr.startswith("Error: --webhook: ")
    assert "password" not in stderr.replace("the password out", "")
    assert not fake.requests["frame"]


def test_a_secret_that_is_not_valid_is_rejected_without_showing_it(
    run: Run, hook: HookServer, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATCHSERVE_WEBHOOK_SECRET", "whsec_!!!")
    code, _, stderr = run("stream", folder, "--webhook", hook.url)
    assert (code, "base64" in stderr, "!!!" in stderr) == (2, True, False)


@pytest.mark.parametrize(
    ("status", "is_final"),
    [
        *((status, None) for status in (200, 204)),
        *((status, True) for status in (301, 307, 400, 401, 404, 410)),
        *((status, False) for status in (408, 425, 429, 500, 503)),
    ],
)
def test_a_status_decides_whether_a_message_is_tried_again(
    hook: HookServer, status: int, is_final: bool | None
) -> None:
    hook.answers.append((status, {"Location": f"{hook.url}/elsewhere", "Retry-After": "7"}))
    if is_final is None:
        Webhook(hook.url).send(MESSAGE)
        return
    with pytest.raises(DeliveryError) as failure:
        Webhook(hook.url).send(MESSAGE)
    assert failure.value.is_final == is_final
    assert failure.value.retry_after_s == 7
    assert len(hook.posted) == 1  # a redirect is not followed


def test_a_connection_is_kept_and_one_that_was_closed_is_opened_again(hook: HookServer) -> None:
    webhook = Webhook(hook.url)
    for _ in range(3):
        webhook.send(MESSAGE)
    assert hook.connections == 1
    hook.closes = True
    for _ in range(3):
        webhook.send(MESSAGE)
    assert len(hook.posted) >= 6
    webhook.close()


def test_the_certificate_is_verified(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    authority = Authority()
    ca = tmp_path / "ca.pem"
    ca.write_bytes(authority.certificate)
    with hook_server(authority.write(tmp_path, "server")) as hook:
        with pytest.raises(DeliveryError, match="certificate is not valid"):
            Webhook(hook.url).send(MESSAGE)
        assert not hook.posted
        monkeypatch.setenv("SSL_CERT_FILE", str(ca))
        Webhook(hook.url).send(MESSAGE)
        assert len(hook.posted) == 1


def test_a_receiver_that_is_away_gets_the_message_later_with_the_same_id() -> None:
    port, told = free_port(), []
    webhook = Webhook(f"http://localhost:{port}/x?key=secret")
    with Delivery(webhook, lambda kind, text: told.append(text), jitter=lambda: 0.02) as delivery:
        delivery.add(MESSAGE)
        delivery.add(Message("id-2", b"{}"))
        wait_until(lambda: bool(told))
        with hook_server(port=port) as hook:
            wait_until(lambda: len(hook.posted) == 2)
    assert [posted.headers["webhook-id"] for posted in hook.posted] == ["id-1", "id-2"]
    assert told[0].endswith("Connection refused. Trying again.")
    assert told[1:] == [f"http://localhost:{port}/x takes messages again."]  # and never the query


def test_a_receiver_that_is_slow_or_away_does_not_hold_the_stream_up(fake: FakeServer, tmp_path: Path) -> None:
    """The frames are inspected while the receiver answers nothing; at the end it is said what did not arrive."""
    images = tmp_path / "images"
    images.mkdir()
    for number in range(30):
        (images / f"{number}.png").write_bytes(png("red"))
    with hook_server() as hook:
        hook.answering.clear()
        arguments = command("stream", images, "--server", fake.address, "--webhook", hook.url, "--fps", 1000)
        process = subprocess.Popen(arguments, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        wait_until(lambda: len(fake.requests["frame"]) == 30)  # although nothing was delivered
        assert not hook.posted
        hook.answering.set()
        stdout, stderr = process.communicate(timeout=60)
    assert (process.returncode, stderr) == (0, "")
    assert "30 frames in" in stdout
    assert len(hook.posted) == 30


def test_what_did_not_arrive_is_said_at_the_end(run: Run, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("patchserve_client.cli._delivery.END_TIMEOUT_S", 0.2)
    url = f"http://localhost:{free_port()}/"
    code, stdout, stderr = run("stream", folder, "--webhook", url)
    assert code == 1
    assert "3 frames in" in stdout
    first, last = stderr.splitlines()
    assert first == f"Warning: {url}: Connection refused. Trying again."
    assert last == f"Error: 1 message did not reach {url}: 1 not delivered at the end."


def test_what_is_told_is_an_event_as_json(run: Run, hook: HookServer, folder: Path) -> None:
    hook.answers.append((404, {}))
    code, stdout, stderr = run("stream", folder, "--webhook", hook.url, "--output", "jsonl")
    events = [json.loads(line) for line in stdout.splitlines()]
    (warning,) = [event for event in events if event["event"] == "warning"]
    assert warning == {
        "event": "warning",
        "kind": "webhook",
        "message": f"{hook.url} rejects messages: It answers 404 Not Found.",
    }
    assert events[-1]["event"] == "summary"
    assert (code, stderr) == (1, f"Error: 1 message did not reach {hook.url}: 1 rejected.\n")


def answering(answer: bytes) -> int:
    """A port where one request gets these bytes."""
    listener = socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        with listener, listener.accept()[0] as connection, suppress(OSError):
            connection.recv(65_536)
            connection.sendall(answer)
            connection.recv(1)  # until the other side closes it

    threading.Thread(target=serve, daemon=True).start()
    return int(listener.getsockname()[1])


def test_of_an_answer_that_lies_about_its_size_only_the_beginning_is_read() -> None:
    """http.client's own read() takes all that comes, and waits for more."""
    start = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
    webhook = Webhook(f"http://127.0.0.1:{answering(start + b'-1' + bytes([13, 10]) + bytes(2**18))}/")
    webhook.send(MESSAGE)
    assert webhook._connection.sock is None  # closed: what follows is no answer


@pytest.mark.parametrize("url", ["http://a..b/", f"https://{'x' * 64}.example/"])
def test_a_host_that_no_resolver_takes_is_refused_at_once(url: str) -> None:
    with pytest.raises(ValueError, match="has a part that is empty, or longer than 63"):
        Webhook(url)


@pytest.mark.parametrize(("url", "port"), [("http://[::1]/", 80), ("https://[::1]/", 443), ("http://[::1]:5/", 5)])
def test_an_address_of_ipv6_needs_no_port(url: str, port: int) -> None:
    connection = Webhook(url)._connection
    assert (connection.host, connection.port) == ("::1", port)
