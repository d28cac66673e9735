"""The Envoy configurations in deploy/envoy: a real Envoy accepts them, and they fit the contract and each other."""

from __future__ import annotations

import copy
import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from fakes.envoy_check import ENVOY, validated

from patchserve_server.config import Settings
from patchserve_server.contract.methods import KSERVE, METHODS, SERVICE

POLICIES = ("least-request", "by-reference")
STREAMS = {f"/{SERVICE}/InferStream", f"/{SERVICE}/LoadReferenceStream", f"/{KSERVE}/ModelStreamInfer"}


def configuration(name: str) -> dict[str, Any]:
    return dict(yaml.safe_load((ENVOY / f"{name}.yaml").read_text()))


def manager(name: str) -> dict[str, Any]:
    """The HTTP connection manager."""
    (listener,) = configuration(name)["static_resources"]["listeners"]
    (filters,) = [chain["filters"] for chain in listener["filter_chains"]]
    return dict(filters[0]["typed_config"])


def cluster(name: str) -> dict[str, Any]:
    (only,) = configuration(name)["static_resources"]["clusters"]
    return dict(only)


@pytest.mark.parametrize("name", [*POLICIES, "compose"])
def test_envoy_accepts_the_file_and_knows_nothing_in_it_as_deprecated(name: str, tmp_path: Path) -> None:
    said = validated((ENVOY / f"{name}.yaml").read_text(), tmp_path)
    assert "[warning]" not in said, said


def test_the_policies_differ_in_the_choice_of_a_server_only() -> None:
    one, other = (configuration(name) for name in POLICIES)
    for each in (one, other):
        (only,) = each["static_resources"]["clusters"]
        del only["lb_policy"]
        only["common_lb_config"].pop("consistent_hashing_lb_config", None)
        (listener,) = each["static_resources"]["listeners"]
        (chain,) = listener["filter_chains"]
        (host,) = chain["filters"][0]["typed_config"]["route_config"]["virtual_hosts"]
        hashed = [route["route"].pop("hash_policy", None) for route in host["routes"]]
        assert hashed in ([None, None], [[{"header": {"header_name": "x-patchserve-reference"}}]] * 2)
    assert one == other


def test_the_file_of_compose_is_least_request_in_plain_text_for_one_name() -> None:
    plain, expected = configuration("compose"), copy.deepcopy(configuration("least-request"))
    (listener,), (of_file,) = (each["static_resources"]["listeners"] for each in (plain, expected))
    assert listener.pop("address")["socket_address"]["port_value"] == Settings.model_fields["port"].default
    del of_file["address"]
    (chain,) = of_file["filter_chains"]
    del chain["transport_socket"]
    (only,), (of_servers,) = (each["static_resources"]["clusters"] for each in (plain, expected))
    assert only["cluster_type"]["name"] == "envoy.cluster.dns"
    for key in ("type", "cluster_type", "load_assignment", "eds_cluster_config", "transport_socket"):
        only.pop(key, None)
        of_servers.pop(key, None)
    assert plain == expected


@pytest.mark.parametrize("name", POLICIES)
def test_only_calls_that_change_nothing_are_repeated_where_a_server_may_have_seen_them(name: str) -> None:
    (host,) = manager(name)["route_config"]["virtual_hosts"]
    repeated, others = host["routes"]
    pattern = repeated["match"]["safe_regex"]["regex"]
    may_repeat = {method for method in METHODS if re.fullmatch(pattern, method)}
    changing = {name for name, method in METHODS.items() if method.is_audited or "/Export" in name}
    assert not may_repeat & (changing | STREAMS)
    assert f"/{SERVICE}/Infer" in may_repeat
    assert {f"/{SERVICE}/Get{what}" for what in ("Reference", "ServerInfo", "ReferenceImage")} <= may_repeat
    assert set(others["route"]["retry_policy"]["retry_on"].split(",")) == {"connect-failure", "refused-stream"}


@pytest.mark.parametrize("name", POLICIES)
def test_no_call_has_a_time_limit_of_envoy(name: str) -> None:
    (host,) = manager(name)["route_config"]["virtual_hosts"]
    assert {route["route"]["timeout"] for route in host["routes"]} == {"0s"}


@pytest.mark.parametrize("name", POLICIES)
def test_envoy_asks_for_the_health_of_the_service_and_notices_a_drain_in_time(name: str) -> None:
    (check,) = cluster(name)["health_checks"]
    assert check["grpc_health_check"] == {"service_name": SERVICE}
    assert float(check["interval"].removesuffix("s")) < Settings.model_fields["drain_delay_s"].default
    assert cluster(name)["common_lb_config"]["update_merge_window"] == "0s"
