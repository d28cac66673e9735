"""The HTTP server: its port, its connections, its end."""

from __future__ import annotations

import requests
from e2e.in_process import running_server


def test_health_is_answered_without_a_token() -> None:
    with running_server() as server:
        answer = requests.get(f"{server.http_url}/health", timeout=60)
        assert (answer.status_code, answer.json()["status"]) == (200, "healthy")
