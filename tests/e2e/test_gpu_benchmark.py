"""benchmarks/gpu/serving.py: a server with fronts under load, in all its cases."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest
from gpu import serving
from gpu.inputs import write_sent_images
from gpu.options import Options, Scale
from gpu.part import run_cases

PARENT = Path(__file__).parents[1] / "fakes" / "parent_process.py"


def test_every_case_of_a_server_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    root = Path(__file__).parents[2]
    monkeypatch.setenv("PYTHONPATH", ":".join(str(root / each) for each in ("server", "protos/python", "benchmarks")))
    monkeypatch.setattr(serving, "TRIAL", (str(PARENT),))
    monkeypatch.setattr(serving, "OUTPUTS", {"cpu": ("scores", "PNG overlay")})
    scale = Scale(mixed=2, caller_processes=1, callers=2, warm_up_s=0)
    options = Options("served, decode cpu", str(tmp_path), "cpu", "fp32", 0, "2", "efficientnet_lite2", 10, scale)
    write_sent_images(options.images)
    with serving.opened(options) as bench:
        run_cases(serving.cases(options), bench, seconds=0.7, ends_s=time.monotonic() + 600)
    told = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    measured = {each["what"]: each["measured"] for each in told if "measured" in each}
    assert list(measured) == [case.what for case in serving.cases(options)]
    assert (
        measured["server start with decode cpu, reference loaded"]["more"]
        == "fronts: 2; 1 x 2 callers on the same cores"
    )
    scores = measured["served, decode cpu, scores"]
    assert scores["ratio"] == pytest.approx(scores["value"] / 10)
    note = [each["note"] for each in told if each.get("note", "").startswith("Milliseconds of a call")][-1]
    assert "| PNG overlay | " in note
    assert "front " in note
