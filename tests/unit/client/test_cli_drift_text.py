"""The words for the drift of a reference."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from patchserve_client import Drift, DriftState
from patchserve_client.cli._drift_text import drift_text

SINCE = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)


@pytest.mark.parametrize(
    ("drift", "words"),
    [
        (None, "not known"),
        (Drift(DriftState.TOO_FEW_IMAGES, 16, None, None, None), "not known: too few images (16 recent ones)"),
        (
            Drift(DriftState.NONE, 256, 0.52, 0.01, SINCE),
            "none; in the last 256 images (shift 0.52, outliers 1 %), since 2026-01-02 03:04:05Z",
        ),
        (Drift(None, 32, 0.5, 0.0, None), "unknown; in the last 32 images (shift 0.50, outliers 0 %)"),
    ],
)
def test_the_words(drift: Drift | None, words: str) -> None:
    assert drift_text(drift) == words


def test_every_state_has_words() -> None:
    for state in DriftState:
        assert "unknown" not in drift_text(Drift(state, 32, 0.5, 0.0, SINCE))
