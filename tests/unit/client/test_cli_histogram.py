"""The histogram of normal scores: every score is in one bin, and the threshold is where it belongs."""

from __future__ import annotations

import re
from itertools import pairwise

import pytest
from fakes.fake_server import FakeServer
from fakes.responses import AUGMENTED_VIEWS, reference
from fakes.terminal import Run
from hypothesis import given
from hypothesis import strategies as st

from patchserve_client.cli._histogram import bins

raw_scores = st.floats(0, 1e6, width=32)


@given(st.lists(raw_scores, min_size=1, max_size=300).map(sorted), raw_scores)
def test_every_score_is_in_one_bin(scores: list[float], threshold: float) -> None:
    found = bins(tuple(scores), threshold)
    assert sum(one.count for one in found) == len(scores)
    assert all(one.high == after.low for one, after in pairwise(found))
    for one in found:
        assert one.count == sum(one.has(score) for score in scores)
    assert sum(one.has(threshold) for one in found) <= 1


@given(st.lists(raw_scores, min_size=1, max_size=20).map(sorted), st.floats(0, 1))
def test_a_threshold_among_the_scores_is_in_a_bin(scores: list[float], share: float) -> None:
    threshold = min(scores[0] + share * (scores[-1] - scores[0]), scores[-1])
    assert any(one.has(threshold) for one in bins(tuple(scores), threshold))


def shown(run: Run, fake: FakeServer, scores: list[float], threshold: float) -> list[str]:
    fake.references["belt"] = reference("belt", 3)
    spread = fake.references["belt"].calibration.normal_scores
    spread.scores.extend(scores)
    spread.count, spread.min, spread.max = len(scores), scores[0], scores[-1]
    fake.references["belt"].threshold = threshold
    code, stdout, _ = run("reference", "show", "belt")
    assert code == 0
    return [line for line in stdout.partition("\n\n")[2].splitlines() if line]


def test_the_threshold_is_marked_among_the_scores(run: Run, fake: FakeServer) -> None:
    lines = shown(run, fake, [1.0, 1.0, 1.1, 2.1, 3.2], 3.1)
    assert lines[0].split() == ["normal", "scores", "images"]
    assert lines[1] == "1.00 to 1.20        3  ###"
    assert lines[-3:] == [
        "2.80 to 3.00        0",
        "3.00 to 3.20        0  < threshold 3.1",
        "3.20 to 3.40        1  #",
    ]


@pytest.mark.parametrize(
    ("threshold", "line"),
    [
        (100.0, "The threshold, 100, is far above them."),
        (0.1, "The threshold, 0.1, is far below them."),
    ],
)
def test_a_threshold_far_away_is_named(run: Run, fake: FakeServer, threshold: float, line: str) -> None:
    assert shown(run, fake, [1.0, 1.1, 1.2], threshold)[-1] == line


def test_bars_fit_a_line_and_no_score_is_invisible(run: Run, fake: FakeServer) -> None:
    lines = shown(run, fake, [1.0] + [2.0] * 200, 2.0)
    assert re.search(r" 1  #$", lines[1])
    assert lines[-1].endswith("  200  " + "#" * 40 + " < threshold 2")
    assert max(map(len, lines)) <= 80


def test_equal_scores_are_one_bin(run: Run, fake: FakeServer) -> None:
    assert [line.split()[3:] for line in shown(run, fake, [0.0, 0.0, 0.0], 0.0)[1:]] == [
        ["3", "###", "<", "threshold", "0"]
    ]


def test_views_and_parts_are_named_so(run: Run, fake: FakeServer) -> None:
    fake.references["belt"] = reference("belt", 1)
    fake.references["belt"].calibration.method = AUGMENTED_VIEWS
    fake.references["belt"].calibration.normal_scores.scores.append(4.0)
    assert re.search("normal scores +views", run("reference", "show", "belt")[1])
    fake.references["belt"].calibration.normal_scores.count = 5000
    assert re.search("normal scores +of 1", run("reference", "show", "belt")[1])


def test_scores_that_are_not_known_are_not_drawn(run: Run, fake: FakeServer) -> None:
    fake.references["belt"] = reference("belt", 3)
    assert "normal scores" not in run("reference", "show", "belt")[1]
