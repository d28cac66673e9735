"""`--mqtt URL`: publishes each message with QoS 1. Only this module needs the extra `mqtt`."""

from __future__ import annotations

import ssl
import sys
import threading
import time
from typing import Final
from urllib.parse import unquote

from paho.mqtt.client import MQTT_ERR_SUCCESS, Client
from paho.mqtt.enums import CallbackAPIVersion
from paho.mqtt.reasoncodes import ReasonCode

from patchserve_client.cli._delivery import DeliveryError
from patchserve_client.cli._outbox import Message
from patchserve_client.cli._receiver_url import checked_url, shown_url

USER_VARIABLE: Final = "PATCHSERVE_MQTT_USER"
PASSWORD_VARIABLE: Final = "PATCHSERVE_MQTT_PASSWORD"  # noqa: S105 - its name
_PORTS: Final = {"mqtt": 1883, "mqtts": 8883}
_MAX_IN_FLIGHT: Final = 20
_MAX_TOPIC_BYTES: Final = 65_535
_KEEPALIVE_S: Final = 20
_CONNECT_TIMEOUT_S: Final = 5.0
_ANSWER_TIMEOUT_S: Final = 10.0


class MqttBroker:
    """Implements `Receiver`. paho-mqtt reconnects, and then repeats what the broker has not confirmed.

    Args:
        url: mqtt or mqtts; its path is the topic.
        user: empty: none.
        password: empty: none.

    Raises:
        ValueError: the URL is not valid.
    """

    kind = "mqtt"

    def __init__(self, url: str, user: str = "", password: str = "") -> None:
        parts = checked_url(url, tuple(_PORTS))
        self._topic = _topic(parts.path)
        if parts.query:
            raise ValueError("The URL of a broker has no query.")
        self.address = shown_url(parts)
        self._places = threading.Semaphore(_MAX_IN_FLIGHT)
        self._changed = threading.Condition()
        self._is_connected, self._problem, self._unconfirmed = False, "", 0
        self._client = client = Client(CallbackAPIVersion.VERSION2)
        client.connect_timeout = _CONNECT_TIMEOUT_S
        client.max_inflight_messages_set(_MAX_IN_FLIGHT)
        client.reconnect_delay_set(1, 10)
        if user or password:
            client.username_pw_set(user or None, password or None)
        if parts.scheme == "mqtts":
            client.tls_set_context(ssl.create_default_context())  # verifies; SSL_CERT_FILE names other authorities
        client.on_connect = lambda _client, _data, _flags, reason, _properties: self._connected(reason)
        client.on_connect_fail = lambda _client, _data: self._not_connected()
        client.on_disconnect = lambda *_: self._lost()
        client.on_publish = lambda *_: self._confirmed()
        client.connect_async(str(parts.hostname), parts.port or _PORTS[parts.scheme], _KEEPALIVE_S)
        client.loop_start()

    def send(self, message: Message) -> None:
        """Publish the message when there is a connection, and fewer than 20 messages wait for their confirmation."""
        with self._changed:
            if not self._changed.wait_for(lambda: self._is_connected or self._problem, _ANSWER_TIMEOUT_S):
                raise DeliveryError("It does not answer.")
            if not self._is_connected:
                raise DeliveryError(f"{self._problem}.")
        if not self._places.acquire(timeout=_ANSWER_TIMEOUT_S):
            raise DeliveryError("It confirms no messages.")
        with self._changed:
            self._unconfirmed += 1
        # Without a connection in the meantime, the client keeps the message and publishes it with the next one.
        self._client.publish(self._topic, message.body, qos=1)

    def flush(self, timeout_s: float) -> int:
        """Wait until the broker has confirmed everything. Returns how much it has not."""
        with self._changed:
            self._changed.wait_for(lambda: not self._unconfirmed, timeout_s)
            return self._unconfirmed

    def close(self) -> None:
        """Disconnect. The thread of the client is not waited for: it may be connecting."""
        if self._client.disconnect() == MQTT_ERR_SUCCESS:
            deadline_s = time.monotonic() + 1
            while self._client.is_connected() and time.monotonic() < deadline_s:
                time.sleep(0.01)

    def _connected(self, reason: ReasonCode) -> None:
        self._set_connection(f"It refuses the connection: {reason}" if reason.is_failure else "")

    def _not_connected(self) -> None:
        error = sys.exception()  # the client calls this while it handles it
        self._set_connection(getattr(error, "strerror", None) or str(error))

    def _lost(self) -> None:
        if self._is_connected:
            self._set_connection("The connection was lost")

    def _confirmed(self) -> None:
        with self._changed:
            self._unconfirmed -= 1
            self._changed.notify_all()
        self._places.release()

    def _set_connection(self, problem: str) -> None:
        with self._changed:
            self._is_connected, self._problem = not problem, problem
            self._changed.notify_all()


def _topic(path: str) -> str:
    topic = unquote(path.removeprefix("/"), errors="strict")
    is_valid = topic and len(topic.encode()) <= _MAX_TOPIC_BYTES and not set(topic) & {"+", "#", "\0"}
    if not is_valid:
        raise ValueError("The path of the URL must be a topic without + and #, as in mqtt://broker/belt/3/anomalies.")
    return topic
