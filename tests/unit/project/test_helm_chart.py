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
from fakes.envoy_check import validated

from patchserve_server.bootstrap.doctor import limits
from patchserve_server.config import Settings
from patchserve_server.contract.methods import SERVICE

REPO = Path(__file__).resolve().parents[3]
CHART = REPO / "deploy" / "helm" / "patchserve"
OLDEST = "1.30"  # kubeVersion of Chart.yaml
OF_OPERATOR = ("ServiceMonitor", "PrometheusRule")  # kinds of the Prometheus Operator, not of Kubernetes
SHARED = {"url": "s3://inspection/references"}
CASES: dict[str, dict[str, Any]] = {
    "defaults": {},
    **{path.name: yaml.safe_load(path.read_text()) for path in sorted((CHART / "ci").glob("*-values.yaml"))},
}


def kind_of(each: dict[str, Any]) -> str:
    return f"Envoy's {each['kind']}" if each["metadata"]["name"].endswith("-envoy") else str(each["kind"])


def rendered(values: dict[str, Any], release: str = "line") -> dict[str, dict[str, Any]]:
    """The objects of a release, by kind; those of Envoy as "Envoy's KIND"."""
    with helm.Chart.load(CHART) as chart:
        texts = chart.render(values, name=release, namespace="vision")
    manifests = [text for name, text in texts.items() if not name.endswith("NOTES.txt")]
    objects = [each for text in manifests for each in yaml.safe_load_all(text) if each]
    kinds = {
        ("Envoy's " if each["metadata"]["name"].endswith("-envoy") else "") + each["kind"]: each for each in objects
    }
    assert len(kinds) == len(objects)
    return kinds


@pytest.fixture(params=CASES, scope="module")
def objects(request: pytest.FixtureRequest) -> dict[str, dict[str, Any]]:
    return rendered(CASES[request.param])


@pytest.fixture
def pod(objects: dict[str, dict[str, Any]]) -> dict[str, Any]:
    template: dict[str, Any] = objects["Deployment"]["spec"]["template"]
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
    assert all(name.startswith(("PATCHSERVE_", "AWS_")) for name in variables)
    of_variables = {
        name.removeprefix("PATCHSERVE_").lower(): value
        for name, value in variables.items()
        if name.startswith("PATCHSERVE_")
    }
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
    for each in objects.values():
        if each["kind"] not in OF_OPERATOR:
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
    assert sorted(volume["name"] for volume in pod["spec"]["volumes"]) == sorted(mounts.values())
    assert all(mount.get("readOnly") for mount in container["volumeMounts"] if mount["name"] not in ("data", "tmp"))


def test_everything_selects_the_pods_of_this_release(objects: dict[str, dict[str, Any]], pod: dict[str, Any]) -> None:
    labels = {"app.kubernetes.io/name": "patchserve", "app.kubernetes.io/instance": "line"}
    assert labels.items() <= pod["metadata"]["labels"].items()
    assert objects["Deployment"]["spec"]["selector"]["matchLabels"] == labels
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
        "kind": "Deployment",
        "name": objects["Deployment"]["metadata"]["name"],
    }
    assert "replicas" not in objects["Deployment"]["spec"]


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"server": {"insecure": False}}, "Set tls.existingSecret, or server.insecure=true"),
        ({"tls": {"clientCaKey": "ca.crt"}}, "tls.clientCaKey needs tls.existingSecret"),
        ({"auth": {"existingSecret": "a"}, "metrics": {"serviceMonitor": {"enabled": True}}}, "needs its tokenSecret"),
        ({"autoscaling": {"enabled": True}}, "More than one server needs store.url"),
        ({"replicas": 2}, "More than one server needs store.url"),
        ({"replicas": 2, "store": {"existingClaim": "a"}}, "belongs to one server at a time"),
        ({"store": {"existingClaim": "a", "url": "s3://b/c"}}, "two places for the references"),
        ({"store": {"credentialsSecret": "a"}}, "are for store.url, which is empty"),
        ({"store": {"url": "s3://key:secret@b/c"}}, "/store/url"),
        ({"store": {"url": "s3://b/c", "env": {"AWS_SECRET_ACCESS_KEY": "x"}}}, "invalid propertyName"),
        ({"autoscaling": {"enabled": True}, "store": SHARED, "metrics": {"enabled": False}}, "needs metrics.enabled"),
        ({"envoy": {"enabled": True}}, "envoy.enabled needs envoy.tlsSecret"),
        ({"envoy": {"policy": "random"}}, "/envoy/policy"),
        ({"replicas": "two"}, "'/replicas': got string, want integer"),
        ({"server": {"thread": 4}}, "additional properties 'thread' not allowed"),
        ({"server": {"settings": {"port": 1}}}, "invalid propertyName 'port'"),
        ({"persistence": {}}, "additional properties 'persistence' not allowed"),
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
    settings = settings_in(objects["Deployment"]["spec"]["template"])
    assert (settings.max_bank_mib, settings.log_level, settings.client_share) == (2_000_000, "debug", 0.25)


def test_the_schema_knows_every_value_and_the_readme_too() -> None:
    values = yaml.safe_load((CHART / "values.yaml").read_text())
    schema = json.loads((CHART / "values.schema.json").read_text())
    assert set(schema["properties"]) == {*values, "global"}
    readme = (CHART / "README.md").read_text()
    assert [name for name in values if f"`{name}" not in readme] == []


def test_one_server_more_is_ready_before_an_old_one_drains() -> None:
    spec = rendered({"replicas": 3, "store": SHARED})["Deployment"]["spec"]
    assert spec["strategy"] == {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 1, "maxUnavailable": 0}}
    assert spec["minReadySeconds"] > 0
    assert spec["replicas"] == 3


def test_a_folder_on_a_volume_has_one_server_at_a_time() -> None:
    objects = rendered(CASES["volume-values.yaml"])
    assert objects["Deployment"]["spec"]["strategy"] == {"type": "Recreate"}
    pod = objects["Deployment"]["spec"]["template"]
    assert settings_in(pod).store_folder == Path("/var/lib/patchserve/references")
    (data,) = [volume for volume in pod["spec"]["volumes"] if volume["name"] == "data"]
    assert data["persistentVolumeClaim"] == {"claimName": "references"}


def test_the_cache_of_banks_fits_on_its_volume() -> None:
    pod = rendered({"store": {**SHARED, "cacheMib": 1000}})["Deployment"]["spec"]["template"]
    (data,) = [volume for volume in pod["spec"]["volumes"] if volume["name"] == "data"]
    settings = settings_in(pod)
    assert int(data["emptyDir"]["sizeLimit"].removesuffix("Mi")) > settings.store_cache_mib == 1000
    assert settings.store_cache == Path("/var/lib/patchserve/cache")


def test_credentials_are_in_no_argument_and_no_manifest() -> None:
    objects = rendered(CASES["tls-values.yaml"])
    (container,) = objects["Deployment"]["spec"]["template"]["spec"]["containers"]
    assert container["envFrom"] == [{"secretRef": {"name": "patchserve-store"}}]
    assert "serviceAccountName" not in objects["Envoy's Deployment"]["spec"]["template"]["spec"]


@pytest.mark.parametrize("name", ["tls-values.yaml", "watched-values.yaml"])
def test_envoy_has_the_file_of_its_policy_and_the_addresses_of_the_service(name: str, tmp_path: Path) -> None:
    objects = rendered(CASES[name])
    values = CASES[name]
    text = objects["Envoy's ConfigMap"]["data"]["envoy.yaml"]
    assert "[warning]" not in validated(text, tmp_path)
    shown = yaml.safe_load(text)
    policy = values["envoy"].get("policy", "least-request")
    file = yaml.safe_load((REPO / "deploy" / "envoy" / f"{policy}.yaml").read_text())
    (cluster,), (of_file,) = (each["static_resources"]["clusters"] for each in (shown, file))
    (group,) = cluster.pop("load_assignment")["endpoints"]
    (endpoint,) = group["lb_endpoints"]
    address = endpoint["endpoint"]["address"]["socket_address"]
    service = objects["Service"]["metadata"]["name"]
    assert address == {"address": f"{service}.vision.svc", "port_value": Settings.model_fields["port"].default}
    assert cluster.pop("cluster_type")["name"] == "envoy.cluster.dns"
    assert of_file.pop("type") == "EDS"
    assert ("transport_socket" in cluster) == ("tls" in values)
    for key in ("eds_cluster_config", "transport_socket"):
        cluster.pop(key, None)
        of_file.pop(key, None)
    for configuration in (shown, file):
        (listener,) = configuration["static_resources"]["listeners"]
        del listener["address"]
    assert shown == file


@pytest.mark.parametrize("name", ["tls-values.yaml", "watched-values.yaml"])
def test_every_file_that_envoy_reads_is_mounted_and_it_may_reach_the_servers(name: str) -> None:
    objects = rendered(CASES[name])
    pod = objects["Envoy's Deployment"]["spec"]["template"]
    (container,) = pod["spec"]["containers"]
    mounts = {mount["mountPath"]: mount["name"] for mount in container["volumeMounts"]}
    read = re.findall(r"filename: (\S+)", objects["Envoy's ConfigMap"]["data"]["envoy.yaml"])
    assert read
    assert all(any(Path(path).is_relative_to(mount) for mount in mounts) for path in read)
    assert sorted(volume["name"] for volume in pod["spec"]["volumes"]) == sorted(mounts.values())
    labels = pod["metadata"]["labels"]
    assert objects["Envoy's Service"]["spec"]["selector"] == labels
    assert objects["Envoy's NetworkPolicy"]["spec"]["podSelector"] == {"matchLabels": labels}
    assert {"podSelector": {"matchLabels": labels}} in objects["NetworkPolicy"]["spec"]["ingress"][0]["from"]
    (servers,) = objects["Envoy's NetworkPolicy"]["spec"]["egress"][0]["to"]
    assert servers["podSelector"]["matchLabels"] == objects["Deployment"]["spec"]["selector"]["matchLabels"]
    assert not labels.items() <= objects["Service"]["spec"]["selector"].items(), "the servers' Service has no Envoy"


def test_envoy_ends_after_its_clients_had_time_to_leave() -> None:
    spec = rendered(CASES["tls-values.yaml"])["Envoy's Deployment"]["spec"]["template"]["spec"]
    (container,) = spec["containers"]
    (slept_s,) = re.findall(r"sleep (\d+)", container["lifecycle"]["preStop"]["exec"]["command"][-1])
    assert spec["terminationGracePeriodSeconds"] > int(slept_s)
    assert container["command"][-2:] == ["--drain-time-s", slept_s]


def test_the_store_can_be_reached_and_nothing_else() -> None:
    ports = [{"port": 53, "protocol": "UDP"}, {"port": 53, "protocol": "TCP"}]
    assert rendered({})["NetworkPolicy"]["spec"]["egress"] == []
    shared = rendered({"store": SHARED})["NetworkPolicy"]["spec"]["egress"]
    assert shared[0] == {"ports": [{"port": 443}]}
    assert shared[-1] == {"ports": ports}
    (own, _) = rendered(CASES["tls-values.yaml"])["NetworkPolicy"]["spec"]["egress"]
    assert own["ports"] == [{"port": 8333}]
