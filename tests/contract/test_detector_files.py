"""What every Detector that decodes promises of files: the engine's on a device, and the fake."""

from __future__ import annotations

import io
from collections.abc import Sequence

import numpy as np
import pytest
import torch
from fakes.detector import FakeDetector
from fakes.devices import CountedCodec, fake_device, jpeg_file
from fakes.engine import ignore_progress
from fakes.images import card
from PIL import Image

from patchserve_server.domain.images import ModelInputs
from patchserve_server.domain.inspection import HeatmapScale, RawScores
from patchserve_server.domain.jpeg_file import DeviceCodecError, JpegFile
from patchserve_server.domain.overlay_drawing import OverlayDrawing
from patchserve_server.domain.ports import Detector, ScoredPart, Scorer, ScorerInputs
from patchserve_server.domain.reference_options import ReferenceOptions
from patchserve_server.engine.backbone.loading import load_backbone

pytest.importorskip("torchcodec")

UNKNOWN = JpegFile(b"\xff\xd8 nothing that anybody decodes", (320, 240))


@pytest.fixture(scope="module", params=["engine", "fake"])
def tested(request: pytest.FixtureRequest) -> Detector:
    if request.param == "fake":
        fake = FakeDetector(decode="device")
        fake.is_unknown = lambda file: file is UNKNOWN
        return fake
    torch.set_num_threads(1)
    backbone = load_backbone("efficientnet_lite2", None, torch.device("cpu"))
    return fake_device(backbone, codec=CountedCodec()).detector


@pytest.fixture(scope="module")
def scorer(tested: Detector) -> Scorer:
    return tested.fit(cards(tested, 1, 2), ReferenceOptions(), ignore_progress)


def cards(tested: Detector, *seeds: int) -> ModelInputs:
    size_px = (tested.info.input_size_px,) * 2
    return np.stack([np.asarray(card(seed).resize(size_px)) for seed in seeds])


def files(*seeds: int) -> list[JpegFile]:
    return [jpeg_file(card(seed, scratched=bool(seed % 2))) for seed in seeds]


def scored(tested: Detector, scorer: Scorer, *parts: ScorerInputs) -> list[ScoredPart]:
    outcomes = list(tested.score_batch([(scorer, part) for part in parts]))
    assert sorted(outcome.number for outcome in outcomes) == list(range(len(parts))), "one outcome each"
    return sorted(outcomes, key=lambda outcome: outcome.number)


def image_scores(scores: Sequence[RawScores] | Exception) -> list[float]:
    assert not isinstance(scores, Exception)
    return [one.image_score for one in scores]


def test_it_says_that_its_device_decodes(tested: Detector) -> None:
    assert tested.info.decode == "device"


def test_no_score_depends_on_the_other_images(tested: Detector, scorer: Scorer) -> None:
    shown, inputs = files(3, 4, 5), cards(tested, 6)
    (alone,), (of_inputs,) = scored(tested, scorer, shown), scored(tested, scorer, inputs)
    first, second, third = scored(tested, scorer, shown[:2], inputs, shown[2:])
    expected = image_scores(alone.scores)
    assert image_scores(first.scores) + image_scores(third.scores) == pytest.approx(expected, rel=1e-4)
    assert image_scores(second.scores) == pytest.approx(image_scores(of_inputs.scores), rel=1e-4)
    assert alone.times.decode_ms > 0
    assert len(set(expected)) == 3


def test_a_file_is_turned_upright(tested: Detector, scorer: Scorer) -> None:
    upright = Image.fromarray(np.asarray(card(7, scratched=True)))
    turned = jpeg_file(upright.transpose(Image.Transpose.ROTATE_90), orientation=6, quality=100, subsampling=0)
    assert turned.size_px == upright.size
    (part,) = scored(tested, scorer, [jpeg_file(upright, quality=100, subsampling=0), turned])
    one, other = image_scores(part.scores)
    assert other == pytest.approx(one, rel=0.05)
    (part,) = scored(tested, scorer, [JpegFile(turned.data, turned.stored_size_px)])
    assert image_scores(part.scores)[0] != pytest.approx(one, rel=1e-6)


def test_what_it_cannot_decode_is_told_and_costs_no_other_its_scores(tested: Detector, scorer: Scorer) -> None:
    one, other = files(3, 4)
    (expected,) = scored(tested, scorer, [one, other])
    mixed, none = scored(tested, scorer, [UNKNOWN, one, UNKNOWN, other], [UNKNOWN, UNKNOWN])
    assert image_scores(mixed.scores) == pytest.approx(image_scores(expected.scores), rel=1e-4)
    assert set(mixed.undecoded) == {0, 2}
    assert set(none.undecoded) == {0, 1}
    assert image_scores(none.scores) == []


@pytest.mark.parametrize("scale", HeatmapScale)
def test_overlays_are_files_in_the_order_of_their_drawings(tested: Detector, scale: HeatmapScale) -> None:
    levels = np.zeros((16, 16), np.uint8)
    levels[:8] = 200
    shown = [*files(1), UNKNOWN, *files(2)]
    drawings = [OverlayDrawing(file, levels, scale, file.size_px, [[(9, 9), (90, 9), (90, 90)]]) for file in shown]
    first, unknown, last = tested.draw(drawings)
    assert isinstance(unknown, DeviceCodecError)
    for drawn in (first, last):
        assert isinstance(drawn, bytes)
        assert (Image.open(io.BytesIO(drawn)).format, Image.open(io.BytesIO(drawn)).size) == ("JPEG", (320, 240))
    assert first != last
    assert tested.draw([]) == []
