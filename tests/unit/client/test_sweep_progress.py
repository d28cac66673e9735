"""The progress of a sweep: images, settings, time left."""

from __future__ import annotations

import pytest

from patchserve_client import ScoringProfile
from patchserve_client.cli import _sweep_progress
from patchserve_client.cli._sweep_progress import SweepProgress, Work
from patchserve_client.evaluation import Failure, Setting


class Clock:
    now_s = 0.0

    def monotonic(self) -> float:
        return self.now_s


def test_the_time_left_follows_the_work_that_is_left(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    clock = Clock()
    monkeypatch.setattr(_sweep_progress, "time", clock)
    shown: list[tuple[str, float]] = []
    progress = SweepProgress([Work(10, 1), Work(10, 4)], lambda label, done: shown.append((label, done)))
    clock.now_s = 60
    for _ in range(5):
        progress.step()
    assert shown[-1] == ("Setting 1 of 2, image 5 of 10", 5)
    clock.now_s = 100
    progress.ended(Failure(Setting(ScoringProfile.NOTEBOOK), "too much"))
    assert capsys.readouterr().err == "1 of 2: notebook, all references: failed: too much, about 7 min left\n"
    clock.now_s = 120
    for _ in range(10):
        progress.step()
    assert shown[-1] == ("Setting 2 of 2, image 10 of 10, about 6 min left", 50)
    progress.ended(Failure(Setting(ScoringProfile.NOTEBOOK), "too much"))
    assert capsys.readouterr().err == "2 of 2: notebook, all references: failed: too much\n"
    assert shown == sorted(shown, key=lambda one: one[1])
