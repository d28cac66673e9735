"""The Helm chart: what it renders is valid, agrees with the server's settings, and hardens its pods."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import helm_python as helm
import kubernetes_validate
import pytest
import yaml

from patchserve_server.bootstrap.doctor import limits
from patchserve_server.config import Settings
from patchserve_server.contract.methods import SERVICE

REPO = Path(__file__).resolve().parents[3]
CHART = REPO / "deploy" / "helm" / "patchserve"
OLDEST = "1.30"  # kubeVersion of Chart.yaml
OF_OPERATOR = ("ServiceMonitor", "PrometheusRule")  # kinds of the Prometheus Operator, not of Kubernetes
CASES: dict[str, dict[str, Any]] = {
    "defaults": {},
    **{path.name: yaml.safe_load(path.read_text()) for path in sorted((CHART / "ci").glob("*-values.yaml"))},
}


def rendered(values: dict[str, Any], release: str = "line") -> dict[str, dict[str, Any]]:
    """The objects of a release, by kind."""
    with helm.Chart.load(CHART) as chart:
        texts = chart.render(values, name=release, namespace="vision")
    manifests = [text for name, text in texts.items() if not name.endswith("NOTES.txt")]
    objects = [each for text in manifests for each in yaml.safe_load_all(text) if each]
    kinds = {each["kind"]: each for each in objects}
    assert len(kinds) == len(objects)
    return kinds


@pytest.fixture(params=CASES, scope="module")
def objects(request: pytest.FixtureRequest) -> dict[str, dict[str, Any]]:
    return rendered(CASES[request.param])


@pytest.fixture
def pod(objects: dict[str, dict[str, Any]]) -> dict[str, Any]:
    template: dict[str, Any] = objects["StatefulSet"]["spec"]["template"]
    return template


def flag_of(text: str) -> tuple[str, str | bool]:
    """--max-bank-mib=8 as the name of the setting and its value; --insecure is True."""
    name, equals, value = text.removeprefix("--").partition("=")
    return name.replace("-", "_"), value if equals else True


def settings_in(pod: dict[str, Any]) -> Settings:
    """The settings that the container gives to the server. Fails if it names one that the server does not have."""
    (container,) = pod["spec"]["containers"]
    command, *flags = container["args"]
    assert command == "serve"
    given = dict(map(flag_of, flags))
    variables = {entry["name"]: entry["value"] for entry in container.get("env", [])}
    of_variables = {name.removeprefix("PATCHSERVE_").lower(): value for name, value in variables.items()}
    assert not set(given) & set(of_variables)
    assert set(given | of_variables) <= set(Settings.model_fields)
    return Settings(**{**given, **of_variables})


@pytest.mark.parametrize("values", CASES.values(), ids=CASES)
def test_helm_lint_finds_nothing(values: dict[str, Any]) -> None:
    found = helm.lint(CHART, values, strict=True, kube_version=f"v{OLDEST}.0")
    assert not found["errors"]
    assert [each["error"] for each in found["messages"]] == ["icon is recommended"]


@pytest.mark.parametrize("version", [OLDEST, kubernetes_validate.latest_version()])
def test_every_object_has_the_schema_of_kubernetes(objects: dict[str, dict[str, Any]], version: str) -> None:
    for kind, each in objects.items():
        if kind not in OF_OPERATOR:
            kubernetes_validate.validate(each, version, strict=True)


def test_the_doctor_finds_nothing_in_the_limits_of_the_container(
    pod: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    resources = pod["spec"]["containers"][0]["resources"]
    memory_gib, cores = int(resources["limits"]["memory"].removesuffix("Gi")), int(resources["requests"]["cpu"])
    monkeypatch.setattr(limits, "cgroup_bytes", lambda: memory_gib * 2**30)
    monkeypatch.setattr(limits, "machine_bytes", lambda: 2**40)
    monkeypatch.setattr(limits, "cgroup_cores", lambda: None)
    monkeypatch.setattr(limits, "available_cores", lambda: cores)
    found = {finding.subject: finding.advice for finding in limits.check_limits(settings_in(pod))}
    assert (found["memory"], found["processor"]) == ("", "")


def test_every_flag_and_variable_is_a_setting_of_the_server(pod: dict[str, Any]) -> None:
    settings = settings_in(pod)
    assert settings.insecure == (settings.tls_cert is None)


def test_kubernetes_waits_for_the_drain_before_it_kills_the_server(pod: dict[str, Any]) -> None:
    settings, spec = settings_in(pod), pod["spec"]
    pre_stop_s = spec["containers"][0]["lifecycle"]["preStop"]["sleep"]["seconds"]
    needed_s = pre_stop_s + settings.drain_delay_s + settings.drain_grace_s
    assert spec["terminationGracePeriodSeconds"] > needed_s


def test_kubernetes_notices_the_drain_before_calls_are_refused(pod: dict[str, Any]) -> None:
    probe = pod["spec"]["containers"][0]["readinessProbe"]
    noticed_s = probe["periodSeconds"] * probe["failureThreshold"] + probe["timeoutSeconds"]
    assert settings_in(pod).drain_delay_s > noticed_s
    assert probe["failureThreshold"] > 1, "one late answer of a busy server is no reason to send its callers away"


def test_readiness_asks_the_service_and_liveness_does_not(pod: dict[str, Any]) -> None:
    container = pod["spec"]["containers"][0]
    ready, alive = container["readinessProbe"], container["livenessProbe"]
    if settings_in(pod).tls_cert is None:
        assert ready["grpc"] == {"port": Settings.model_fields["port"].default, "service": SERVICE}
        assert alive["grpc"] == {"port": Settings.model_fields["port"].default}
    else:
        assert ready["exec"]["command"][:2] == ["patchserve", "health"]
        assert alive["tcpSocket"] == {"port": "grpc"}


def test_the_pod_has_no_right_that_it_does_not_need(pod: dict[str, Any]) -> None:
    spec = pod["spec"]
    uid = int(*re.findall(r"useradd --uid (\d+)", (REPO / "Dockerfile").read_text()))
    assert spec["securityContext"]["runAsNonRoot"] is True
    assert spec["securityContext"]["runAsUser"] == uid
    assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert spec["automountServiceAccountToken"] is False
    assert spec["enableServiceLinks"] is False, "a Service named patchserve would set PATCHSERVE_PORT"
    assert spec["containers"][0]["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }


def test_every_path_of_a_flag_is_mounted_and_every_mount_has_a_volume(
    objects: dict[str, dict[str, Any]], pod: dict[str, Any]
) -> None:
    container = pod["spec"]["containers"][0]
    mounts = {mount["mountPath"]: mount["name"] for mount in container["volumeMounts"]}
    probe = container["readinessProbe"].get("exec", {}).get("command", [])
    variables = [f"={entry['value']}" for entry in container.get("env", [])]
    paths = re.findall(r"=(/\S+)", " ".join([*container["args"], *probe, *variables]))
    assert [path for path in paths if not any(Path(path).is_relative_to(mount) for mount in mounts)] == []
    claims = objects["StatefulSet"]["spec"].get("volumeClaimTemplates", [])
    volumes = [volume["name"] for volume in pod["spec"]["volumes"]] + [claim["metadata"]["name"] for claim in claims]
    assert sorted(volumes) == sorted(mounts.values())
    assert all(
        mount.get("readOnly") for mount in container["volumeMounts"] if mount["name"] not in ("references", "tmp")
    )


def test_everything_selects_the_pods_of_this_release(objects: dict[str, dict[str, Any]], pod: dict[str, Any]) -> None:
    labels = {"app.kubernetes.io/name": "patchserve", "app.kubernetes.io/instance": "line"}
    assert labels.items() <= pod["metadata"]["labels"].items()
    assert objects["StatefulSet"]["spec"]["selector"]["matchLabels"] == labels
    assert objects["Service"]["spec"]["selector"] == labels
    for kind, key in {
        "PodDisruptionBudget": "selector",
        "NetworkPolicy": "podSelector",
        "ServiceMonitor": "selector",
    }.items():
        if kind in objects:
            assert objects[kind]["spec"][key] == {"matchLabels": labels}
    assert labels.items() <= objects["Service"]["metadata"]["labels"].items(), "a ServiceMonitor selects Services"


def test_every_port_of_the_service_and_of_the_policy_is_one_of_the_container(
    objects: dict[str, dict[str, Any]], pod: dict[str, Any]
) -> None:
    settings = settings_in(pod)
    ports = {port["name"]: port["containerPort"] for port in pod["spec"]["containers"][0]["ports"]}
    listens = {"grpc": settings.port, "http": settings.http_port, "metrics": settings.metrics_port}
    assert ports == {name: port for name, port in listens.items() if port is not None}
    service = objects["Service"]["spec"]["ports"]
    assert {port["targetPort"]: port["port"] for port in service} == ports
    if "NetworkPolicy" in objects:
        rules = objects["NetworkPolicy"]["spec"]["ingress"]
        assert [port["port"] for rule in rules for port in rule["ports"]] == list(ports)


def test_the_operator_gets_the_alert_rules_and_grafana_the_dashboard() -> None:
    objects = rendered(CASES["watched-values.yaml"])
    assert objects["PrometheusRule"]["spec"] == yaml.safe_load((CHART / "files" / "alerts.yml").read_text())
    (endpoint,) = objects["ServiceMonitor"]["spec"]["endpoints"]
    assert endpoint["port"] in [port["name"] for port in objects["Service"]["spec"]["ports"]]
    dashboard = (CHART / "files" / "dashboard.json").read_text()
    assert json.loads(objects["ConfigMap"]["data"]["patchserve.json"]) == json.loads(dashboard)


def test_the_operator_scrapes_with_the_certificates_and_the_token_that_the_port_wants() -> None:
    (endpoint,) = rendered(CASES["tls-values.yaml"])["ServiceMonitor"]["spec"]["endpoints"]
    assert endpoint["scheme"] == "https"
    assert endpoint["tlsConfig"]["ca"]["secret"] == {"name": "patchserve-tls", "key": "ca.crt"}
    assert endpoint["tlsConfig"]["keySecret"] == {"name": "patchserve-probe", "key": "tls.key"}
    assert endpoint["authorization"]["credentials"] == {"name": "patchserve-metrics-token", "key": "token"}
    (plain,) = rendered(CASES["watched-values.yaml"])["ServiceMonitor"]["spec"]["endpoints"]
    assert (plain["port"], plain["interval"]) == ("metrics", "15s")
    assert {"scheme", "tlsConfig", "authorization"} & plain.keys() == set()


@pytest.mark.parametrize(
    ("release", "override"), [("line", ""), ("patchserve", ""), ("line", "inspection"), ("a", "my-patchserve-2")]
)
def test_the_alert_rules_know_the_servers_whatever_the_release_is_called(release: str, override: str) -> None:
    values = {"fullnameOverride": override, "metrics": {"serviceMonitor": {"enabled": True}}}
    objects = rendered(values, release)
    (endpoint,) = objects["ServiceMonitor"]["spec"]["endpoints"]
    (relabeling,) = endpoint["relabelings"]
    assert relabeling["targetLabel"] == "job"
    assert objects["Service"]["metadata"]["name"] in relabeling["replacement"], "two releases are two jobs"
    rules = (CHART / "files" / "alerts.yml").read_text()
    for pattern in re.findall(r'job=~"([^"]+)"', rules):
        assert re.fullmatch(pattern, relabeling["replacement"])


def test_whoever_may_call_somebody_may_ask_for_the_address() -> None:
    collector = {"to": [{"podSelector": {}}], "ports": [{"port": 4317}]}
    opened = rendered({"networkPolicy": {"egress": [collector]}})["NetworkPolicy"]["spec"]["egress"]
    assert opened == [collector, {"ports": [{"port": 53, "protocol": "UDP"}, {"port": 53, "protocol": "TCP"}]}]
    assert rendered({})["NetworkPolicy"]["spec"]["egress"] == []


def test_the_autoscaler_scales_the_servers_and_nobody_else_does() -> None:
    objects = rendered(CASES["watched-values.yaml"])
    target = objects["HorizontalPodAutoscaler"]["spec"]["scaleTargetRef"]
    assert target == {
        "apiVersion": "apps/v1",
        "kind": "StatefulSet",
        "name": objects["StatefulSet"]["metadata"]["name"],
    }
    assert "replicas" not in objects["StatefulSet"]["spec"]


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"server": {"insecure": False}}, "Set tls.existingSecret, or server.insecure=true"),
        ({"tls": {"clientCaKey": "ca.crt"}}, "tls.clientCaKey needs tls.existingSecret"),
        ({"auth": {"existingSecret": "a"}, "metrics": {"serviceMonitor": {"enabled": True}}}, "needs its tokenSecret"),
        ({"autoscaling": {"enabled": True}}, "every replica has references of its own"),
        ({"autoscaling": {"enabled": True}, "metrics": {"enabled": False}}, "needs metrics.enabled"),
        ({"replicas": "two"}, "'/replicas': got string, want integer"),
        ({"server": {"thread": 4}}, "additional properties 'thread' not allowed"),
        ({"server": {"settings": {"port": 1}}}, "invalid propertyName 'port'"),
        ({"persistence": {"accessModes": ["ReadWriteMany"]}}, "/persistence/accessModes/0"),
        ({"image": {"digest": "sha256:12"}}, "/image/digest"),
    ],
)
def test_wrong_values_are_refused_with_the_reason(values: dict[str, Any], message: str) -> None:
    with pytest.raises(helm.HelmError, match=re.escape(message)):
        rendered(values)


def test_a_number_stays_a_number_and_a_switch_a_switch() -> None:
    objects = rendered(
        {"server": {"settings": {"max-bank-mib": 2_000_000, "log-level": "debug", "client-share": 0.25}}}
    )
    settings = settings_in(objects["StatefulSet"]["spec"]["template"])
    assert (settings.max_bank_mib, settings.log_level, settings.client_share) == (2_000_000, "debug", 0.25)


def test_the_schema_knows_every_value_and_the_readme_too() -> None:
    values = yaml.safe_load((CHART / "values.yaml").read_text())
    schema = json.loads((CHART / "values.schema.json").read_text())
    assert set(schema["properties"]) == {*values, "global"}
    readme = (CHART / "README.md").read_text()
    assert [name for name in values if f"`{name}" not in readme] == []
