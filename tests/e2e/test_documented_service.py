"""The documented HTTP service over a real socket: its clients run unchanged."""

from __future__ import annotations

import concurrent.futures
import io
import json
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import requests
from e2e.documented import GOOD, SCRATCHED, TIMEOUT_S, get, post
from e2e.harness import Stub, connect
from e2e.in_process import RunningServer, running_server
from fakes import documented_client
from fakes.images import card, encoded
from PIL import Image

from patchserve.v1 import inference_pb2, reference_pb2


@pytest.fixture(scope="module")
def server() -> Iterator[RunningServer]:
    """A server with the reference `default`."""
    with running_server() as server:
        assert post(server, "load_reference", GOOD).status_code == 200
        yield server


@pytest.fixture(scope="module")
def stub(server: RunningServer) -> Iterator[Stub]:
    with connect(server.address) as stub:
        yield stub


def overlay_of_grpc(stub: Stub, image: bytes, reference_id: str = "") -> bytes:
    output = inference_pb2.OutputOptions(overlay=True)
    return stub.Infer(inference_pb2.InferRequest(reference_id=reference_id, image=image, output=output)).overlay_png


def test_a_client_with_files_on_disk_runs_unchanged(tmp_path: Path) -> None:
    reference, image, result = (tmp_path / name for name in ("good.jpg", "test.jpg", "result.png"))
    reference.write_bytes(GOOD)
    image.write_bytes(SCRATCHED)
    with running_server() as server, connect(server.address) as stub:
        command = [sys.executable, documented_client.__file__, server.http_url, *map(str, (reference, image, result))]
        said = json.loads(subprocess.run(command, check=True, capture_output=True, timeout=TIMEOUT_S).stdout)
        expected = stub.Infer(inference_pb2.InferRequest(image=SCRATCHED, output={"overlay": True}))  # type: ignore[arg-type]
        kept = get(server, f"outputs/{said['judged']['output_image']}")
    loaded, judged = said["loaded"], said["judged"]
    assert said["health"] == {
        "status": "healthy",
        "model": "PatchCore with fake",
        "memory_bank_loaded": False,
        "device": "cpu",
    }
    assert loaded["status"] == "success"
    assert loaded["message"] == "Memory bank built successfully"
    assert (loaded["patches"], loaded["feature_dim"]) == (1, 3)
    assert result.read_bytes() == expected.overlay_png == kept.content
    assert judged["status"] == "success"
    assert judged["damage_percentage"] == expected.damage.damage_percentage
    assert judged["anomaly_detected"] is expected.damage.anomaly_detected
    assert judged["threshold"] == 0.5
    assert Image.open(io.BytesIO(kept.content)).size == card().size


@pytest.mark.skipif(shutil.which("curl") is None, reason="no curl")
def test_curl_sends_files_as_the_documentation_shows(server: RunningServer, stub: Stub, tmp_path: Path) -> None:
    (tmp_path / "reference.jpg").write_bytes(GOOD)
    (tmp_path / "te st;1.jpg").write_bytes(SCRATCHED)  # curl writes such names in quotes

    def curl(path: str, *flags: str) -> bytes:
        command = ["curl", "--silent", "--show-error", "--fail", *flags, f"{server.http_url}/{path}"]
        return subprocess.run(command, check=True, capture_output=True, cwd=tmp_path, timeout=TIMEOUT_S).stdout

    loaded = json.loads(curl("load_reference", "-F", "image=@reference.jpg", "-F", "reference_id=curl"))
    assert (loaded["reference_id"], loaded["images"]) == ("curl", 1)
    flags = ("-F", 'image=@"te st;1.jpg"', "-F", "reference_id=curl")
    curl("infer", *flags, "-o", "result.png")
    assert (tmp_path / "result.png").read_bytes() == overlay_of_grpc(stub, SCRATCHED, "curl")
    judged = json.loads(curl("infer_json", *flags))
    assert judged["reference_id"] == "curl"
    assert curl(f"outputs/{judged['output_image']}") == (tmp_path / "result.png").read_bytes()


def test_health_says_when_the_bank_is_loaded() -> None:
    with running_server() as server:
        assert get(server, "health").json()["memory_bank_loaded"] is False
        post(server, "load_reference", GOOD, reference_id="another")
        assert get(server, "health").json()["memory_bank_loaded"] is False
        post(server, "load_reference", GOOD)
        assert get(server, "health").json()["memory_bank_loaded"] is True


def test_several_images_make_one_reference_with_their_names(server: RunningServer, stub: Stub) -> None:
    files = [("image", (name, encoded(card(seed)))) for seed, name in enumerate(("a.jpg", "b\u202e.jpg", "ü" * 100))]
    answer = requests.post(
        f"{server.http_url}/load_reference", files=files, data={"reference_id": "several"}, timeout=TIMEOUT_S
    )
    reference = stub.GetReference(reference_pb2.GetReferenceRequest(reference_id="several"))
    assert answer.json() == {
        "status": "success",
        "message": "Memory bank built successfully",
        "patches": 3,
        "feature_dim": 3,
        "reference_id": "several",
        "revision": reference.reference.revision,
        "images": 3,
    }
    assert [image.name for image in reference.images] == ["a.jpg", "b?.jpg", "ü" * 64]


def test_loading_replaces_what_was_loaded(server: RunningServer) -> None:
    for count in (3, 1):
        answer = post(server, "load_reference", *[GOOD] * count, reference_id="replaced")
        assert answer.json()["images"] == count


def test_infer_json_has_the_documented_fields_first_and_then_ours(server: RunningServer, stub: Stub) -> None:
    answer = post(server, "infer_json", SCRATCHED).json()
    expected = stub.Infer(inference_pb2.InferRequest(image=SCRATCHED))
    documented_fields = ["status", "damage_percentage", "anomaly_detected", "output_image", "threshold"]
    ours = ["anomaly", "regions", "reference_id", "reference_revision", "timing"]
    assert list(answer) == [*documented_fields, *ours]
    assert answer["anomaly"]["is_anomalous"] is expected.anomaly.is_anomalous
    assert answer["anomaly"]["score"] == pytest.approx(expected.anomaly.score, abs=1e-6)
    assert len(answer["regions"]) == len(expected.regions) > 0
    assert answer["regions"][0]["bounding_box"]["width_px"] == expected.regions[0].bounding_box.width_px
    assert (answer["reference_id"], answer["reference_revision"]) == ("default", expected.reference_revision)
    assert answer["timing"]["total_ms"] > 0


def test_an_intact_image_has_all_fields_too(server: RunningServer) -> None:
    flat = encoded(Image.new("RGB", (64, 48), "gray"), "PNG")
    post(server, "load_reference", flat, reference_id="flat")
    answer = post(server, "infer_json", flat, reference_id="flat").json()
    assert answer["anomaly"]["is_anomalous"] is False
    assert answer["regions"] == []


def test_the_overlay_is_that_of_grpc(server: RunningServer, stub: Stub) -> None:
    answer = post(server, "infer", SCRATCHED)
    assert answer.headers["content-type"] == "image/png"
    assert answer.content == overlay_of_grpc(stub, SCRATCHED)


def test_an_output_is_what_its_call_made(server: RunningServer, stub: Stub) -> None:
    names = [post(server, "infer_json", image).json()["output_image"] for image in (GOOD, SCRATCHED)]
    for name, image in zip(names, (GOOD, SCRATCHED), strict=True):
        answer = get(server, f"outputs/{name}")
        assert (answer.status_code, answer.headers["content-type"]) == (200, "image/png")
        assert answer.headers["cache-control"] == "no-store"
        assert answer.content == overlay_of_grpc(stub, image)


def test_callers_at_once_get_each_their_own(server: RunningServer, stub: Stub) -> None:
    images = [encoded(card(seed, scratched=seed % 2 == 1)) for seed in range(12)]

    def inspect(image: bytes) -> bytes:
        return get(server, f"outputs/{post(server, 'infer_json', image).json()['output_image']}").content

    with concurrent.futures.ThreadPoolExecutor(12) as pool:
        results = list(pool.map(inspect, images))
    assert results == [overlay_of_grpc(stub, image) for image in images]


def test_a_browser_gets_the_page_and_other_callers_a_description(server: RunningServer) -> None:
    page = get(server, "", accept="text/html,application/xhtml+xml,*/*;q=0.8")
    assert (page.status_code, page.headers["content-type"]) == (200, "text/html; charset=utf-8")
    described = get(server, "")
    assert {"service": "patchserve", "status": "running", "backbone": "fake"}.items() <= described.json().items()
    assert described.json()["version"]
    assert page.headers["vary"] == described.headers["vary"] == "Accept"


def test_every_described_endpoint_exists(server: RunningServer) -> None:
    for name in get(server, "").json()["endpoints"]:
        method, path = name.split()
        answer = requests.request(method, server.http_url + path, timeout=TIMEOUT_S)
        assert answer.json().get("reason") not in ("UNKNOWN_PATH", "HTTP_METHOD"), name
