"""Batches on a GPU: the scores of the CPU, one copy in and one out for each pass, and no wait in between."""

from __future__ import annotations

import weakref
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import torch
from fakes.devices import FakeDevice, fake_device, waits
from fakes.engine import fit
from fakes.references import named
from unit.engine.patchcore.test_batch_scoring import OPTIONS, inputs_for

from patchserve_server.domain.errors import MemoryBudgetError
from patchserve_server.domain.inspection import RawScores
from patchserve_server.engine.backbone.backbone import SharedBackbone
from patchserve_server.engine.backbone.device_runtime import DTYPES
from patchserve_server.engine.backbone.loading import load_backbone
from patchserve_server.engine.backbone.torch_runtime import TorchRuntime
from patchserve_server.engine.detector import PatchCoreDetector
from patchserve_server.engine.patchcore import device_outcome, device_scoring
from patchserve_server.engine.patchcore.calibration_bank import rounding_of
from patchserve_server.engine.patchcore.device_plan import DevicePlan
from patchserve_server.engine.patchcore.scorer import PatchCoreScorer
from patchserve_server.engine.search import device_search
from patchserve_server.engine.search.bank_index import BankIndex
from patchserve_server.engine.search.parallel import ParallelSearch

PLAIN, PAPER, VERDICT_TILES = 0, 1, 9

Scorers = dict[int, tuple[PatchCoreScorer, PatchCoreScorer]]


@pytest.fixture(scope="module")
def backbone() -> SharedBackbone[TorchRuntime]:
    return load_backbone("efficientnet_lite2", None, torch.device("cpu"))


@pytest.fixture(scope="module")
def exact(backbone: SharedBackbone[TorchRuntime]) -> PatchCoreDetector:
    return PatchCoreDetector(backbone)


@pytest.fixture(scope="module")
def device(backbone: SharedBackbone[TorchRuntime]) -> FakeDevice:
    return fake_device(backbone)


@pytest.fixture(scope="module")
def scorers(exact: PatchCoreDetector, device: FakeDevice) -> Scorers:
    """Of each option: in torch on the CPU, and the same bank on the device."""
    opened = {}
    for number in (0, 1, 2, 3, 4, 5, 7, 9):
        on_cpu = fit(exact, inputs_for(OPTIONS[number], [2 * number]), OPTIONS[number])
        on_device = device.detector.open(on_cpu.model)
        assert isinstance(on_cpu, PatchCoreScorer)
        assert isinstance(on_device, PatchCoreScorer)
        opened[number] = (on_cpu, on_device)
    return opened


def assert_equal(found: Sequence[RawScores] | Exception, expected: Sequence[RawScores]) -> None:
    assert not isinstance(found, Exception)
    assert len(found) == len(expected)
    for one, other in zip(found, expected, strict=True):
        assert one.image_score == pytest.approx(other.image_score, rel=1e-5)
        peak = float(np.nanmax(other.anomaly_map))
        assert one.anomaly_map.dtype == np.float32
        np.testing.assert_allclose(one.anomaly_map, other.anomaly_map, rtol=0, atol=1e-5 * peak)


@pytest.mark.parametrize("number", [0, 1, 2, 3, 4, 5, 7, 9])
def test_scores_are_those_of_the_cpu(scorers: Scorers, number: int) -> None:
    on_cpu, on_device = scorers[number]
    inputs = inputs_for(OPTIONS[number], [1, 3, 4, 5, 7])
    found, times = on_device.score(inputs)
    assert_equal(found, on_cpu.score(inputs)[0])
    assert times.embed_ms > 0
    assert times.search_ms > 0


def test_a_batch_of_many_references_has_the_scores_of_each(device: FakeDevice, scorers: Scorers) -> None:
    batch = [(number, inputs_for(OPTIONS[number], range(1, 2 + number % 3))) for number in scorers]
    pairs = [(scorers[number][1], inputs) for number, inputs in batch]
    found = {part.number: part.scores for part in device.detector.score_batch(pairs)}
    assert sorted(found) == list(range(len(batch)))
    for place, (number, inputs) in enumerate(batch):
        assert_equal(found[place], scorers[number][0].score(inputs)[0])


def test_each_pass_has_one_copy_in_and_one_out_and_no_wait_in_between(device: FakeDevice, scorers: Scorers) -> None:
    pairs = [(scorers[number][1], inputs_for(OPTIONS[number], [1])) for number in (0, 1, 2, 3, 4, 7)]
    before = device.transfers.to_device_count, device.transfers.to_host_count
    with waits() as found:
        assert len(list(device.detector.score_batch(pairs))) == len(pairs)
    assert found == []
    passes = 2  # of 4 images and of 2
    assert device.transfers.to_device_count - before[0] == device.transfers.to_host_count - before[1] == passes


def test_after_opening_no_number_of_images_is_new(device: FakeDevice, scorers: Scorers) -> None:
    captured = device.graphs.captured
    for count in (1, 2, 3, 4, 7):
        scorers[PLAIN][1].score(inputs_for(OPTIONS[PLAIN], range(count)))
    assert device.graphs.captured == captured


def test_queries_that_are_not_certain_are_searched_again(
    monkeypatch: pytest.MonkeyPatch,
    device: FakeDevice,
    scorers: Scorers,
) -> None:
    monkeypatch.setattr(device_search, "_MARGIN", 3.0)  # nothing is certain
    for number in (PLAIN, PAPER, VERDICT_TILES):
        on_cpu, on_device = scorers[number]
        inputs = inputs_for(OPTIONS[number], [1, 4])
        before = device.transfers.to_host_count
        assert_equal(on_device.score(inputs)[0], on_cpu.score(inputs)[0])
        assert device.transfers.to_host_count > before + 1


def test_wrong_inputs_fail_alone(device: FakeDevice, scorers: Scorers) -> None:
    good = inputs_for(OPTIONS[PLAIN], [1])
    batch = [(scorers[PLAIN][1], good), (scorers[PAPER][1], good[:, :100]), (scorers[3][1], good)]
    found = {part.number: part.scores for part in device.detector.score_batch(batch)}
    assert isinstance(found[1], ValueError)
    assert_equal(found[0], scorers[PLAIN][0].score(good)[0])
    assert_equal(found[2], scorers[3][0].score(good)[0])


def test_a_batch_that_does_not_fit_in_the_memory_of_the_device_is_divided(device: FakeDevice, scorers: Scorers) -> None:
    good = inputs_for(OPTIONS[PLAIN], [1])
    device.graphs.fails_with = torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")
    batch = [(scorers[PLAIN][1], good), (scorers[PAPER][1], good)]
    found = {part.number: part.scores for part in device.detector.score_batch(batch)}
    assert_equal(found[0], scorers[PLAIN][0].score(good)[0])
    assert_equal(found[1], scorers[PAPER][0].score(good)[0])


@pytest.mark.parametrize("number", [PLAIN, PAPER])
def test_so_are_images_of_one_reference(device: FakeDevice, scorers: Scorers, number: int) -> None:
    images = inputs_for(OPTIONS[number], [1, 4, 3])
    device.graphs.fails_with = torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")
    assert_equal(scorers[number][1].score(images)[0], scorers[number][0].score(images)[0])


def test_what_a_pass_that_did_not_fit_has_taken_is_free_before_it_is_divided(
    device: FakeDevice, scorers: Scorers, monkeypatch: pytest.MonkeyPatch
) -> None:
    layers, search, taken = device.runtime.layers_of, device_search.search_on_device, list[list[Any]]()

    def observed(images: torch.Tensor) -> tuple[torch.Tensor, ...]:
        held.append(sum(reference() is not None for references in taken for reference in references))
        found = layers(images)
        taken.append([weakref.ref(layer) for layer in found])
        return found

    def fails_once(*arguments: Any) -> Any:
        if len(taken) == 1:
            raise torch.OutOfMemoryError("CUDA out of memory.")
        return search(*arguments)

    held = list[int]()
    monkeypatch.setattr(device.runtime, "layers_of", observed)
    monkeypatch.setattr(device_outcome, "search_on_device", fails_once)
    images = inputs_for(OPTIONS[PLAIN], [1, 4])
    assert_equal(scorers[PLAIN][1].score(images)[0], scorers[PLAIN][0].score(images)[0])
    assert held == [0, 0, 0]


@pytest.mark.parametrize("copy", [1, 2, 3])
def test_what_a_pass_that_did_not_fit_has_left_changes_no_score(
    device: FakeDevice, scorers: Scorers, monkeypatch: pytest.MonkeyPatch, copy: int
) -> None:
    """Uncertain queries make one more copy for each kind of reference: each may be the one too much."""
    monkeypatch.setattr(device_search, "_MARGIN", 3.0)  # nothing is certain
    batch = [(number, inputs_for(OPTIONS[PLAIN], [number + 1])) for number in (PLAIN, PAPER)]
    monkeypatch.setattr(device.transfers, "fails_at", device.transfers.to_host_count + copy)
    pairs = [(scorers[number][1], images) for number, images in batch]
    found = {part.number: part.scores for part in device.detector.score_batch(pairs)}
    assert device.transfers.to_host_count >= device.transfers.fails_at
    for place, (number, images) in enumerate(batch):
        assert_equal(found[place], scorers[number][0].score(images)[0])


@pytest.mark.parametrize(("number", "margin"), [(PLAIN, 1 + 1e-4), (PLAIN, 3.0), (PAPER, 1 + 1e-4), (PAPER, 3.0)])
def test_references_that_are_alike_are_searched_at_once(
    device: FakeDevice, scorers: Scorers, monkeypatch: pytest.MonkeyPatch, number: int, margin: float
) -> None:
    """Also if their banks have different sizes, and if nothing is certain."""
    shown = [inputs_for(OPTIONS[number], images) for images in ([3], [1, 2, 5])]
    others = [fit(device.detector, images, OPTIONS[number]) for images in shown]
    of_device = [scorers[number][1], *others]
    batch = [
        (one, inputs_for(OPTIONS[number], images)) for one, images in zip(of_device, ([1, 7], [4], [6]), strict=True)
    ]
    alone = [one.score(images)[0] for one, images in batch]
    searches = list[int]()

    def counted(asked: Sequence[Any], *arguments: Any) -> Any:
        searches.append(len(asked))
        return device_search.search_on_device(asked, *arguments)

    monkeypatch.setattr(device_search, "_MARGIN", margin)
    monkeypatch.setattr(device_outcome, "search_on_device", counted)
    found = {part.number: part.scores for part in device.detector.score_batch(batch)}
    assert searches == ([3] if number == PLAIN else [3, 3])
    for place, expected in enumerate(alone):
        assert_equal(found[place], expected)


@pytest.mark.parametrize("number", [PLAIN, PAPER])
def test_only_the_reference_with_uncertain_queries_is_searched_again(
    device: FakeDevice, scorers: Scorers, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    images = [inputs_for(OPTIONS[number], [image]) for image in (1, 4, 6)]
    references = [device.detector.open(scorers[number][1].model) for _ in images]
    exact, scorer = list[BankIndex](), references[1]
    assert isinstance(scorer, PatchCoreScorer)
    assert scorer.plan is not None
    doubtful = scorer.plan.bank

    def search(asked: Sequence[Any], *others: Any) -> Any:
        found, start = device_search.search_on_device(asked, *others), 0
        for queries, bank in asked:
            found.is_unresolved[start : start + 1] |= bank is doubtful
            start += len(queries)
        return found

    nearest = ParallelSearch.nearest

    def counted(self: ParallelSearch, queries: torch.Tensor, index: BankIndex, *others: Any, **named: Any) -> Any:
        exact.append(index)
        return nearest(self, queries, index, *others, **named)

    monkeypatch.setattr(device_outcome, "search_on_device", search)
    monkeypatch.setattr(ParallelSearch, "nearest", counted)
    batch = list(zip(references, images, strict=True))
    found = {part.number: part.scores for part in device.detector.score_batch(batch)}
    assert exact == [scorer.index] * (1 if number == PLAIN else 2)
    for place, some in enumerate(images):
        assert_equal(found[place], scorers[number][0].score(some)[0])


def test_one_reference_that_fails_does_not_fail_those_that_are_alike(
    device: FakeDevice, scorers: Scorers, monkeypatch: pytest.MonkeyPatch
) -> None:
    good = [inputs_for(OPTIONS[PLAIN], [number]) for number in (1, 4)]
    broken = device.detector.open(scorers[PLAIN][1].model)
    assert isinstance(broken, PatchCoreScorer)
    assert broken.plan is not None
    unlucky = broken.plan.bank

    def search(asked: Sequence[Any], *others: Any) -> Any:
        if any(bank is unlucky for _, bank in asked):
            raise RuntimeError("broken")
        return device_search.search_on_device(asked, *others)

    asked = list[str]()
    monkeypatch.setattr(device_outcome, "search_on_device", search)
    monkeypatch.setattr(device_scoring, "end_if_lost", lambda _device, error: asked.append(str(error)))
    batch = [(scorers[PLAIN][1], good[0]), (broken, good[0]), (scorers[PLAIN][1], good[1])]
    found = {part.number: part.scores for part in device.detector.score_batch(batch)}
    assert isinstance(found[1], RuntimeError)
    assert found[1].__context__ is None, "it would hold the memory of them all"
    assert asked == ["broken", "broken"], "of all three, and of the broken one alone"
    assert_equal(found[0], scorers[PLAIN][0].score(good[0])[0])
    assert_equal(found[2], scorers[PLAIN][0].score(good[1])[0])


def test_a_search_that_does_not_fit_is_divided_too_and_fails_with_its_reason(
    device: FakeDevice, scorers: Scorers, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "empty_cache", lambda: None)
    good, left = inputs_for(OPTIONS[PLAIN], [1]), [1]

    def search(*arguments: Any) -> Any:
        if left and left.pop():
            raise torch.OutOfMemoryError("CUDA out of memory.")
        return device_search.search_on_device(*arguments)

    monkeypatch.setattr(device_outcome, "search_on_device", search)
    batch = [(scorers[PLAIN][1], good), (scorers[PAPER][1], good)]
    found = {part.number: part.scores for part in device.detector.score_batch(batch)}
    assert_equal(found[0], scorers[PLAIN][0].score(good)[0])
    assert_equal(found[1], scorers[PAPER][0].score(good)[0])
    left[:] = [1]
    with pytest.raises(MemoryBudgetError, match="too little free memory"):
        scorers[PLAIN][1].score(good)


def test_too_little_memory_of_the_device_is_an_error_of_its_caller_only(
    device: FakeDevice,
    scorers: Scorers,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(torch.cuda, "empty_cache", lambda: None)
    good, on_device = inputs_for(OPTIONS[PLAIN], [1]), scorers[PLAIN][1]
    device.graphs.fails_with = torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")
    with pytest.raises(MemoryBudgetError, match=r"too little free memory \(CUDA out of memory\)\. Lower"):
        on_device.score(good)
    assert_equal(on_device.score(good)[0], scorers[PLAIN][0].score(good)[0])

    def fail(*_: object) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory.")

    monkeypatch.setattr(DevicePlan, "build", fail)
    with pytest.raises(MemoryBudgetError, match="too little free memory"):
        device.detector.open(on_device.model)


@pytest.mark.parametrize("number", [0, 2, 4, 9])
def test_the_memory_of_an_open_reference_is_known_before(device: FakeDevice, scorers: Scorers, number: int) -> None:
    scorer = scorers[number][1]
    assert device.detector.open_nbytes(named(scorer.model).info) == scorer.nbytes


def test_thresholds_of_a_gpu_have_room_for_the_rounding_of_its_numbers(
    backbone: SharedBackbone[TorchRuntime], device: FakeDevice
) -> None:
    of_gpu = {name: rounding_of(fake_device(backbone, name).runtime) for name in DTYPES}
    assert of_gpu["fp32"] == rounding_of(backbone.runtime) < of_gpu["fp16"] < of_gpu["bf16"] < 0.01
    assert of_gpu["tf32"] == of_gpu["fp16"]


def test_banks_go_from_the_cpu_to_the_device_and_back(exact: PatchCoreDetector, device: FakeDevice) -> None:
    inputs = inputs_for(OPTIONS[PLAIN], [1, 2])
    on_device = fit(device.detector, inputs, OPTIONS[PLAIN])
    assert_equal(exact.open(on_device.model).score(inputs)[0], on_device.score(inputs)[0])
