"""The files in deploy/ and the Dockerfile agree with the server's settings and with each other."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml
from compose_spec import PyCompose

from patchserve_server.config import Settings

REPO = Path(__file__).resolve().parents[3]
DEPLOY = REPO / "deploy"
DOCKERFILE = (REPO / "Dockerfile").read_text()
ADMITTED = re.findall(r"^!(\S+)$", (REPO / ".dockerignore").read_text(), re.MULTILINE)
UNIT = (DEPLOY / "systemd" / "patchserve.service").read_text()
VARIABLES = dict(re.findall(r"^(PATCHSERVE_\w+)=(\S+)$", (DEPLOY / "systemd/patchserve.env").read_text(), re.MULTILINE))


def composed(name: str) -> dict[str, Any]:
    """A compose file as it is without any variable set."""
    text = re.sub(r"\$\{\w+:-([^}]*)\}", r"\1", (DEPLOY / name).read_text())
    PyCompose.from_yaml(re.sub(r":[\w.-]+@sha256:", "@sha256:", text)).validate()  # it knows no tag before a digest
    return dict(yaml.safe_load(text))


def drain_s(settings: Settings) -> float:
    return settings.drain_delay_s + settings.drain_grace_s


def settings_of(flags: dict[str, str]) -> Settings:
    named = {name.replace("-", "_"): value or True for name, value in flags.items()}
    assert named.keys() <= Settings.model_fields.keys()
    return Settings(**named)  # type: ignore[arg-type]


def test_the_image_has_every_package_of_the_wheel() -> None:
    wheel = tomllib.loads((REPO / "pyproject.toml").read_text())["tool"]["hatch"]["build"]["targets"]["wheel"]
    assert [each for each in wheel["packages"] if not any(Path(each).is_relative_to(name) for name in ADMITTED)] == []


def test_the_image_gets_every_file_that_its_steps_use() -> None:
    sources = re.findall(r"^COPY (?!--)(.+) \S+$", DOCKERFILE, re.MULTILINE)
    copied = [name for names in sources for name in names.split()]
    assert copied
    assert [name for name in copied if not any(each == name or each.startswith(f"{name}/") for each in ADMITTED)] == []
    assert set(re.findall(r"(?:requirements|tools)/\w+\S*\.(?:txt|py)", DOCKERFILE)) <= set(ADMITTED)


def test_every_image_is_pinned_to_a_digest() -> None:
    stages = re.findall(r"^FROM (\S+)(?: AS (\w+))?$", DOCKERFILE, re.MULTILINE)
    names = {name for _, name in stages}
    bases = [image for image, _ in stages if image not in names]
    for name in ("compose.yaml", "compose.fleet.yaml"):
        services = composed(name)["services"]
        bases += [service["image"] for service in services.values() if "build" not in service]
    bases.append(chart_image())
    assert len(bases) == 6
    assert [image for image in bases if not re.fullmatch(r"[\w/-]+:[\w.-]+@sha256:[0-9a-f]{64}", image)] == []


def chart_image() -> str:
    """The image of Envoy in the Helm chart."""
    image = yaml.safe_load((DEPLOY / "helm/patchserve/values.yaml").read_text())["envoy"]["image"]
    return "{repository}:{tag}@{digest}".format(**image)


@pytest.mark.parametrize("name", ["compose.yaml", "compose.gpu.yaml", "compose.fleet.yaml"])
def test_the_compose_files_are_valid(name: str) -> None:
    assert composed(name)["services"]


@pytest.mark.parametrize("name", ["compose.yaml", "compose.fleet.yaml"])
def test_compose_starts_the_server_with_settings_that_exist_and_lets_it_drain(name: str) -> None:
    server = composed(name)["services"]["server"]
    command, *flags = server["command"]
    assert command == "serve"
    settings = settings_of({flag.partition("=")[0].removeprefix("--"): flag.partition("=")[2] for flag in flags})
    assert float(server["stop_grace_period"].removesuffix("s")) > drain_s(settings)
    overriding = composed("compose.gpu.yaml")["services"]["server"]["environment"]
    assert {name.removeprefix("PATCHSERVE_").lower() for name in overriding} <= Settings.model_fields.keys()
    assert overriding["PATCHSERVE_FRONTS"] == "auto", "one process cannot feed a GPU"


def test_everything_of_compose_listens_on_this_machine_only() -> None:
    for file in ("compose.yaml", "compose.fleet.yaml"):
        for name, service in composed(file)["services"].items():
            assert all(port.startswith("127.0.0.1:") for port in service.get("ports", []))
            assert name == "store" or service["cap_drop"] == ["ALL"], "SeaweedFS's image changes its user itself"
            assert service["security_opt"] == ["no-new-privileges:true"]


def test_the_fleet_of_compose_shares_one_store_and_envoy_knows_its_servers() -> None:
    services = composed("compose.fleet.yaml")["services"]
    server, store, envoy = (services[name] for name in ("server", "store", "envoy"))
    assert server["deploy"]["replicas"] == 3
    (url,) = [flag.partition("=")[2] for flag in server["command"] if flag.startswith("--store=")]
    bucket = url.removeprefix("s3://").partition("/")[0]
    assert f"-bucket={bucket}" in store["command"]
    assert server["environment"]["AWS_ENDPOINT_URL"] == "http://store:8333"
    assert store["environment"].items() <= server["environment"].items()
    assert not [flag for flag in server["command"] + store["command"] if "KEY" in flag or "trials" in flag]
    (mount,) = envoy["volumes"]
    source, target, mode = mount.split(":")
    assert (target, mode) == (envoy["command"][-1], "ro")
    (cluster,) = yaml.safe_load((DEPLOY / source).read_text())["static_resources"]["clusters"]
    (group,) = cluster["load_assignment"]["endpoints"]
    (endpoint,) = group["lb_endpoints"]
    assert endpoint["endpoint"]["address"]["socket_address"] == {"address": "server", "port_value": 50051}
    assert chart_image() == envoy["image"]


def test_prometheus_scrapes_the_server_of_compose_and_grafana_asks_prometheus() -> None:
    services = composed("compose.yaml")["services"]
    (job,) = yaml.safe_load((DEPLOY / "prometheus/prometheus.yml").read_text())["scrape_configs"]
    (flag,) = [flag for flag in services["server"]["command"] if flag.startswith("--metrics-port=")]
    assert job["static_configs"] == [{"targets": [f"server:{flag.partition('=')[2]}"]}]
    (source,) = yaml.safe_load((DEPLOY / "grafana/provisioning/datasources/prometheus.yaml").read_text())["datasources"]
    assert source["url"] == f"http://prometheus:{services['prometheus']['ports'][0].rpartition(':')[2]}"


def test_every_file_that_compose_mounts_exists_and_is_read_where_it_is_mounted() -> None:
    services = composed("compose.yaml")["services"]
    mounts = [
        mount.split(":") for service in services.values() for mount in service["volumes"] if mount.startswith("./")
    ]
    assert all((DEPLOY / source).exists() and mode == "ro" for source, _, mode in mounts)
    targets = {target for _, target, _ in mounts}
    (rules,) = yaml.safe_load((DEPLOY / "prometheus/prometheus.yml").read_text())["rule_files"]
    (provider,) = yaml.safe_load((DEPLOY / "grafana/provisioning/dashboards/patchserve.yaml").read_text())["providers"]
    home = services["grafana"]["environment"]["GF_DASHBOARDS_DEFAULT_HOME_DASHBOARD_PATH"]
    assert {f"/etc/prometheus/{rules}", home} <= targets
    assert str(Path(home).parent) == provider["options"]["path"]


def test_the_unit_starts_the_server_with_settings_that_exist_and_lets_it_drain() -> None:
    variables = VARIABLES | dict(re.findall(r"(PATCHSERVE_\w+)=(\S+)", UNIT.split("EnvironmentFile")[0]))
    settings = settings_of({name.removeprefix("PATCHSERVE_").lower(): value for name, value in variables.items()})
    (timeout_s,) = re.findall(r"^TimeoutStopSec=(\d+)$", UNIT, re.MULTILINE)
    assert int(timeout_s) > drain_s(settings)
    assert "User=patchserve\n" in UNIT
    assert re.search(r"^u patchserve ", (DEPLOY / "systemd" / "patchserve.sysusers").read_text(), re.MULTILINE)
