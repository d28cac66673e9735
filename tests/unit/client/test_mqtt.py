"""`stream --mqtt` against a real broker."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from fakes.broker import Broker, running_broker, subscribed
from fakes.certificates import Authority
from fakes.fake_server import FakeServer
from fakes.programs import free_port, program
from fakes.responses import png
from fakes.terminal import Run, command
from fakes.waiting import wait_until

from patchserve_client.cli import _delivery
from patchserve_client.cli._delivery import Delivery, DeliveryError
from patchserve_client.cli._mqtt import MqttBroker
from patchserve_client.cli._outbox import Message


@pytest.fixture
def broker(tmp_path: Path) -> Iterator[Broker]:
    with running_broker(tmp_path) as running:
        yield running


def messages(count: int) -> list[Message]:
    return [Message(str(number), f"{number}".encode()) for number in range(count)]


def test_each_anomaly_of_a_stream_is_published(run: Run, broker: Broker, folder: Path) -> None:
    with subscribed(broker.port, "belt/#") as received:
        code, _, stderr = run("stream", folder, "--mqtt", broker.url("belt/3/anomalies"))
        wait_until(lambda: bool(received))
    assert (code, stderr) == (0, "")
    ((topic, body),) = received
    assert topic == "belt/3/anomalies"
    event = json.loads(body)
    assert (event["frame_id"], event["verdict"]) == ("b.png", "anomalous")


def test_many_messages_are_published_in_order(broker: Broker) -> None:
    with subscribed(broker.port, "t") as received, Delivery(MqttBroker(broker.url("t")), print) as delivery:
        for message in messages(500):
            delivery.add(message)
        wait_until(lambda: len(received) >= 500)
    assert [int(body) for _, body in received] == list(range(500))


def test_a_broker_that_is_away_gets_the_messages_when_it_comes(tmp_path: Path) -> None:
    told: list[str] = []
    with running_broker(tmp_path, starts=False) as broker:
        receiver = MqttBroker(broker.url("t"))
        with Delivery(receiver, lambda _, text: told.append(text), jitter=lambda: 0.02) as delivery:
            for message in messages(3):
                delivery.add(message)
            wait_until(lambda: bool(told))
            broker.start()
        assert broker.published() == 3  # and confirmed: otherwise the end would be an error
    assert told == [
        f"{broker.url('t')}: Connection refused. Trying again.",
        f"{broker.url('t')} takes messages again.",
    ]


def test_a_broker_that_dies_gets_the_rest_when_it_is_back(broker: Broker) -> None:
    """Whether the client has noticed the end when it is given the next messages is chance."""
    receiver = MqttBroker(broker.url("t"))
    with Delivery(receiver, lambda *_: None, jitter=lambda: 0.02) as delivery:
        first, second, third = messages(3)
        delivery.add(first)
        wait_until(lambda: broker.published() == 1)
        broker.kill()
        delivery.add(second)
        delivery.add(third)
        broker.start()
    assert broker.published() >= 3  # the first one again, if its confirmation was lost


def test_a_broker_that_stops_answering_does_not_hold_the_stream_up(
    fake: FakeServer, broker: Broker, tmp_path: Path
) -> None:
    images = tmp_path / "images"
    images.mkdir()
    for number in range(60):
        (images / f"{number}.png").write_bytes(png("red"))
    broker.freeze()
    arguments = command("stream", images, "--server", fake.address, "--mqtt", broker.url("t"))
    process = subprocess.Popen(arguments, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    wait_until(lambda: len(fake.requests["frame"]) == 60)  # although nothing was delivered
    broker.thaw()
    stdout, stderr = process.communicate(timeout=60)
    assert broker.published() == 60
    assert (process.returncode, stderr) == (0, "")
    assert "60 frames in" in stdout


def test_what_a_broker_did_not_confirm_is_said_at_the_end(broker: Broker, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_delivery, "END_TIMEOUT_S", 0.3)
    receiver = MqttBroker(broker.url("t"))
    delivery = Delivery(receiver, lambda *_: None).__enter__()
    wait_until(lambda: receiver._is_connected)
    broker.freeze()
    for message in messages(30):
        delivery.add(message)
    with pytest.raises(OSError, match=r"^30 messages did not reach mqtt://.*: 30 not delivered at the end\.$"):
        delivery.__exit__(None, None, None)


def test_the_broker_checks_user_and_password_of_the_environment(
    run: Run, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    passwords = tmp_path / "passwords"
    passwords.write_text("")
    passwords.chmod(0o600)
    subprocess.run([program("mosquitto_passwd"), "-b", str(passwords), "belt", "secret-7"], check=True)
    monkeypatch.setattr(_delivery, "END_TIMEOUT_S", 2.0)
    with running_broker(tmp_path, f"allow_anonymous false\npassword_file {passwords}") as broker:
        monkeypatch.setenv("PATCHSERVE_MQTT_USER", "belt")
        monkeypatch.setenv("PATCHSERVE_MQTT_PASSWORD", "secret-7")
        with subscribed(broker.port, "t", "belt", "secret-7") as received:
            assert run("stream", folder, "--mqtt", broker.url("t"))[0] == 0
            wait_until(lambda: bool(received))
        monkeypatch.setenv("PATCHSERVE_MQTT_PASSWORD", "wrong-8")
        code, _, stderr = run("stream", folder, "--mqtt", broker.url("t"))
    assert code == 1
    assert "It refuses the connection: Not authorized" in stderr
    assert "wrong-8" not in stderr


def test_the_certificate_of_a_broker_is_verified(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    authority = Authority()
    ca = tmp_path / "ca.pem"
    ca.write_bytes(authority.certificate)
    cert, key = authority.write(tmp_path, "broker")
    port = free_port()
    url = f"mqtts://localhost:{port}/t"
    tls = f"allow_anonymous true\nlistener {port} 127.0.0.1\ncertfile {cert}\nkeyfile {key}"
    with running_broker(tmp_path, tls) as broker, subscribed(broker.port, "t") as received:
        receiver = MqttBroker(url)
        with pytest.raises(DeliveryError, match="certificate verify failed"):
            receiver.send(Message("1", b"1"))
        receiver.close()
        monkeypatch.setenv("SSL_CERT_FILE", str(ca))
        with Delivery(MqttBroker(url), print) as delivery:
            delivery.add(Message("2", b"2"))
        wait_until(lambda: bool(received))
    assert [body for _, body in received] == [b"2"]


@pytest.mark.parametrize(
    "url",
    [
        "mqtt://localhost",
        "mqtt://localhost/",
        "mqtt://localhost/belt/+/x",
        "mqtt://localhost/belt/%23",
        "mqtt://localhost/a%00b",
        "mqtt://user:pw@localhost/t",
        "mqtt://localhost/t?retain=1",
        "http://localhost/t",
        "tcp://localhost/t",
    ],
)
def test_a_url_that_is_none_of_a_topic_is_rejected(run: Run, fake: FakeServer, folder: Path, url: str) -> None:
    code, _, stderr = run("stream", folder, "--mqtt", url)
    assert code == 2
    assert stderr.startswith("Error: --mqtt: ")
    assert not fake.requests["frame"]


def test_without_the_extra_it_is_said_how_to_get_it(run: Run, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "paho.mqtt.client", None)
    monkeypatch.delitem(sys.modules, "patchserve_client.cli._mqtt", raising=False)
    monkeypatch.delattr("patchserve_client.cli._mqtt", raising=False)
    code, _, stderr = run("stream", folder, "--mqtt", "mqtt://localhost/t")
    assert code == 2
    assert '`pip install ".[mqtt]"`' in stderr
