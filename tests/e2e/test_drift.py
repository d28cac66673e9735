"""Drift over a real socket: in GetReference, in the shell, over HTTP, and over all fronts."""

from __future__ import annotations

import requests
from e2e.in_process import running_server
from e2e.processes import server_of_processes
from fakes.calibrated_detector import CalibratedDetector
from fakes.gray import gray_png
from fakes.waiting import wait_until
from typer.testing import CliRunner

from patchserve.v1 import inference_pb2, reference_pb2
from patchserve_client import Client, DriftState
from patchserve_client.cli import app

LEVELS = (96, 98, 100, 102, 104)


def test_a_darker_scene_is_told_and_a_new_revision_begins_again() -> None:
    with running_server(detector=CalibratedDetector()) as server, Client(server.address) as client:
        client.load_reference([gray_png(level) for level in LEVELS], "belt")

        def state_after(levels: list[int]) -> DriftState | None:
            for level in levels:
                client.infer(gray_png(level), "belt")
            return drift_state()

        def drift_state() -> DriftState | None:
            drift = client.get_reference("belt").drift
            assert drift is not None
            return drift.state

        assert state_after(list(LEVELS) * 3) is DriftState.TOO_FEW_IMAGES
        state_after(list(LEVELS) * 5)
        wait_until(lambda: drift_state() is DriftState.NONE)
        state_after([40] * 48)
        wait_until(lambda: drift_state() is DriftState.SCENE_CHANGED)
        (listed,) = client.list_references()
        assert listed.drift is not None
        assert listed.drift.state is DriftState.SCENE_CHANGED
        document = requests.get(f"{server.http_url}/v1/references/belt", timeout=30).json()
        assert document["reference"]["drift"]["state"] == "DRIFT_STATE_SCENE_CHANGED"
        shown = CliRunner().invoke(app, ["--server", server.address, "reference", "show", "belt"]).stdout
        (line,) = [line for line in shown.splitlines() if line.startswith("drift ")]
        assert "scene changed: " in line
        assert "in the last " in line
        tuned = client.tune_reference("belt", 1.5)
        assert tuned.drift is None  # in the responses of GetReference and ListReferences only
        assert drift_state() is DriftState.TOO_FEW_IMAGES


def test_the_fronts_of_one_server_know_one_drift() -> None:
    with server_of_processes() as server, server.stub_at(0) as first, server.stub_at(1) as second:
        images = [gray_png(level) for level in LEVELS]
        first.LoadReference(reference_pb2.LoadReferenceRequest(reference_id="belt", images=images))
        for stub in (first, second):
            for _ in range(16):
                stub.Infer(inference_pb2.InferRequest(reference_id="belt", image=gray_png(30)))
        for stub in (first, second):
            wait_until(
                lambda stub=stub: (  # type: ignore[misc]
                    stub.GetReference(reference_pb2.GetReferenceRequest(reference_id="belt")).reference.drift.state
                    == reference_pb2.DRIFT_STATE_SCENE_CHANGED
                )
            )
