"""The Kubernetes manifest in docs/deployment agrees with the server. tests/e2e/test_proxies.py runs the proxies."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from patchserve_server.bootstrap.doctor import limits
from patchserve_server.config import Settings
from patchserve_server.contract.methods import SERVICE

REPO = Path(__file__).resolve().parents[3]
MANIFEST = (REPO / "docs" / "deployment" / "kubernetes.yaml").read_text()
FLAGS = dict(re.findall(r"^ +- --([a-z-]+)=?(\S*)$", MANIFEST, re.MULTILINE))


def number(pattern: str, text: str = MANIFEST) -> int:
    (value,) = set(re.findall(pattern, text))
    return int(value)


def probe(name: str) -> str:
    return MANIFEST.split(f" {name}:\n")[1].split("Probe:\n")[0].split("resources:")[0]


def test_the_flags_in_the_manifest_are_settings() -> None:
    assert FLAGS
    settings = Settings(**{name.replace("-", "_"): value or True for name, value in FLAGS.items()})  # type: ignore[arg-type]
    assert settings.insecure


def test_the_doctor_finds_nothing_in_the_limits_of_the_container(monkeypatch: pytest.MonkeyPatch) -> None:
    settings = Settings(**{name.replace("-", "_"): value or True for name, value in FLAGS.items()})  # type: ignore[arg-type]
    monkeypatch.setattr(limits, "cgroup_bytes", lambda: number(r"limits: \{ memory: (\d+)Gi \}") * 2**30)
    monkeypatch.setattr(limits, "machine_bytes", lambda: 2**40)
    monkeypatch.setattr(limits, "cgroup_cores", lambda: None)
    monkeypatch.setattr(limits, "available_cores", lambda: number(r'requests: \{ cpu: "(\d+)"'))
    found = {finding.subject: finding.advice for finding in limits.check_limits(settings)}
    assert (found["memory"], found["processor"]) == ("", "")


def test_kubernetes_waits_for_the_drain_before_it_kills_the_server() -> None:
    drain_s = int(FLAGS["drain-delay-s"]) + int(FLAGS["drain-grace-s"])
    assert number(r"terminationGracePeriodSeconds: (\d+)") > drain_s


def test_kubernetes_notices_the_drain_before_calls_are_refused() -> None:
    readiness = probe("readinessProbe")
    period_s, failures = number(r"periodSeconds: (\d+)", readiness), number(r"failureThreshold: (\d+)", readiness)
    timeout_s = number(r"timeoutSeconds: (\d+)", readiness)
    assert int(FLAGS["drain-delay-s"]) > period_s * failures + timeout_s
    assert failures > 1, "one late answer of a busy server is no reason to send its callers away"


def test_the_probes_use_the_servers_port_and_service() -> None:
    port = Settings.model_fields["port"].default
    assert number(r"name: grpc, containerPort: (\d+)") == number(r"name: grpc, port: (\d+)") == port
    assert number(r"grpc: \{ port: (\d+)") == port
    assert set(re.findall(r"service: ([\w.]+) \}", MANIFEST)) == {SERVICE}
    assert "service:" not in probe("livenessProbe"), "a draining server is alive"


def test_the_manifest_and_the_image_have_the_port_of_http() -> None:
    port = int(FLAGS["http-port"])
    assert number(r"name: http, containerPort: (\d+)") == number(r"name: http, port: (\d+)") == port
    image = (REPO / "Dockerfile").read_text()
    assert re.search(rf"^EXPOSE 50051 {port}\b", image, re.MULTILINE)
    assert f'"--http-port", "{port}"' in image
    assert f"--http-port {port} " in (REPO / "Makefile").read_text()


def test_the_manifest_has_the_user_of_the_image() -> None:
    assert number(r"runAsUser: (\d+)") == number(r"useradd --uid (\d+)", (REPO / "Dockerfile").read_text())


@pytest.mark.parametrize(
    ("proxy", "conf"), [("nginx", "docs/deployment/nginx.conf"), ("Envoy", "deploy/envoy/least-request.yaml")]
)
def test_every_proxy_setting_on_the_page_is_in_its_configuration(proxy: str, conf: str) -> None:
    page, text = ((REPO / name).read_text() for name in ("docs/deployment/README.md", conf))
    rows = re.findall(rf"^\| {proxy}: .* \| (`.*) \|$", page, re.MULTILINE)
    assert rows
    for setting in re.findall(r"`(\w+)`", " ".join(rows)):
        assert re.search(rf"^ *{setting}\b", text, re.MULTILINE), setting
