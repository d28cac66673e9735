"""`patchserve evaluate` with a real server, on drawn cards, some of them scratched."""

from __future__ import annotations

import json
import re
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from e2e.harness import ServerProcess
from e2e.in_process import in_process_server
from fakes.images import card
from PIL import Image, ImageChops

from patchserve_client import Client

REPO = Path(__file__).resolve().parents[2]
ACCURACY = (REPO / "docs/accuracy.md").read_text()
PATCHSERVE = str(Path(sys.executable).parent / "patchserve")


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data set: six intact cards to train; four intact and four scratched cards, with masks, to test."""
    root = tmp_path_factory.mktemp("cards")
    for folder in ("train/good", "test/good", "test/scratch", "ground_truth/scratch"):
        (root / folder).mkdir(parents=True)
    for seed in range(6):
        card(seed).save(root / f"train/good/{seed}.png")
    for seed in range(10, 14):
        card(seed).save(root / f"test/good/{seed}.png")
    for seed in range(20, 24):
        scratched = card(seed, scratched=True)
        scratched.save(root / f"test/scratch/{seed}.png")
        changed = np.asarray(ImageChops.difference(card(seed), scratched)).max(axis=2) > 12
        Image.fromarray(changed.astype(np.uint8) * 255).save(root / f"ground_truth/scratch/{seed}_mask.png")
    return root


def evaluate(
    server: ServerProcess, dataset: Path, out: Path, *options: str, notes: bool = False
) -> tuple[dict[str, Any], str]:
    """All numbers, and the standard output. `notes`: something may be said on standard error."""
    command = [PATCHSERVE, "evaluate", str(dataset), "--server", server.address, "--out", str(out), *options]
    done = subprocess.run(command, capture_output=True, text=True, timeout=150, check=False)
    assert done.returncode == 0, done.stderr
    assert notes or done.stderr == ""
    found: dict[str, Any] = json.loads((out / "numbers.json").read_text())
    return found, done.stdout


def test_scratched_cards_are_separated_from_intact_ones(server: ServerProcess, dataset: Path, tmp_path: Path) -> None:
    found, printed = evaluate(server, dataset, tmp_path)
    assert found["image_auroc"] == found["average_precision"] == found["best_balanced_accuracy"] == 1
    assert found["pixel_auroc"] > 0.9
    assert found["aupro"] > 0.5
    assert found["counts"]["damaged_regions"] >= 4
    assert found["server"]["backbone"] == found["reference"]["backbone"] == "efficientnet_lite2"
    assert next(line.split() for line in printed.splitlines() if line.startswith("scratch"))[:2] == ["scratch", "4"]
    assert {path.name for path in tmp_path.iterdir()} == {"numbers.json", "roc.png", "scores.png", "mistakes.png"}
    with Client(server.address) as client:
        assert "evaluation" not in {reference.reference_id for reference in client.list_references()}


def test_a_kept_reference_is_the_evaluated_one(server: ServerProcess, dataset: Path, tmp_path: Path) -> None:
    options = ["--reference", "kept-cards", "--keep", "--references", "3", "--coreset-ratio", "0.5"]
    found, _ = evaluate(server, dataset, tmp_path, *options)
    with Client(server.address) as client:
        kept = client.get_reference("kept-cards")
        client.delete_reference("kept-cards")
    assert kept.revision == found["reference"]["revision"]
    assert (kept.image_count, kept.coreset_ratio) == (3, 0.5)


def test_the_printed_command_gives_the_promised_verdicts(server: ServerProcess, dataset: Path, tmp_path: Path) -> None:
    options = ["--reference", "tuned-cards", "--keep", "--references", "3", "--profile", "paper"]
    found, printed = evaluate(server, dataset, tmp_path, *options)
    best = found["thresholds"]["best"]
    if best["sensitivity"] != 1:
        command = printed.splitlines()[-1].removeprefix("To use it: ").split()
        done = subprocess.run([PATCHSERVE, *command[1:], "--server", server.address], check=False, timeout=60)
        assert done.returncode == 0
    with Client(server.address) as client:
        verdicts = {
            kind: [
                client.infer(path, "tuned-cards").anomaly.is_anomalous for path in (dataset / "test" / kind).iterdir()
            ]
            for kind in ("good", "scratch")
        }
        client.delete_reference("tuned-cards")
    assert np.mean(verdicts["good"]) == best["false_alarm_rate"]
    assert np.mean(verdicts["scratch"]) == best["found_rate"]


def test_the_choice_of_a_sweep_is_the_reference_that_its_command_loads(
    server: ServerProcess, dataset: Path, tmp_path: Path
) -> None:
    report = tmp_path / "report.html"
    axes = ["--sweep-profile", "notebook,verdict", "--sweep-input", "224,320", "--sweep-coreset", "0.5"]
    found, printed = evaluate(server, dataset, tmp_path, *axes, "--report", str(report), notes=True)
    assert [one["standing"] for one in found["settings"]].count("chosen") == 1
    chosen = found["settings"][found["chosen"] - 1]
    assert chosen["image_auroc"] == max(one["image_auroc"] for one in found["settings"]) == 1
    assert all(one["image_ms"] > 0 for one in found["settings"])
    sizes = {one["input_px"]: one["bank_bytes"] for one in found["settings"] if one["profile"] == "notebook"}
    assert sizes[320] > 1.8 * sizes[224]
    assert report.read_text().count("<tr class=") == 4
    command = shlex.split(printed.splitlines()[-1].removeprefix("To load it: "))
    words = [PATCHSERVE, *command[1:], "--id", "chosen", "--server", server.address]
    assert subprocess.run(words, check=False, timeout=60, capture_output=True).returncode == 0
    with Client(server.address) as client:
        known = {reference.reference_id: reference for reference in client.list_references()}
        client.delete_reference("chosen")
    assert "evaluation" not in known
    loaded = known["chosen"]
    assert (loaded.profile, loaded.input_px, loaded.coreset_ratio) == (chosen["profile"], chosen["input_px"], 0.5)
    assert (loaded.bank_bytes, loaded.image_count) == (chosen["bank_bytes"], 6)


@pytest.mark.parametrize("line", re.findall(r"^patchserve (evaluate samples/.+)$", ACCURACY, re.MULTILINE))
def test_the_commands_of_the_page_run(line: str, tmp_path: Path) -> None:
    (tmp_path / "samples").symlink_to(REPO / "samples")
    with in_process_server() as address:
        command = [PATCHSERVE, *shlex.split(line), "--server", address]
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=150, check=False)
    assert done.returncode in (0, 1), done.stderr  # 1: the fake detector may refuse a setting
    assert "To load it: patchserve reference load samples/parcels/train/good" in done.stdout
    assert (tmp_path / "sweep.html").exists() == ("--report" in line)
