"""The client library and its command with a real server."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from e2e.harness import ServerProcess
from fakes.images import card, encoded
from typer.testing import CliRunner, Result

from patchserve_client import AsyncClient, Client, FailedPrecondition, InvalidArgument, NotFound
from patchserve_client.cli import app


def test_a_reference_is_loaded_used_extended_and_deleted(server: ServerProcess) -> None:
    images = [card(seed) for seed in range(4)]
    with Client(server.address) as client:
        assert client.health().ready
        loaded = client.load_reference(images, "client-sync")
        assert loaded.image_count == 4
        assert client.get_reference("client-sync") == loaded
        assert loaded in list(client.list_references())
        result = client.infer(images[0], "client-sync", overlay=True, score_map=True)
        assert not result.anomaly.is_anomalous
        assert result.anomaly.raw_threshold == loaded.threshold
        assert result.overlay is not None
        assert result.overlay.size == images[0].size
        assert result.score_map is not None
        assert result.score_map.min() >= 0
        grown = client.load_reference([card(9)], "client-sync", mode="append")
        assert grown.image_count == 5
        with pytest.raises(FailedPrecondition) as mismatch:
            client.infer(images[0], "client-sync", expected_revision=loaded.revision)
        assert mismatch.value.reason == "REVISION_MISMATCH"
        assert client.delete_reference("client-sync", expected_revision=grown.revision) == grown.revision
        with pytest.raises(NotFound):
            client.infer(images[0], "client-sync")


async def test_a_stream_reports_bad_frames_and_continues(server: ServerProcess) -> None:
    async def frames() -> AsyncIterator[bytes]:
        for number in range(12):
            yield b"no image" if number % 5 == 4 else encoded(card(number))

    async with AsyncClient(server.address) as client:
        await client.load_reference([card(seed) for seed in range(3)], "client-asyncio")
        stream = client.infer_stream(
            frames(), "client-asyncio", overlay=True, overlay_format="jpeg", overlay_max_side_px=100, max_in_flight=4
        )
        results = [result async for result in stream]
        assert [result.sequence for result in results] == list(range(12))
        assert [result.sequence for result in results if isinstance(result.error, InvalidArgument)] == [4, 9]
        overlays = [result.result.overlay for result in results if result.result]
        assert len(overlays) == 10
        assert all(overlay and (overlay.format, overlay.size) == ("JPEG", (100, 75)) for overlay in overlays)
        await client.delete_reference("client-asyncio")


def test_the_command_loads_and_inspects_a_folder(server: ServerProcess, tmp_path: Path) -> None:
    folder = tmp_path / "cards"
    folder.mkdir()
    for seed in range(3):
        (folder / f"{seed}.png").write_bytes(encoded(card(seed)))

    def run(*arguments: str) -> tuple[int, str]:
        result = CliRunner().invoke(app, ["--server", server.address, *arguments])
        return result.exit_code, result.stdout

    assert run("reference", "load", str(folder), "--id", "client-command")[0] == 0
    code, stdout = run(
        "infer", str(folder), "--reference", "client-command", "--output=json", "--out", str(tmp_path / "out")
    )
    assert code == 0
    summary = json.loads(stdout)["summary"]
    assert summary.pop("elapsed_s") > 0
    assert summary == {"images": 3, "intact": 3, "anomalous": 0, "error": 0}
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [f"{seed}_overlay.png" for seed in range(3)]
    code, stdout = run("stream", str(folder), "--reference", "client-command")
    assert code == 0
    assert "3 intact, 0 anomalous, 0 failed, 0 dropped" in stdout
    assert run("reference", "delete", "client-command")[0] == 0


def test_the_command_tells_how_sure_a_false_alarm_rate_is(server: ServerProcess, tmp_path: Path) -> None:
    for seed in range(4):
        (tmp_path / f"{seed}.png").write_bytes(encoded(card(seed)))

    def run(*arguments: str) -> Result:
        return CliRunner().invoke(app, ["--server", server.address, "reference", *arguments])

    options = ["--id", "rare", "--profile", "verdict", "--false-alarms", "2%"]
    loaded = run("load", str(tmp_path), *options)
    assert loaded.exit_code == 0
    assert "4 images (8 views of each), 12800 patches, " in loaded.stdout
    assert "false alarms 2 %, with 95 % confidence at most " in loaded.stdout
    assert "4 images alone show no rate below 20 %. 2 % is extrapolated" in loaded.stderr
    shown = run("show", "rare").stdout
    assert "calibration.false_alarms" in shown
    assert "2 %, with 95 % confidence at most " in shown
    refused = run("load", str(tmp_path), *options[:-1], "60%")
    assert refused.exit_code == 1
    assert "--false-alarms is a share of the undamaged items, 0.001 to 0.5, not 0.6." in refused.stderr
    assert run("delete", "rare").exit_code == 0
