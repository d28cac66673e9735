"""The wall over HTTP: what watchers see, and what they may ask for."""

from __future__ import annotations

import io
import threading
from collections.abc import Iterator
from contextlib import AbstractContextManager, ExitStack
from pathlib import Path

import grpc
import numpy as np
import pytest
import requests
from e2e.harness import connect
from e2e.in_process import RunningServer, running_server
from e2e.streaming import Feed, config, frame
from fakes.deep_images import png16
from fakes.detector import FakeDetector
from fakes.event_stream import TIMEOUT_S, EventStream, events
from fakes.gray import gray_png
from fakes.waiting import wait_until
from PIL import Image

from patchserve.kserve import open_inference_pb2, open_inference_pb2_grpc
from patchserve.v1 import inference_pb2, reference_pb2
from patchserve_server.access.tokens import new_token
from patchserve_server.domain.callers import Scope

ANOMALOUS, INTACT = 130, 105  # 1.5 x and 0.25 x the threshold of the reference


def infer_pixels(server: RunningServer) -> None:
    pixels = np.full((1, 20, 24, 3), ANOMALOUS, np.uint8)
    tensor = open_inference_pb2.ModelInferRequest.InferInputTensor(name="pixels", datatype="UINT8", shape=pixels.shape)
    request = open_inference_pb2.ModelInferRequest(
        model_name="gray", inputs=[tensor], raw_input_contents=[pixels.tobytes()]
    )
    with grpc.insecure_channel(server.address) as channel:
        open_inference_pb2_grpc.GRPCInferenceServiceStub(channel).ModelInfer(request)


@pytest.fixture
def server() -> Iterator[RunningServer]:
    """A server with the reference `gray`."""
    with running_server() as running:
        load(running, 100)
        yield running


def load(server: RunningServer, level: int, *, append: bool = False, reference_id: str = "gray") -> None:
    mode = reference_pb2.LOAD_MODE_APPEND if append else reference_pb2.LOAD_MODE_REPLACE
    with connect(server.address) as stub:
        stub.LoadReference(
            reference_pb2.LoadReferenceRequest(reference_id=reference_id, images=[gray_png(level)], mode=mode)
        )


def infer(server: RunningServer, level: int, name: str = "", reference_id: str = "gray") -> None:
    with connect(server.address) as stub:
        stub.Infer(inference_pb2.InferRequest(reference_id=reference_id, image=gray_png(level), image_name=name))


def watching(server: RunningServer, query: str = "", **headers: str) -> AbstractContextManager[EventStream]:
    return events(f"{server.http_url}/watch/events{query}", **headers)


def get(server: RunningServer, path: str) -> requests.Response:
    return requests.get(f"{server.http_url}{path}", timeout=TIMEOUT_S)


def reason(response: requests.Response) -> str:
    return str(response.json()["details"][0]["reason"])


def test_a_watcher_sees_single_images_and_frames_of_all_callers(server: RunningServer) -> None:
    with watching(server) as wall, connect(server.address) as stub:
        assert wall.response.headers["content-type"].startswith("text/event-stream")
        assert wall.response.headers["cache-control"] == "no-store"
        assert wall.response.headers["x-accel-buffering"] == "no"
        snapshot = wall.next("snapshot")
        assert (snapshot.data["tiles"], snapshot.data["watchers"]) == ([], 1)
        infer(server, INTACT, "a.png")
        feed = Feed(config("gray"), frame(1, gray_png(ANOMALOUS)))
        feed.close()
        list(stub.InferStream(iter(feed)))
        single, streamed = wall.tiles(2)
        assert (single["name"], single["is_frame"], single["is_anomalous"]) == ("a.png", False, False)
        assert (streamed["name"], streamed["is_frame"], streamed["is_anomalous"]) == ("f1", True, True)
        assert streamed["raw_score"] == 30
        assert streamed["raw_threshold"] == 20
        assert (streamed["reference_id"], streamed["client"]) == ("gray", "peer ipv4:127.0.0.1")
        assert (streamed["width_px"], streamed["height_px"], streamed["region_count"]) == (24, 20, 1)
        assert single["number"] < streamed["number"]
        assert single["thumbnail"].startswith("/9j/"), "a JPEG"


def test_who_comes_later_finds_the_anomalies_and_the_scores(server: RunningServer) -> None:
    with watching(server) as wall:
        wall.next("snapshot")
        infer(server, ANOMALOUS, "a.png")
        wall.tiles(1)
        with watching(server) as other:
            snapshot = other.next("snapshot").data
    assert [tile["name"] for tile in snapshot["tiles"]] == ["a.png"]
    assert snapshot["watchers"] == 2
    (reference,) = snapshot["references"]
    assert (reference["reference_id"], reference["threshold"], reference["image_count"]) == ("gray", 20, 1)
    assert reference["scores"]["raw_score"] == [30]
    assert reference["scores"]["revisions"] == [reference["revision"]]


def test_the_image_of_a_tile_and_what_its_caller_was_answered(server: RunningServer) -> None:
    with watching(server) as wall:
        wall.next("snapshot")
        infer(server, ANOMALOUS)
        (tile,) = wall.tiles(1)
        image = get(server, f"/watch/images/{tile['id']}")
        assert (image.content, image.headers["content-type"]) == (gray_png(ANOMALOUS), "image/png")
        assert image.headers["x-content-type-options"] == "nosniff"
        answer = get(server, f"/watch/inspections/{tile['id']}").json()
        assert (answer["anomaly"]["raw_score"], answer["reference_id"]) == (30, "gray")
        assert answer["overlay"]["media_type"] == "image/jpeg"
        assert answer["overlay"]["image"].startswith("/9j/")


def test_an_image_with_a_white_level_is_shown_as_it_was_inspected(server: RunningServer) -> None:
    twelve_bits = np.full((20, 24), round(ANOMALOUS * 4095 / 255), np.uint16)
    for image in (png16(twelve_bits), gray_png(ANOMALOUS)):
        with watching(server) as wall, connect(server.address) as stub:
            wall.next("snapshot")
            stub.Infer(inference_pb2.InferRequest(reference_id="gray", image=image, white_level=4095))
            (tile,) = wall.tiles(1)
            shown = Image.open(io.BytesIO(get(server, f"/watch/images/{tile['id']}").content))
            assert (np.asarray(shown) == ANOMALOUS).all()
            again = get(server, f"/watch/inspections/{tile['id']}:again").json()
            assert again["anomaly"]["raw_score"] == ANOMALOUS - 100


def test_the_verdict_as_it_would_be_now_is_neither_shown_nor_counted(server: RunningServer) -> None:
    with watching(server) as wall:
        wall.next("snapshot")
        infer(server, ANOMALOUS)
        (tile,) = wall.tiles(1)
        load(server, ANOMALOUS, append=True)
        (change,) = wall.next("update").data["changes"]
        assert (change["reference_id"], change["image_count"]) == ("gray", 2)
        now = get(server, f"/watch/inspections/{tile['id']}:again").json()
        assert now["anomaly"]["raw_score"] == 15
        assert now["reference_revision"] == change["revision"] != tile["reference_revision"]
        infer(server, INTACT, "next")
        assert [tile["name"] for tile in wall.tiles(1)] == ["next"]
        assert get(server, "/watch/scores?reference_id=gray").json()["scores"][-1]["raw_score"] == 10


def test_scores_are_those_with_the_current_bank(server: RunningServer) -> None:
    def scores() -> list[float]:
        answer = get(server, "/watch/scores?reference_id=gray").json()
        return [score["raw_score"] for score in answer["scores"]]

    infer(server, ANOMALOUS)
    infer(server, INTACT)
    assert scores() == [30, 5]
    with connect(server.address) as stub:
        stub.TuneReference(reference_pb2.TuneReferenceRequest(reference_id="gray", sensitivity=2))
    infer(server, 112)
    assert scores() == [30, 5, 12]
    last = get(server, "/watch/scores?reference_id=gray").json()["scores"][-1]
    assert (last["raw_threshold"], last["is_anomalous"]) == (10, True)
    missing = get(server, "/watch/scores?reference_id=other")
    assert (missing.status_code, reason(missing)) == (404, "REFERENCE_NOT_FOUND")


def test_pixels_of_a_batch_are_kept_as_png(server: RunningServer) -> None:
    pixels = np.stack([np.full((20, 24, 3), level, np.uint8) for level in (ANOMALOUS, INTACT, ANOMALOUS + 10)])
    tensor = open_inference_pb2.ModelInferRequest.InferInputTensor(name="pixels", datatype="UINT8", shape=pixels.shape)
    request = open_inference_pb2.ModelInferRequest(
        model_name="gray", id="batch", inputs=[tensor], raw_input_contents=[pixels.tobytes()]
    )
    with watching(server) as wall, grpc.insecure_channel(server.address) as channel:
        wall.next("snapshot")
        open_inference_pb2_grpc.GRPCInferenceServiceStub(channel).ModelInfer(request)
        tiles = {tile["name"]: tile for tile in wall.tiles(3)}
        assert sorted(tiles) == ["batch-0", "batch-1", "batch-2"]
        image = get(server, f"/watch/images/{tiles['batch-2']['id']}").content
    assert np.array_equal(np.asarray(Image.open(io.BytesIO(image))), pixels[2])


def test_what_is_drawn_for_a_watcher_counts_as_an_image_in_progress() -> None:
    detector = FakeDetector()
    with ExitStack() as stack:
        server = stack.enter_context(running_server(detector=detector, max_pending_images=2))  # one for each client
        stack.callback(detector.gate.set)
        load(server, 100)
        wall = stack.enter_context(watching(server))
        wall.next("snapshot")
        infer_pixels(server)
        (tile,) = wall.tiles(1)
        paths = [f"/watch/images/{tile['id']}", f"/watch/inspections/{tile['id']}"]
        assert [get(server, path).status_code for path in paths] == [200, 200]
        detector.gate.clear()
        seen = len(detector.batches)
        caller = threading.Thread(target=infer, args=(server, INTACT))
        caller.start()
        wait_until(lambda: len(detector.batches) > seen)
        assert [reason(get(server, path)) for path in paths] == ["QUEUE_FULL", "QUEUE_FULL"]
        detector.gate.set()
        caller.join(TIMEOUT_S)
        wait_until(lambda: [get(server, path).status_code for path in paths] == [200, 200])


def test_an_image_that_cannot_be_inspected_is_told_with_its_reason(server: RunningServer) -> None:
    with watching(server) as wall, connect(server.address) as stub:
        wall.next("snapshot")
        request = inference_pb2.InferRequest(reference_id="gray", image=b"no image", image_name="notes.txt")
        with pytest.raises(grpc.RpcError):
            stub.Infer(request)
        update = wall.next("update").data
    (failure,) = update["failures"]
    assert (failure["name"], failure["reason"], update["failed"]) == ("notes.txt", "UNDECODABLE_IMAGE", 1)
    assert update["tiles"] == []


def test_a_watcher_of_one_reference_sees_no_other(server: RunningServer) -> None:
    load(server, 100, reference_id="other")
    with watching(server, "?reference_id=other") as wall:
        snapshot = wall.next("snapshot").data
        assert [each["reference_id"] for each in snapshot["references"]] == ["other"]
        infer(server, ANOMALOUS, "of gray")
        infer(server, ANOMALOUS, "of other", "other")
        assert [tile["name"] for tile in wall.tiles(1)] == ["of other"]
    bad = get(server, "/watch/events?reference_id=%3Cb%3E")
    assert (bad.status_code, reason(bad)) == (400, "INVALID_FIELD")


def test_who_connects_again_learns_how_many_images_came_meanwhile(server: RunningServer) -> None:
    with watching(server) as wall:
        last = wall.next("snapshot").id
    infer(server, INTACT)
    infer(server, INTACT)
    with watching(server, last_event_id=last) as wall:
        assert wall.next("snapshot").data["missed"] == 2


def test_one_watcher_too_many_is_refused_until_another_one_leaves(server: RunningServer) -> None:
    with ExitStack() as others:
        walls = [others.enter_context(watching(server)) for _ in range(7)]
        for wall in walls:
            wall.next("snapshot")
        with watching(server) as eighth:
            assert eighth.next("snapshot").data["watchers"] == 8
            refused = get(server, "/watch/events")
            assert (refused.status_code, reason(refused)) == (429, "QUEUE_FULL")
            assert refused.json()["message"].startswith("8 watchers are watching")
            assert refused.headers["retry-after"] == "10"

        def is_free() -> bool:
            with requests.get(f"{server.http_url}/watch/events", stream=True, timeout=TIMEOUT_S) as again:
                return again.status_code == 200

        wait_until(is_free)


def test_who_asks_for_the_headers_alone_does_not_watch(server: RunningServer) -> None:
    with requests.head(f"{server.http_url}/watch/events", stream=True, timeout=TIMEOUT_S) as head:
        assert (head.status_code, head.headers["content-type"]) == (200, "text/event-stream")
        with watching(server) as wall:
            assert wall.next("snapshot").data["watchers"] == 1


@pytest.mark.parametrize("path", ["images/x", "inspections/x", "inspections/x:again", "images/%2e%2e%2fx"])
def test_an_image_that_is_not_kept_is_not_found(server: RunningServer, path: str) -> None:
    missing = get(server, f"/watch/{path}")
    assert missing.status_code == 404
    if "%" not in path:
        assert reason(missing) == "IMAGE_NOT_KEPT"


def test_images_of_a_deleted_reference_are_gone(server: RunningServer) -> None:
    with watching(server) as wall, connect(server.address) as stub:
        wall.next("snapshot")
        infer(server, ANOMALOUS)
        (tile,) = wall.tiles(1)
        stub.DeleteReference(reference_pb2.DeleteReferenceRequest(reference_id="gray"))
        (change,) = wall.next("update").data["changes"]
        assert change == {"reference_id": "gray", "revision": ""}
        assert get(server, f"/watch/images/{tile['id']}").status_code == 404


def test_a_drain_ends_the_stream_with_its_reason() -> None:
    stop = threading.Event()
    with running_server(stop=stop) as server, watching(server) as wall:
        wall.next("snapshot")
        stop.set()
        error = wall.next("error").data
        assert error["details"][0]["reason"] == "DRAINING"
        assert error["details"][1]["retry_delay"] == "1s", "in the names of the contract, as in every other answer"
        assert list(wall) == []


def test_watching_needs_the_scope_manage(tmp_path: Path) -> None:
    tokens, lines = {}, []
    for scope in Scope:
        tokens[scope], line = new_token(scope.value, [scope])
        lines.append(line)
    (tmp_path / "tokens").write_text("\n".join(lines))
    paths = ["events", "scores?reference_id=a", "images/x", "inspections/x", "inspections/x:again"]
    with running_server(auth_tokens=tmp_path / "tokens") as server:
        for path in paths:
            headers = {"authorization": f"Bearer {tokens[Scope.INFER]}"}
            refused = requests.get(f"{server.http_url}/watch/{path}", headers=headers, timeout=TIMEOUT_S)
            assert (refused.status_code, reason(refused)) == (403, "SCOPE_MISSING")
            assert get(server, f"/watch/{path}").status_code == 401
        with watching(server, authorization=f"Bearer {tokens[Scope.MANAGE]}") as wall:
            wall.next("snapshot")
