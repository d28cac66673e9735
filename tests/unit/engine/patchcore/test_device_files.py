"""Files in batches on a GPU: the scores that their pixels have on the CPU, and no copy but the decoder's."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
import torch
from fakes.devices import CountedCodec, FakeDevice, device_with, jpeg_file, waits
from fakes.engine import fit
from fakes.images import card
from PIL import Image
from unit.engine.patchcore.test_batch_scoring import OPTIONS, inputs_for
from unit.engine.patchcore.test_device_scoring import assert_equal

from patchserve_server.domain.errors import MemoryBudgetError
from patchserve_server.domain.images import ModelInputs
from patchserve_server.domain.input_options import InputShape
from patchserve_server.domain.jpeg_file import JpegFile
from patchserve_server.domain.ports import ScoredPart, Scorer, ScorerInputs
from patchserve_server.engine.detector import PatchCoreDetector
from patchserve_server.imaging import to_model_input
from patchserve_server.imaging.on_device.sample_files import decode_on_cpu

pytest.importorskip("torchcodec")

PLAIN, PAPER_LEFT, VERDICT_TILES = 0, 2, 9
References = dict[int, tuple[Scorer, Scorer]]

UNKNOWN = JpegFile(b"\xff\xd8 nothing that anybody decodes", (320, 240))


@pytest.fixture(scope="module")
def codec() -> CountedCodec:
    return CountedCodec()


@pytest.fixture(scope="module")
def device(codec: CountedCodec) -> FakeDevice:
    return device_with(codec)


@pytest.fixture(scope="module")
def references(detector: PatchCoreDetector, device: FakeDevice) -> References:
    """Of each option: on the CPU, and the same bank on the device."""
    on_cpu = {
        number: fit(detector, inputs_for(OPTIONS[number], [2]), OPTIONS[number])
        for number in (PLAIN, PAPER_LEFT, VERDICT_TILES)
    }
    return {number: (scorer, device.detector.open(scorer.model)) for number, scorer in on_cpu.items()}


def files(*seeds: int) -> list[JpegFile]:
    return [jpeg_file(card(seed, scratched=bool(seed % 2))) for seed in seeds]


def as_inputs(shown: Sequence[JpegFile], shape: InputShape) -> ModelInputs:
    return np.stack([to_model_input(Image.fromarray(decode_on_cpu(file)), shape) for file in shown])


def scored(device: FakeDevice, batch: Sequence[tuple[Scorer, ScorerInputs]]) -> list[ScoredPart]:
    found = {part.number: part for part in device.detector.score_batch(batch)}
    return [found[number] for number in range(len(batch))]


@pytest.mark.parametrize("number", [PLAIN, PAPER_LEFT, VERDICT_TILES])
def test_files_have_the_scores_of_their_pixels(device: FakeDevice, references: References, number: int) -> None:
    (on_cpu, on_device), shown = references[number], files(1, 3, 4, 5, 7)
    (part,) = scored(device, [(on_device, shown)])
    assert_equal(part.scores, on_cpu.score(as_inputs(shown, on_cpu.model.bank.input_shape))[0])
    assert not part.undecoded
    assert part.times.decode_ms > 0


def test_files_and_model_inputs_share_passes(device: FakeDevice, references: References) -> None:
    (on_cpu, on_device), shown, inputs = references[PLAIN], files(1, 4), inputs_for(OPTIONS[PLAIN], [3])
    of_files, of_inputs, again = scored(device, [(on_device, shown), (on_device, inputs), (on_device, shown[:1])])
    expected = on_cpu.score(as_inputs(shown, on_cpu.model.bank.input_shape))[0]
    assert_equal(of_files.scores, expected)
    assert_equal(of_inputs.scores, on_cpu.score(inputs)[0])
    assert_equal(again.scores, expected[:1])


def test_the_decoder_copies_files_and_nothing_else_waits(
    device: FakeDevice, codec: CountedCodec, references: References
) -> None:
    pairs: list[tuple[Scorer, ScorerInputs]] = [
        (references[PLAIN][1], files(1, 4)),
        (references[PAPER_LEFT][1], files(3)),
    ]
    codec.decoded.clear()
    before = device.transfers.to_device_count, device.transfers.to_host_count
    with waits() as found:
        scored(device, pairs)
    assert found == []
    assert codec.decoded == [3], "all files of a pass in one call"
    assert device.transfers.to_device_count == before[0]
    assert device.transfers.to_host_count == before[1] + 1


@pytest.mark.parametrize("number", [PLAIN, VERDICT_TILES])
def test_a_file_that_the_device_cannot_decode_costs_no_other_its_scores(
    device: FakeDevice, references: References, number: int
) -> None:
    (on_cpu, on_device), (one, other, third) = references[number], files(1, 4, 5)
    mixed, none, whole = scored(
        device, [(on_device, [UNKNOWN, one, UNKNOWN, other]), (on_device, [UNKNOWN] * 6), (on_device, [third])]
    )
    expected = on_cpu.score(as_inputs([one, other, third], on_cpu.model.bank.input_shape))[0]
    assert_equal(mixed.scores, expected[:2])
    assert set(mixed.undecoded) == {0, 2}
    assert_equal(none.scores, [])
    assert set(none.undecoded) == set(range(6))
    assert_equal(whole.scores, expected[2:])
    assert not whole.undecoded


def test_each_part_has_one_outcome_even_if_it_fails_in_its_first_pass(
    device: FakeDevice, references: References
) -> None:
    on_device, good = references[PLAIN][1], inputs_for(OPTIONS[PLAIN], [1])
    wrong = np.zeros((9, 100, 100, 3), np.uint8)
    numbers = [part.number for part in device.detector.score_batch([(on_device, wrong), (on_device, good)])]
    assert sorted(numbers) == [0, 1]
    (alone,) = device.detector.score_batch([(on_device, wrong)])
    assert isinstance(alone.scores, ValueError)


def test_files_that_do_not_fit_in_the_memory_of_the_device_are_decoded_for_each_part_alone(
    device: FakeDevice, codec: CountedCodec, references: References
) -> None:
    (on_cpu, on_device), (one, other) = references[PLAIN], files(1, 4)
    codec.fails_with = torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")
    first, second = scored(device, [(on_device, [one, UNKNOWN]), (on_device, [other])])
    expected = on_cpu.score(as_inputs([one, other], on_cpu.model.bank.input_shape))[0]
    assert_equal(first.scores, expected[:1])
    assert set(first.undecoded) == {1}
    assert_equal(second.scores, expected[1:])


def test_a_file_that_does_not_fit_is_an_error_of_its_caller_only(
    device: FakeDevice, codec: CountedCodec, references: References, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "empty_cache", lambda: None)
    on_device = references[PLAIN][1]
    codec.fails_with = torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")
    (part,) = scored(device, [(on_device, files(1))])
    assert isinstance(part.scores, MemoryBudgetError)
    (part,) = scored(device, [(on_device, files(1))])
    assert not isinstance(part.scores, Exception)


@pytest.mark.parametrize("failure", [RuntimeError("an illegal memory access"), MemoryError(), ValueError("a bug")])
def test_a_codec_that_fails_costs_no_model_input_its_scores(
    device: FakeDevice, codec: CountedCodec, references: References, failure: Exception
) -> None:
    (on_cpu, on_device), inputs = references[PLAIN], inputs_for(OPTIONS[PLAIN], [3])
    codec.fails_with = failure
    of_files, of_inputs = scored(device, [(on_device, files(1, 4)), (on_device, inputs)])
    assert {at: str(why) for at, why in of_files.undecoded.items()} == dict.fromkeys(
        (0, 1), f"{type(failure).__name__}: {failure}"
    )
    assert_equal(of_files.scores, [])
    assert_equal(of_inputs.scores, on_cpu.score(inputs)[0])


def test_a_detector_without_a_codec_says_that_it_takes_no_files(
    detector: PatchCoreDetector, references: References
) -> None:
    (part,) = detector.score_batch([(references[PLAIN][0], files(1))])
    assert isinstance(part.scores, TypeError)
    assert detector.info.decode == "cpu"
    with pytest.raises(TypeError, match="draws no overlays"):
        detector.draw([])


def test_a_detector_with_a_codec_says_so_and_warms_it_up(device: FakeDevice, codec: CountedCodec) -> None:
    assert device.detector.info.decode == "device"
    before = codec.warmed
    device.detector.warm_up()
    assert codec.warmed == before + 1
