"""Which setting is chosen: never noise, never a dearer one that is not better."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image

from patchserve_client import AnomalyScore, Calibration, ReferenceInfo, ScoreSpread, ScoringProfile, ServerInfo, Timing
from patchserve_client.evaluation import Dataset, Failure, Findings, LabeledImage, Outcome, Setting, SweepResult
from patchserve_client.evaluation.choice import Choice, cheapest, choose, not_worse_than_the_best
from patchserve_client.evaluation.run import Verdict
from patchserve_client.evaluation.verdict_pictures import VerdictPicture

PICTURE = Image.new("RGB", (8, 8))
IMAGES = 60
DEFAULTS = Setting(ScoringProfile.NOTEBOOK)


def outcome(
    ratios: Sequence[float] | NDArray[np.float64],
    *,
    ms: float = 10.0,
    mib: float = 1.0,
    setting: Setting = DEFAULTS,
    defective: int | None = None,
) -> Outcome:
    """One that was measured; the first `defective` images (half of them) are defective."""
    defective = len(ratios) // 2 if defective is None else defective
    verdicts = [
        Verdict(
            LabeledImage(Path(f"{index}.png"), f"{index}.png", "crack" if index < defective else None, None, (8, 8)),
            AnomalyScore(ratio / (ratio + 1), ratio, 1.0, ratio > 1, 0.0),
            0.0,
        )
        for index, ratio in enumerate(map(float, ratios))
    ]
    picture = VerdictPicture(verdicts[0], PICTURE, PICTURE, Timing(0, 0, ms, 0, 0, 0))
    return Outcome(setting, reference(mib), Findings(verdicts), (picture,), 1.0, 1.0)


def reference(mib: float) -> ReferenceInfo:
    values = dict.fromkeys((field.name for field in dataclasses.fields(ReferenceInfo)), None)
    calibration = Calibration(None, 1.0, 1.0, ScoreSpread(0, 0, 0, 0, 0, ()), None, None)
    now = datetime(2026, 1, 1, tzinfo=UTC)
    known = {"calibration": calibration, "bank_bytes": int(mib * 2**20), "create_time": now, "update_time": now}
    return ReferenceInfo(**{**values, **known})  # type: ignore[arg-type]


def separated(rng: np.random.Generator, gap: float, noise: float = 0.3) -> NDArray[np.float64]:
    """Ratios of IMAGES images; the threshold is in the middle."""
    middle = np.where(np.arange(IMAGES) < IMAGES // 2, 1 + gap / 2, 1 - gap / 2)
    ratios: NDArray[np.float64] = (middle + rng.normal(0, noise, IMAGES)).clip(0)
    return ratios


def test_the_cheapest_of_equal_settings_is_chosen() -> None:
    ratios = separated(np.random.default_rng(0), 0.8)
    found = choose([outcome(ratios, ms=50), outcome(ratios, ms=20), outcome(ratios, ms=90)])
    assert found == Choice(best=1, as_good=(0, 1, 2), chosen=1)


def test_a_setting_that_is_far_behind_is_not_chosen_however_cheap_it_is() -> None:
    rng = np.random.default_rng(0)
    found = choose([outcome(separated(rng, 1.5), ms=90), outcome(separated(rng, 0.1), ms=1)])
    assert found == Choice(best=0, as_good=(0,), chosen=0)


def test_a_setting_that_ranks_well_but_has_a_wrong_threshold_is_not_as_good() -> None:
    ratios = separated(np.random.default_rng(0), 1.5)
    found = choose([outcome(ratios, ms=90), outcome(ratios / 3, ms=1)])  # finds nothing
    assert found == Choice(best=0, as_good=(0,), chosen=0)


def test_luck_among_many_equal_settings_is_not_taken_for_quality() -> None:
    """Of 12 settings that differ by chance only, nearly all stay as good as the luckiest one."""
    rng = np.random.default_rng(3)
    kept = []
    for _ in range(8):
        found = choose([outcome(separated(rng, 0.6), ms=10 + index) for index in range(12)])
        assert found is not None
        kept.append(len(found.as_good))
    assert np.mean(kept) >= 10  # two tests in a row, each of which keeps 95 %


def test_images_that_one_setting_did_not_inspect_are_left_out_for_all() -> None:
    ratios = separated(np.random.default_rng(0), 0.8)
    whole, part = outcome(ratios, ms=20), outcome(ratios, ms=10)
    del part.findings.verdicts[3:9]
    assert choose([whole, part]) == Choice(best=1, as_good=(0, 1), chosen=1)


@pytest.mark.parametrize("defective", [0, IMAGES])
def test_nothing_is_chosen_without_both_kinds_of_images(defective: int) -> None:
    assert choose([outcome(separated(np.random.default_rng(0), 1), defective=defective)]) is None
    assert choose([]) is None


@settings(max_examples=15, phases=[Phase.explicit, Phase.generate])  # no shrinking: a case takes a second
@given(st.lists(st.tuples(st.floats(0, 1.5), st.floats(1, 100), st.floats(0.1, 50)), min_size=1, max_size=6))
def test_the_choice_is_as_good_as_the_best_and_none_of_these_is_much_cheaper(
    drawn: list[tuple[float, float, float]],
) -> None:
    rng = np.random.default_rng(5)
    outcomes = [outcome(separated(rng, gap), ms=ms, mib=mib) for gap, ms, mib in drawn]
    found = choose(outcomes)
    assert found is not None
    assert {found.best, found.chosen} <= set(found.as_good)
    aurocs = [one.metrics.image_auroc or 0 for one in outcomes]
    assert aurocs[found.best] == pytest.approx(max(aurocs[k] for k in found.as_good))
    assert outcomes[found.chosen].image_ms <= 1.1 * min(outcomes[k].image_ms for k in found.as_good)


@given(st.permutations(range(4)))
def test_the_order_of_settings_does_not_matter(order: list[int]) -> None:
    rng = np.random.default_rng(7)
    values = np.array([0.95, 0.94, 0.80, 0.5])
    drawn = values[:, None] + rng.normal(0, [[0.02], [0.01], [0.03], [0.1]], (4, 2000))
    expected = [True, True, False, False]
    assert not_worse_than_the_best(values, drawn).tolist() == expected
    assert not_worse_than_the_best(values[order], drawn[order]).tolist() == [expected[k] for k in order]


def test_a_difference_without_any_chance_in_it_counts_and_a_tie_does_not() -> None:
    drawn = np.repeat([[1.0], [1.0], [0.9]], 10, axis=1)
    assert not_worse_than_the_best(drawn[:, 0], drawn).tolist() == [True, True, False]


def test_times_that_differ_by_little_are_equal_and_the_smaller_bank_is_cheaper() -> None:
    ratios = separated(np.random.default_rng(0), 1)
    outcomes = [outcome(ratios, ms=20, mib=9), outcome(ratios, ms=21, mib=2), outcome(ratios, ms=40, mib=1)]
    assert cheapest(outcomes, (0, 1, 2)) == 1
    assert cheapest(outcomes, (0, 2)) == 0


SERVER = ServerInfo(**dict.fromkeys((field.name for field in dataclasses.fields(ServerInfo)), None))  # type: ignore[arg-type]


def concluded(*results: Outcome | Failure, planned: int | None = None) -> list[str]:
    dataset = Dataset(Path("tiles"), (), (), ())
    return SweepResult(dataset, SERVER, results, planned or len(results)).conclusion()


def test_the_conclusion_names_the_setting_the_price_of_a_higher_one_and_the_profiles() -> None:
    rng = np.random.default_rng(0)
    notebook, paper = Setting(ScoringProfile.NOTEBOOK), Setting(ScoringProfile.PAPER, 320, 0.1, 4)
    ratios = separated(rng, 0.9)
    worse = ratios.copy()
    worse[[0, IMAGES - 1]] = worse[[IMAGES - 1, 0]]
    first, *others = concluded(
        outcome(worse, ms=41.23, mib=12.3, setting=notebook), outcome(ratios, ms=99, mib=200, setting=paper)
    )
    assert first.startswith("Use notebook, all references: image AUROC 0.")
    assert first.endswith("41.2 ms an image, 12.3 MiB.")
    assert others[0].startswith(
        "The highest image AUROC has paper, input 320, coreset 10 %, 4 references: image AUROC 0."
    )
    assert others[0].endswith(
        "99.0 ms an image, 200 MiB. The difference may be chance, and the chosen setting is cheaper."
    )
    assert "suit these images equally well, as far as they can tell." in others[1]
    assert others[2].startswith("2 of 2 settings cannot be told apart with 60 test images")
    assert others[2].endswith(
        "Worse settings have a lower image AUROC or a lower balanced accuracy than chance explains."
    )


def test_the_conclusion_says_which_profile_suits_and_what_is_missing() -> None:
    rng = np.random.default_rng(0)
    good = outcome(separated(rng, 1.5), setting=Setting(ScoringProfile.PAPER))
    bad = outcome(separated(rng, 0.1), setting=Setting(ScoringProfile.NOTEBOOK))
    sentences = concluded(good, bad, Failure(DEFAULTS, "no memory"), planned=5)
    assert sentences[1] == "All other settings are worse by more than chance."
    assert sentences[2].startswith("Profile paper (1.000) suits these images; notebook (0.")
    assert sentences[3:] == ["1 setting could not be measured.", "The sweep was ended after 3 of 5 settings."]
    assert concluded(Failure(DEFAULTS, "no memory")) == ["No setting was measured."]
