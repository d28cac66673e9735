"""ScoreHistory: the last scores of the references inspected last, and no more."""

from __future__ import annotations

from fakes.events import CALIBRATION, OTHER, REVISION, inspected
from hypothesis import given
from hypothesis import strategies as st

from patchserve_server.domain.reference_id import DEFAULT_REFERENCE_ID, ReferenceId
from patchserve_server.serving.wall.score_history import Score, ScoreHistory


@given(st.lists(st.integers(0, 9), max_size=60))
def test_it_has_the_last_scores_of_the_references_inspected_last(numbers: list[int]) -> None:
    history, last = ScoreHistory(max_scores=3, max_references=4), list[ReferenceId]()
    times: dict[ReferenceId, list[float]] = {}
    for time_s, number in enumerate(numbers):
        reference_id = ReferenceId(f"r{number}")
        history.add(inspected(reference_id), time_s)
        last = [reference_id, *(each for each in last if each != reference_id)]
        times.setdefault(reference_id, []).append(time_s)
        for lost in last[4:]:
            times.pop(lost, None)
    assert history.references() == last[:4]
    for reference_id in last:
        scores = [score.time_s for score in history.scores(reference_id)]
        assert scores == times.get(reference_id, [])[-3:]


def test_a_score_says_the_revision_and_the_threshold_it_was_compared_with() -> None:
    history = ScoreHistory()
    history.add(inspected(), 5.0)
    assert history.scores(DEFAULT_REFERENCE_ID) == (Score(5.0, REVISION, 7.0, 3.0, 12.5, CALIBRATION),)
    assert history.scores(OTHER) == ()
    history.forget(DEFAULT_REFERENCE_ID)
    assert history.references() == []
