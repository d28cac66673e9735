"""Callers of the documented HTTP service."""

from __future__ import annotations

import requests
from e2e.in_process import RunningServer
from fakes.images import card, encoded

TIMEOUT_S = 60
GOOD, SCRATCHED = encoded(card(1)), encoded(card(2, scratched=True))


def post(server: RunningServer, path: str, *images: bytes, **values: str) -> requests.Response:
    """A form with these images and values."""
    files = [("image", ("a.jpg", image)) for image in images]
    fields = [(name, (None, value)) for name, value in values.items()]
    return requests.post(f"{server.http_url}/{path}", files=[*files, *fields], timeout=TIMEOUT_S)


def get(server: RunningServer, path: str, **headers: str) -> requests.Response:
    return requests.get(f"{server.http_url}/{path}", headers=headers, timeout=TIMEOUT_S)


def assert_error(answer: requests.Response, code: int, reason: str, sentence: str) -> None:
    """An error of the documented service: these three fields, and nothing else."""
    assert answer.status_code == code, answer.text
    assert answer.headers["content-type"] == "application/json"
    assert answer.json() == {"status": "error", "error": answer.json()["error"], "reason": reason}
    assert sentence in answer.json()["error"]
