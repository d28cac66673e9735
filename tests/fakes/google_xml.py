"""The XML API of Google Cloud Storage over the JSON API, which is all that its emulator has. Conditions are ours."""

from __future__ import annotations

import json
import threading
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from email.utils import format_datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, quote, unquote, urlsplit
from xml.sax.saxutils import escape


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    target: str  # of the emulator
    bucket: str
    changing: threading.Lock

    def do_PUT(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        if source := self.headers.get("x-goog-copy-source"):
            copied = self._data(unquote(source).lstrip("/").removeprefix(f"{self.bucket}/"))
            if copied is None:
                return self._answer(404)
            body = copied
        wanted = self.headers.get("x-goog-if-generation-match")
        with self.changing:
            meta = self._meta(self._key)
            if wanted is not None and wanted != ("0" if meta is None else meta["generation"]):
                return self._answer(412)
            url = f"{self.target}/upload/storage/v1/b/{self.bucket}/o?uploadType=media&name={quote(self._key, safe='')}"
            headers = {"Content-Type": "application/octet-stream"}
            with urllib.request.urlopen(urllib.request.Request(url, body, headers, method="POST")):
                meta = self._meta(self._key)
        return self._answer(200, meta)

    def do_GET(self) -> None:
        parts = urlsplit(self.path)
        if "list-type" in parts.query:
            return self._list(parse_qs(parts.query).get("prefix", [""])[0])
        meta = self._meta(self._key)
        if meta is None:
            return self._answer(404)
        if self.headers.get("If-None-Match") == _e_tag(meta):
            return self._answer(304)
        return self._answer(200, meta, self._data(self._key) or b"")

    do_HEAD = do_GET  # noqa: N815 - a name of the library

    def do_DELETE(self) -> None:
        request = urllib.request.Request(self._url(self._key), method="DELETE")
        try:
            urllib.request.urlopen(request).close()
        except urllib.error.HTTPError as error:
            return self._answer(error.code)
        return self._answer(204)

    @property
    def _key(self) -> str:
        return unquote(urlsplit(self.path).path).removeprefix(f"/{self.bucket}/")

    def _url(self, key: str) -> str:
        return f"{self.target}/storage/v1/b/{self.bucket}/o/{quote(key, safe='')}"

    def _meta(self, key: str) -> Any:
        try:
            with urllib.request.urlopen(self._url(key)) as answer:
                return json.load(answer)
        except urllib.error.HTTPError:
            return None

    def _data(self, key: str) -> bytes | None:
        try:
            with urllib.request.urlopen(f"{self._url(key)}?alt=media") as answer:
                return bytes(answer.read())
        except urllib.error.HTTPError:
            return None

    def _list(self, prefix: str) -> None:
        with urllib.request.urlopen(
            f"{self.target}/storage/v1/b/{self.bucket}/o?prefix={quote(prefix, safe='')}"
        ) as answer:
            items = json.load(answer).get("items", [])
        contents = "".join(
            f"<Contents><Key>{escape(item['name'])}</Key><Size>{item['size']}</Size><ETag>{escape(_e_tag(item))}</ETag>"
            f"<LastModified>{item['updated']}</LastModified></Contents>"
            for item in sorted(items, key=lambda item: str(item["name"]))
        )
        self._answer(200, None, f"<ListBucketResult>{contents}</ListBucketResult>".encode())

    def _answer(self, status: int, meta: Any = None, data: bytes = b"") -> None:
        self.send_response_only(status)
        if meta is not None:
            self.send_header("ETag", _e_tag(meta))
            self.send_header("x-goog-generation", meta["generation"])
            updated = datetime.fromisoformat(meta["updated"])
            self.send_header("Last-Modified", format_datetime(updated, usegmt=True))
        if status not in (204, 304):
            self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data)

    def log_message(self, *_: Any) -> None:
        """Nothing."""


def _e_tag(meta: Any) -> str:
    return f'"{meta["generation"]}"'


@contextmanager
def google_xml(emulator_port: int, its_bucket: str) -> Iterator[int]:
    """The XML API in front of an emulator; yields its port."""

    class Handler(_Handler):
        target, bucket, changing = f"http://127.0.0.1:{emulator_port}", its_bucket, threading.Lock()

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield int(server.server_address[1])
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
