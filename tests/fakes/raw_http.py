"""HTTP as bytes, for callers that no library would be."""

from __future__ import annotations

import json
import socket
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self
from urllib.parse import urlsplit

TIMEOUT_S = 60


@dataclass(frozen=True)
class Answer:
    """A response: its code, its headers in lower case, its body."""

    code: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def reason(self) -> str:
        """The reason of an error, as the path writes errors."""
        content = self.json
        return next(str(part["reason"]) for part in content.get("details", [content]) if "reason" in part)


class RawConnection:
    """A connection to a server of HTTP.

    Args:
        url: of the server.
        source: the address of this machine to connect from, such as 127.0.0.2.
        receive_buffer: as small as a caller's that reads little.
    """

    def __init__(self, url: str, source: str = "127.0.0.1", receive_buffer: int | None = None) -> None:
        host, port = urlsplit(url).hostname, urlsplit(url).port
        self.socket = socket.socket()
        self.socket.settimeout(TIMEOUT_S)
        if receive_buffer is not None:
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        self.socket.bind((source, 0))
        self.socket.connect((host, port))
        self._file = self.socket.makefile("rb")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def send(self, *parts: bytes | str) -> None:
        for part in parts:
            self.socket.sendall(part.encode("latin-1") if isinstance(part, str) else part)

    def request(self, method: str, path: str, *headers: str, body: bytes = b"") -> None:
        """Sends a request with these lines of headers, and no others than Host."""
        self.send("\r\n".join([f"{method} {path} HTTP/1.1", "Host: localhost", *headers, "", ""]), body)

    def answer(self) -> Answer:
        """The next response. Raises ConnectionError if the server has closed instead."""
        code = int(self._line().split()[1])
        headers: dict[str, str] = {}
        while line := self._line():
            name, _, value = line.partition(":")
            headers[name.lower()] = value.strip()
        if headers.get("transfer-encoding") == "chunked":
            body = b""
            while size := int(self._line(), 16):
                body += self._read(size)
                self._line()
            self._line()
            return Answer(code, headers, body)
        return Answer(code, headers, self._read(int(headers.get("content-length", 0))))

    def is_closed(self) -> bool:
        """Waits until the server closes; False if it sends something instead."""
        try:
            return self._file.read(1) == b""
        except ConnectionError:
            return True

    def close(self) -> None:
        self._file.close()
        self.socket.close()

    def _read(self, size: int) -> bytes:
        if len(data := self._file.read(size)) < size:
            raise ConnectionError("The server has closed the connection before the end of its answer.")
        return data

    def _line(self) -> str:
        if not (line := self._file.readline()):
            raise ConnectionError("The server has closed the connection.")
        return line.decode("latin-1").rstrip("\r\n")


def form(image: bytes, **values: str) -> tuple[str, bytes]:
    """A multipart form with this image: the line of its header, and its body."""
    parts = [(f'name="{name}"', value.encode()) for name, value in values.items()]
    parts.append(('name="image"; filename="a.png"', image))
    body = b"".join(
        b"--x\r\ncontent-disposition: form-data; " + head.encode() + b"\r\n\r\n" + content + b"\r\n"
        for head, content in parts
    )
    return "Content-Type: multipart/form-data; boundary=x", body + b"--x--\r\n"
