"""Images of several references share passes of the network, and no bit of a score depends on the others."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
import torch
from fakes.engine import fit
from fakes.images import card
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from patchserve_server.domain.images import ModelInputs
from patchserve_server.domain.input_options import InputOptions, InputShape
from patchserve_server.domain.reference_options import CoresetOptions, ReferenceOptions, ScoringProfile
from patchserve_server.engine.backbone.runtime import Runtime
from patchserve_server.engine.detector import PatchCoreDetector
from patchserve_server.engine.patchcore.patch_scores import PatchScores
from patchserve_server.engine.patchcore.patch_subspace import PatchSubspace
from patchserve_server.engine.patchcore.pipeline import Pipeline
from patchserve_server.engine.patchcore.scorer import PatchCoreScorer
from patchserve_server.engine.patchcore.tiling import Tiling

LEFT, TOP = (((0, 0), (0.6, 0), (0.6, 1), (0, 1)),), (((0, 0), (1, 0), (1, 0.5), (0, 0.5)),)
TILES = InputOptions(longer_side_px=448, tile_px=224)
OPTIONS = (
    ReferenceOptions(),
    ReferenceOptions(ScoringProfile.PAPER),
    ReferenceOptions(ScoringProfile.PAPER, region_of_interest=LEFT),
    ReferenceOptions(ScoringProfile.VERDICT, input=InputOptions(longer_side_px=224)),
    ReferenceOptions(ScoringProfile.SUBSPACE, region_of_interest=TOP),
    ReferenceOptions(search_radius=0.1),
    ReferenceOptions(search_radius=0.5, region_of_interest=TOP),
    ReferenceOptions(coreset=CoresetOptions(max_patches=60)),
    ReferenceOptions(input=TILES),
    ReferenceOptions(ScoringProfile.VERDICT, input=TILES, region_of_interest=LEFT, search_radius=0.3),
    ReferenceOptions(ScoringProfile.PAPER, input=dataclasses.replace(TILES, tile_overlap=0.5)),
)
"""All with whole inputs or tiles of 224 px, so that they may be in one batch."""


def inputs_for(options: ReferenceOptions, seeds: Sequence[int]) -> ModelInputs:
    side_px = options.input.longer_side_px or 224
    drawn = [card(seed, scratched=bool(seed % 2)).resize((side_px, side_px)) for seed in seeds]
    return np.stack([np.asarray(image) for image in drawn])


@pytest.fixture(scope="module")
def scorers(detector: PatchCoreDetector) -> list[PatchCoreScorer]:
    opened = []
    for number, options in enumerate(OPTIONS):
        scorer = fit(detector, inputs_for(options, [2 * number]), options)
        assert isinstance(scorer, PatchCoreScorer)
        opened.append(scorer)
    return opened


parts = st.tuples(
    st.integers(0, len(OPTIONS) - 1),
    st.lists(st.integers(0, 40), min_size=1, max_size=9),
)


@settings(max_examples=15, deadline=None)
@given(chosen=st.lists(parts, min_size=1, max_size=4))
def test_no_bit_of_a_score_depends_on_other_references(
    detector: PatchCoreDetector, scorers: list[PatchCoreScorer], chosen: list[tuple[int, list[int]]]
) -> None:
    batch = [(scorers[which], inputs_for(OPTIONS[which], seeds)) for which, seeds in chosen]
    scored = {part.number: part.scores for part in detector.score_batch(batch)}
    assert sorted(scored) == list(range(len(batch)))
    for number, (scorer, inputs) in enumerate(batch):
        together, alone = scored[number], scorer.score(inputs)[0]
        assert not isinstance(together, Exception)
        assert [one.image_score for one in together] == [one.image_score for one in alone]
        for one, other in zip(together, alone, strict=True):
            np.testing.assert_array_equal(one.anomaly_map, other.anomaly_map)


@dataclass(frozen=True)
class CountingRuntime:
    """Counts what the network sees in each pass."""

    runtime: Runtime
    passes: list[int]

    precision, nbytes, streams, largest_pass = "fp32", 0, 1, 8
    device = torch.device("cpu")

    def layers(self, inputs: ModelInputs) -> tuple[Tensor, ...]:
        self.passes.append(len(inputs))
        return self.runtime.layers(inputs)


def counted(scorers: Sequence[PatchCoreScorer], *numbers: int) -> tuple[list[PatchCoreScorer], list[int]]:
    """These scorers with one runtime, and its passes."""
    passes = list[int]()
    runtime = CountingRuntime(scorers[0].pipeline.runtime, passes)
    pipelines = [dataclasses.replace(scorers[number].pipeline, runtime=runtime) for number in numbers]
    chosen = zip(numbers, pipelines, strict=True)
    return [dataclasses.replace(scorers[number], pipeline=pipeline) for number, pipeline in chosen], passes


def test_one_pass_serves_all_references(detector: PatchCoreDetector, scorers: list[PatchCoreScorer]) -> None:
    chosen, passes = counted(scorers, *range(8))
    assert len(list(detector.score_batch([(scorer, inputs_for(ReferenceOptions(), [1])) for scorer in chosen]))) == 8
    assert passes == [8]


@pytest.mark.parametrize(
    ("images", "expected"), [((12,), [8, 4]), ((3, 5), [8]), ((6, 6), [6, 6]), ((3, 10), [3, 8, 2])]
)
def test_a_pass_is_no_larger_than_for_one_reference_and_divides_none_further(
    detector: PatchCoreDetector, scorers: list[PatchCoreScorer], images: Sequence[int], expected: Sequence[int]
) -> None:
    chosen, passes = counted(scorers, *[0, 3][: len(images)])
    pairs = zip(chosen, images, strict=True)
    list(detector.score_batch([(scorer, inputs_for(ReferenceOptions(), range(count))) for scorer, count in pairs]))
    assert passes == expected


def test_other_networks_and_other_shapes_have_other_batch_keys(scorers: list[PatchCoreScorer]) -> None:
    pipeline = scorers[0].pipeline
    other_network = dataclasses.replace(pipeline, runtime=CountingRuntime(pipeline.runtime, []))
    shape = InputShape.square(320)
    other_shape = dataclasses.replace(
        pipeline, shape=shape, tiling=Tiling.of(shape, InputOptions(), pipeline.architecture)
    )
    assert len({scorers[0].batch_key, other_network.batch_key, other_shape.batch_key}) == 3


def test_the_smallest_bank_is_searched_first(detector: PatchCoreDetector, scorers: list[PatchCoreScorer]) -> None:
    large = fit(detector, inputs_for(ReferenceOptions(), [1, 2, 3]))
    batch = [(large, inputs_for(ReferenceOptions(), [4])), (scorers[0], inputs_for(ReferenceOptions(), [4]))]
    assert [part.number for part in detector.score_batch(batch)] == [1, 0]


def test_a_search_that_fails_costs_no_other_reference_its_scores(
    detector: PatchCoreDetector, scorers: list[PatchCoreScorer]
) -> None:
    of_other_vectors = PatchSubspace(torch.zeros(3), torch.zeros(1, 3))
    broken, inputs = dataclasses.replace(scorers[0], index=of_other_vectors), inputs_for(ReferenceOptions(), [1])
    outcomes = {part.number: part.scores for part in detector.score_batch([(broken, inputs), (scorers[0], inputs)])}
    assert isinstance(outcomes[0], RuntimeError)
    assert not isinstance(outcomes[1], Exception)


def test_a_part_that_fails_in_the_middle_of_its_tiles_has_one_outcome_and_is_searched_no_more(
    detector: PatchCoreDetector, scorers: list[PatchCoreScorer], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Pipeline, "tiles_per_pass", 1)
    search, searched = Pipeline.scores_against, list[Pipeline]()
    tiled, whole = scorers[8], scorers[0]

    def fail_at_the_second_tile(pipeline: Pipeline, *arguments: Any, **options: Any) -> PatchScores:
        searched.append(pipeline)
        if pipeline is tiled.pipeline and searched.count(pipeline) == 2:
            raise RuntimeError("no memory")
        return search(pipeline, *arguments, **options)

    monkeypatch.setattr(Pipeline, "scores_against", fail_at_the_second_tile)
    batch = [(tiled, inputs_for(OPTIONS[8], [1, 2])), (whole, inputs_for(OPTIONS[0], [1, 2]))]
    outcomes = [(part.number, type(part.scores)) for part in detector.score_batch(batch)]
    assert sorted(outcomes, key=lambda outcome: outcome[0]) == [(0, RuntimeError), (1, list)]
    assert searched.count(tiled.pipeline) == 2
