"""The settings of the application on Ray."""

from __future__ import annotations

from pathlib import Path

import pytest

from patchserve_server.config import ConfigurationError
from patchserve_server.domain.errors import StartupError
from patchserve_server.ray.arguments import given_settings


@pytest.fixture(autouse=True)
def no_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PATCHSERVE_CONFIG", raising=False)


def test_a_replica_gets_what_is_set_and_finds_out_the_rest(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "patchserve.toml").write_text('max_bank_mib = 100\nhost = "0.0.0.0"\n')
    monkeypatch.setenv("PATCHSERVE_LOG_CALLS", "failed")
    settings, given = given_settings(
        {"config": str(tmp_path / "patchserve.toml"), "insecure": True, "max_bank_mib": 200}
    )
    assert given == {"insecure": True, "max_bank_mib": 200, "log_calls": "failed"}
    assert settings.max_pending_images == 64


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({}, "insecure = true"),
        ({"insecure": True, "http_port": 8080}, "http_port"),
        ({"insecure": True, "metrics_port": 9090}, "metrics_port"),
        ({"insecure": True, "fronts": 2}, "replicas"),
        ({"insecure": True, "device": "cuda:0,cuda:1"}, "replicas"),
        ({"insecure": True, "device": "all"}, "replicas"),
        ({"insecure": True, "engine": "elsewhere:50052"}, "engine"),
        ({"insecure": True, "tls_cert": "/tls.crt", "tls_key": "/tls.key"}, "Envoy"),
    ],
)
def test_what_has_no_meaning_on_ray_is_refused(arguments: dict[str, object], said: str) -> None:
    with pytest.raises(StartupError, match=said):
        given_settings(arguments)


@pytest.mark.parametrize(
    "arguments", [{"insecure": True, "nonsense": 1, "more": 2}, {"insecure": True, "max_bank_mib": 0}]
)
def test_faults_of_settings_are_named(arguments: dict[str, object]) -> None:
    with pytest.raises(ConfigurationError, match=r"nonsense|max-bank-mib"):
        given_settings(arguments)
