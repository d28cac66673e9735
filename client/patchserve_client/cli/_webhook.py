"""`--webhook URL`: a POST for each message, signed as in Standard Webhooks (standardwebhooks.com)."""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import http.client
import ssl
import time
from collections.abc import Callable
from typing import Final
from urllib.parse import SplitResult

from patchserve_client.cli._delivery import DeliveryError
from patchserve_client.cli._outbox import Message
from patchserve_client.cli._receiver_url import checked_url, shown_url

SECRET_VARIABLE: Final = "PATCHSERVE_WEBHOOK_SECRET"  # noqa: S105 - its name
_TIMEOUT_S: Final = 10.0
_PREFIX: Final = "whsec_"
_MAX_ANSWER_BYTES: Final = 64 * 1024
_READ_BYTES: Final = 8192
_PORTS: Final = {"http": 80, "https": 443}
_TEMPORARY: Final = (408, 425, 429)


class Webhook:
    """Implements `Receiver`. Keeps its connection open; follows no redirect and uses no proxy.

    Args:
        url: http or https, without a user and a password.
        secret: signs the messages; empty: they are not signed. With the prefix "whsec_" the rest is base64.

    Raises:
        ValueError: the URL or the secret is not valid.
    """

    kind = "webhook"

    def __init__(self, url: str, secret: str = "", *, clock: Callable[[], float] = time.time) -> None:
        self._url = checked_url(url, ("http", "https"))
        self.address = shown_url(self._url)
        self._key = _key(secret)
        self._clock = clock
        self._connection = _connection(self._url)

    def send(self, message: Message) -> None:
        """POST the message. Statuses 5xx, 408, 425 and 429 are tried again, other ones than 2xx are not."""
        status, retry_after_s = self._answer(message)
        if 200 <= status < 300:  # noqa: PLR2004 - HTTP
            return
        is_final = status < 500 and status not in _TEMPORARY  # noqa: PLR2004 - HTTP
        note = " Redirects are not followed." if 300 <= status < 400 else ""  # noqa: PLR2004 - HTTP
        text = f"It answers {status} {http.client.responses.get(status, '')}".rstrip()
        raise DeliveryError(f"{text}.{note}", is_final=is_final, retry_after_s=retry_after_s)

    def _answer(self, message: Message) -> tuple[int, float | None]:
        is_reused = self._connection.sock is not None
        try:
            return self._post(message)
        except (OSError, http.client.HTTPException) as error:
            self._connection.close()
            if not is_reused:
                raise DeliveryError(f"{_cause(error)}.") from error
        return self._answer(message)  # the other side closes a connection that nothing was sent on for a while

    def flush(self, timeout_s: float) -> int:  # noqa: ARG002 - what was sent was also answered
        """Nothing is on its way after `send`."""
        return 0

    def close(self) -> None:
        """Close the connection."""
        self._connection.close()

    def _post(self, message: Message) -> tuple[int, float | None]:
        target = self._url.path or "/"
        if self._url.query:
            target += f"?{self._url.query}"
        self._connection.request("POST", target, message.body, self._headers(message))
        response = self._connection.getresponse()
        self._skip(response)
        after = response.headers.get("Retry-After", "")
        return response.status, float(after) if after.isascii() and after.isdecimal() else None

    def _skip(self, response: http.client.HTTPResponse) -> None:
        """Read the rest of an answer, so that the connection can be used again; if it is too long or slow, close it."""
        left_bytes, deadline_s = _MAX_ANSWER_BYTES, time.monotonic() + _TIMEOUT_S
        while left_bytes > 0 and time.monotonic() < deadline_s:
            # Not read(): of a chunk that says it has a negative size, it reads all that ever comes.
            data = response.read1(_READ_BYTES)
            if not data:
                response.close()  # of Python 3.11, read1() leaves it open
                return
            left_bytes -= len(data)
        self._connection.close()

    def _headers(self, message: Message) -> dict[str, str]:
        timestamp = str(int(self._clock()))
        headers = {
            "Content-Type": "application/json",
            "User-Agent": "patchserve",
            "webhook-id": message.message_id,
            "webhook-timestamp": timestamp,
        }
        if self._key:
            signed = f"{message.message_id}.{timestamp}.".encode() + message.body
            digest = hmac.new(self._key, signed, hashlib.sha256).digest()
            headers["webhook-signature"] = f"v1,{base64.b64encode(digest).decode()}"
        return headers


def _connection(url: SplitResult) -> http.client.HTTPConnection:
    # Without a port, http.client looks for one in the host, and finds one in an IPv6 address.
    host, port = str(url.hostname), url.port or _PORTS[url.scheme]
    if url.scheme == "http":
        return http.client.HTTPConnection(host, port, timeout=_TIMEOUT_S)
    context = ssl.create_default_context()  # verifies; SSL_CERT_FILE names other authorities
    return http.client.HTTPSConnection(host, port, timeout=_TIMEOUT_S, context=context)


def _key(secret: str) -> bytes:
    if not secret.startswith(_PREFIX):
        return secret.encode()
    try:
        return base64.b64decode(secret.removeprefix(_PREFIX), validate=True)
    except binascii.Error as error:
        raise ValueError(f"After {_PREFIX} the secret must be base64.") from error


def _cause(error: Exception) -> str:
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"Its certificate is not valid: {error.verify_message}"
    if isinstance(error, TimeoutError):
        return f"No answer in {_TIMEOUT_S:.0f} s"
    if isinstance(error, OSError):
        return error.strerror or str(error)
    return f"No valid HTTP answer ({type(error).__name__})"
