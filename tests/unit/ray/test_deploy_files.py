"""The files in deploy/ray."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml
from ray._common.utils import import_attr
from ray.serve.schema import ServeDeploySchema

from patchserve_server.ray.arguments import given_settings

FOLDER = Path(__file__).resolve().parents[3] / "deploy" / "ray"
KUBERNETES = kubernetes_validate.latest_version()


def documents() -> dict[str, Any]:
    """The documents of the file for KubeRay, by kind."""
    return {each["kind"]: each for each in yaml.safe_load_all((FOLDER / "rayservice.yaml").read_text())}


def test_ray_serve_takes_the_configuration(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PATCHSERVE_CONFIG", raising=False)
    config = ServeDeploySchema.model_validate(yaml.safe_load((FOLDER / "serve.yaml").read_text()))
    (application,) = config.applications
    assert callable(import_attr(application.import_path))
    (functions,) = config.grpc_options.grpc_servicer_functions
    assert callable(import_attr(functions))
    settings, given = given_settings(application.args)
    assert given.keys() == application.args.keys()
    assert settings.store_url is not None
    (deployment,) = application.deployments
    assert deployment.max_ongoing_requests == settings.max_pending_images


def test_kuberay_gets_the_same_configuration() -> None:
    embedded = yaml.safe_load(documents()["RayService"]["spec"]["serveConfigV2"])
    assert embedded == yaml.safe_load((FOLDER / "serve.yaml").read_text())


@pytest.mark.parametrize("kind", ["Service", "NetworkPolicy"])
def test_kubernetes_takes_what_is_its_own(kind: str) -> None:
    kubernetes_validate.validate(documents()[kind], KUBERNETES, strict=True)


def test_the_pods_are_valid_and_have_the_ports_and_labels_that_others_ask_for() -> None:
    found = documents()
    cluster = found["RayService"]["spec"]["rayClusterConfig"]
    groups = [cluster["headGroupSpec"], *cluster["workerGroupSpecs"]]
    ports = {(port["name"], port["port"]) for port in found["Service"]["spec"]["ports"]}
    assert ports == {("grpc", 9000), ("http", 8000)}
    for group in groups:
        assert all(isinstance(value, str) for value in group["rayStartParams"].values())
        template = group["template"]
        pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "pod", **template["metadata"]}}
        kubernetes_validate.validate({**pod, "spec": template["spec"]}, KUBERNETES, strict=True)
        assert template["metadata"]["labels"]["app"] == found["Service"]["spec"]["selector"]["app"]
        (container,) = template["spec"]["containers"]
        assert {number for _, number in ports} <= {port["containerPort"] for port in container["ports"]}
