"""Inspections with the codec of a device: on the CPU its pixels are the CPU's, so nothing but encoders may differ."""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence

import numpy as np
import pytest
from fakes.detector import FakeDetector
from fakes.devices import CountedCodec
from fakes.images import card, encoded
from fakes.inspectors import inspecting
from PIL import Image

from patchserve_server.domain.images import SentImage
from patchserve_server.domain.inspection import HeatmapScale, OutputOptions, OverlayFormat
from patchserve_server.domain.jpeg_file import DeviceCodecError
from patchserve_server.domain.overlay_drawing import OverlayDrawing
from patchserve_server.domain.ports import ScoredPart, Scorer, ScorerInputs

pytest.importorskip("torchcodec")


class CodecDetector(FakeDetector):
    """Decodes and draws with the codec of a GPU."""

    def __init__(self) -> None:
        super().__init__(decode="device")
        self._codec = CountedCodec()

    def score_batch(self, batch: Sequence[tuple[Scorer, ScorerInputs]]) -> Iterator[ScoredPart]:
        return super().score_batch([(scorer, self._pixels(scorer, inputs)) for scorer, inputs in batch])

    def _pixels(self, scorer: Scorer, inputs: ScorerInputs) -> ScorerInputs:
        if isinstance(inputs, np.ndarray):
            return inputs
        decoded = self._codec.decode(inputs, scorer.model.bank.input_shape)
        return np.stack([one.numpy() for one in decoded if not isinstance(one, DeviceCodecError)])

    def draw(self, drawings: Sequence[OverlayDrawing]) -> Sequence[bytes | DeviceCodecError]:
        self.drawings += drawings
        return self._codec.draw(drawings)


def files() -> Iterator[bytes]:
    for subsampling in range(3):
        yield encoded(card(1, scratched=True), subsampling=subsampling, comment=b"belt 3")
    yield encoded(card(2).convert("L"))
    for orientation in range(2, 9):
        exif = Image.Exif()
        exif[0x0112] = orientation
        yield encoded(card(3, scratched=True).resize((311, 237)), exif=exif.tobytes())


async def test_verdicts_are_those_of_the_cpu_in_every_bit_and_overlays_nearly() -> None:
    async with inspecting(CodecDetector()) as device, inspecting(FakeDetector()) as cpu:
        for number, data in enumerate(files()):
            for scale in HeatmapScale:
                options = OutputOptions(
                    overlay=True,
                    overlay_format=OverlayFormat.JPEG,
                    heatmap_scale=scale,
                    score_map=True,
                    overlay_max_side_px=160 if number % 2 else 0,
                )
                one, other = [await each.inspect(SentImage(data), options) for each in (device, cpu)]
                assert (one.verdict, one.regions, one.source_size_px) == (
                    other.verdict,
                    other.regions,
                    other.source_size_px,
                )
                np.testing.assert_array_equal(one.score_map, other.score_map)
                assert one.overlay is not None
                assert other.overlay is not None
                drawn, rendered = (
                    np.asarray(Image.open(io.BytesIO(each.data)), np.int16) for each in (one.overlay, other.overlay)
                )
                assert drawn.shape == rendered.shape
                assert np.abs(drawn - rendered).mean() < 2.5
        assert len(device.detector.drawings) == 2 * len(list(files()))
