"""Envoy's transcoder reads the same routes: JSON through a real Envoy onto gRPC, and JSON to our own HTTP face."""

from __future__ import annotations

import base64
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import requests
from e2e.harness import connect
from e2e.in_process import RunningServer, running_server
from e2e.proxies import SAMPLES, START_TIMEOUT_S
from fakes.images import card, encoded
from fakes.programs import free_port, program

from patchserve.v1 import reference_pb2

TIMEOUT_S = 60
REPO = SAMPLES.parents[1]
IMAGE = base64.b64encode(encoded(card(7, scratched=True))).decode()
MANAGER = "envoy.extensions.filters.network.http_connection_manager"
CONFIG = """
static_resources:
  listeners:
    - address: {{ socket_address: {{ address: 127.0.0.1, port_value: {port} }} }}
      filter_chains:
        - filters:
            - name: envoy.filters.network.http_connection_manager
              typed_config:
                "@type": type.googleapis.com/{manager}.v3.HttpConnectionManager
                stat_prefix: json
                route_config:
                  virtual_hosts:
                    - name: all
                      domains: ["*"]
                      routes: [{{ match: {{ prefix: "/" }}, route: {{ cluster: grpc }} }}]
                http_filters:
                  {transcoder}
                  - name: envoy.filters.http.router
                    typed_config: {{ "@type": type.googleapis.com/envoy.extensions.filters.http.router.v3.Router }}
  clusters:
    - name: grpc
      connect_timeout: 5s
      typed_extension_protocol_options:
        envoy.extensions.upstreams.http.v3.HttpProtocolOptions:
          "@type": type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions
          explicit_http_config: {{ http2_protocol_options: {{}} }}
      load_assignment:
        cluster_name: grpc
        endpoints:
          - lb_endpoints:
              - endpoint: {{ address: {{ socket_address: {{ address: 127.0.0.1, port_value: {upstream} }} }} }}
"""


@pytest.fixture(scope="module")
def server() -> Iterator[RunningServer]:
    with running_server() as running, connect(running.address) as stub:
        images = [encoded(card(seed)) for seed in range(3)]
        for reference_id in ("cards", "other"):
            stub.LoadReference(reference_pb2.LoadReferenceRequest(reference_id=reference_id, images=images))
        yield running


@pytest.fixture(scope="module")
def envoy_url(server: RunningServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """An Envoy with the filter of docs/http.md in front of the server's gRPC."""
    folder = tmp_path_factory.mktemp("envoy")
    buf = Path(sys.executable).parent / "buf"
    contract = folder / "patchserve.binpb"
    paths = [f"--path={REPO}/protos/{path}" for path in ("patchserve/v1", "google/rpc")]
    subprocess.run([buf, "build", REPO / "protos", *paths, "-o", contract], check=True, timeout=TIMEOUT_S)
    port, upstream = free_port(), server.address.rpartition(":")[2]
    values = {"manager": MANAGER, "transcoder": documented_filter(contract)}
    (folder / "envoy.yaml").write_text(CONFIG.format(port=port, upstream=upstream, **values))
    options = ["--use-dynamic-base-id", "--log-path", str(folder / "log"), "--concurrency", "1"]
    process = subprocess.Popen([program("envoy"), "-c", str(folder / "envoy.yaml"), *options])
    try:
        url = f"http://127.0.0.1:{port}"
        wait_for(url, process, folder / "log")
        yield url
    finally:
        process.terminate()
        process.wait(30)


def documented_filter(contract: Path) -> str:
    """The filter in docs/http.md, with this file of the contract."""
    text = (REPO / "docs" / "http.md").read_text()
    found = re.search(r"```yaml\nhttp_filters:\n(.*?)```", text, re.DOTALL)
    assert found is not None
    return found[1].replace("/etc/envoy/patchserve.binpb", str(contract)).replace("\n", "\n" + " " * 16).strip()


def wait_for(url: str, process: subprocess.Popen[bytes], log: Path) -> None:
    end_s = time.monotonic() + START_TIMEOUT_S
    while True:
        try:
            requests.get(f"{url}/v1/server", timeout=TIMEOUT_S)
        except requests.ConnectionError:
            assert process.poll() is None, log.read_text()
            assert time.monotonic() < end_s, log.read_text()
            time.sleep(0.1)
        else:
            return


def comparable(value: Any) -> Any:
    """An answer without its times; Envoy writes more digits of a float."""
    if isinstance(value, list):
        return [comparable(one) for one in value]
    if isinstance(value, dict):
        return {name: comparable(one) for name, one in value.items() if name != "timing"}
    return float(np.float32(value)) if isinstance(value, float) else value


def test_the_answers_are_the_same(server: RunningServer, envoy_url: str) -> None:
    output = {"overlay": True, "score_map": True, "maxRegions": 3, "heatmap_scale": "HEATMAP_SCALE_CALIBRATED"}
    calls: list[tuple[str, str, Any]] = [
        ("GET", "/v1/server", None),
        ("GET", "/v1/loads", None),
        ("GET", "/v1/references", None),
        ("GET", "/v1/references?page_size=1", None),
        ("GET", "/v1/references?pageSize=1&page_token=Y2FyZHM=", None),
        ("GET", "/v1/references/cards", None),
        ("GET", "/v1/references/c%61rds", None),
        ("GET", "/v1/references/cards/images/1", None),
        ("POST", "/v1/references/cards:infer", {"image": IMAGE, "output": output}),
        ("POST", "/v1/references/cards:infer", {"image": IMAGE.replace("+", "-").replace("/", "_")}),
    ]
    for http_method, path, body in calls:
        own, through_envoy = (
            requests.request(http_method, url + path, json=body, timeout=TIMEOUT_S)
            for url in (server.http_url, envoy_url)
        )
        assert own.status_code == through_envoy.status_code == 200, (path, through_envoy.text)
        assert comparable(own.json()) == comparable(through_envoy.json()), path


def test_changes_through_envoy_are_the_same(server: RunningServer, envoy_url: str) -> None:
    tuned = requests.post(f"{envoy_url}/v1/references/other:tune", json={"sensitivity": 2}, timeout=TIMEOUT_S).json()
    assert tuned["reference"]["sensitivity"] == 2
    load = {"images": [IMAGE], "mode": "LOAD_MODE_APPEND", "image_names": ["a.jpg"]}
    loaded = requests.post(f"{envoy_url}/v1/references/other:load", json=load, timeout=TIMEOUT_S).json()
    described = requests.get(f"{server.http_url}/v1/references/other", timeout=TIMEOUT_S).json()["reference"]
    del described["drift"]  # only descriptions have it
    assert described == loaded["reference"]
    assert loaded["reference"]["image_count"] == 4
    deleted = requests.delete(f"{envoy_url}/v1/references/other", timeout=TIMEOUT_S).json()
    assert deleted == {"revision": loaded["reference"]["revision"]}
    assert requests.get(f"{server.http_url}/v1/references/other", timeout=TIMEOUT_S).status_code == 404


@pytest.mark.parametrize(
    ("http_method", "path", "body"),
    [
        ("GET", "/v1/references/nothing", None),
        ("GET", "/v1/references/a%24", None),
        ("GET", "/v1/references/cards/images/3", None),
        ("POST", "/v1/references/cards:restore", {}),
        ("GET", "/v1/references?page_size=1001", None),
        ("POST", "/v1/references/cards:infer", {"image": ""}),
        ("POST", "/v1/references/cards:infer", {"image": "AAAA"}),
        ("POST", "/v1/references/cards:infer", {"image": IMAGE, "output": {"max_regions": 1001}}),
        ("POST", "/v1/references/cards:infer", {"image": IMAGE, "expected_revision": "0" * 64}),
        ("POST", "/v1/references/cards:load", {"images": ["AAAA"]}),
        ("POST", "/v1/references/cards:tune", {"sensitivity": 0}),
    ],
)
def test_errors_of_the_contract_are_the_same(
    http_method: str, path: str, body: Any, server: RunningServer, envoy_url: str
) -> None:
    own, through_envoy = (
        requests.request(http_method, url + path, json=body, timeout=TIMEOUT_S) for url in (server.http_url, envoy_url)
    )
    assert own.status_code == through_envoy.status_code >= 400
    assert own.json() == through_envoy.json()


@pytest.mark.parametrize(
    ("http_method", "path", "body"),
    [
        ("POST", "/v1/references/cards:infer", b'{"ouput": {}}'),
        ("POST", "/v1/references/cards:infer", b'{"image": "A?"}'),
        ("POST", "/v1/references/cards:infer", b'{"output": {"max_regions": -1}}'),
        ("POST", "/v1/references/cards:infer", b"[" * 1000),
        ("POST", "/v1/references/cards:infer", b"{"),
        ("GET", "/v1/references?page_size=many", None),
        ("GET", "/v1/references?pagesize=1", None),
    ],
)
def test_requests_that_are_no_messages_are_bad_requests_to_both(
    http_method: str, path: str, body: bytes | None, server: RunningServer, envoy_url: str
) -> None:
    """Envoy refuses them itself, with its own words."""
    headers = {"content-type": "application/json"} if body else {}
    for url in (server.http_url, envoy_url):
        answer = requests.request(http_method, url + path, data=body, headers=headers, timeout=TIMEOUT_S)
        assert answer.status_code == 400, (url, answer.text)
