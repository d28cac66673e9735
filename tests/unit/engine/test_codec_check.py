"""What the log says at the start about a device that decodes."""

from __future__ import annotations

import logging
from typing import Any

import numpy as np
import pytest
import torch
from fakes.devices import CountedCodec

from patchserve_server.domain.errors import StartupError
from patchserve_server.domain.images import ModelInputs
from patchserve_server.domain.input_options import InputShape
from patchserve_server.engine import codec_check, factory
from patchserve_server.engine.backbone.loading import load_backbone
from patchserve_server.engine.codec_check import check_decoding
from patchserve_server.engine.factory import create_detector

pytest.importorskip("torchcodec")


class OtherPixels(CountedCodec):
    """Its pixels are up to so many levels away from those of the CPU."""

    def __init__(self, levels: int) -> None:
        super().__init__()
        self._levels = levels

    def samples(self, shape: InputShape) -> tuple[ModelInputs, ModelInputs]:
        exact, _ = self.inner.samples(shape)
        noise = np.random.default_rng(0).integers(-self._levels, self._levels + 1, exact.shape)
        return exact, (exact + noise).clip(0, 255).astype(np.uint8)


@pytest.mark.parametrize(
    ("levels", "level"), [(0, logging.INFO), (2, logging.INFO), (90, logging.WARNING)], ids=["same", "near", "far"]
)
def test_the_difference_is_logged_and_a_large_one_is_a_warning(
    caplog: pytest.LogCaptureFixture, levels: int, level: int
) -> None:
    backbone = load_backbone("efficientnet_lite2", None, torch.device("cpu"))
    with caplog.at_level(logging.INFO):
        check_decoding(OtherPixels(levels), backbone)
    (record,) = [record for record in caplog.records if record.name == codec_check.__name__]
    assert record.levelno == level
    assert f"differ by at most {levels} levels" in record.getMessage()
    share = float(record.getMessage().rpartition("maps by ")[2].partition(" %")[0])
    assert (share == 0) == (levels == 0)


def test_a_detector_is_created_with_its_codec_which_is_checked(monkeypatch: pytest.MonkeyPatch) -> None:
    opened, checked = CountedCodec(), list[object]()
    monkeypatch.setattr(factory, "check_decoding", lambda codec, _: checked.append(codec))
    detector = create_detector(backbone="efficientnet_lite2", device="cpu", threads=1, codec=lambda _: opened)
    assert detector.info.decode == "device"
    assert checked == [opened]


def test_a_codec_that_is_missing_is_told_before_any_weights_are_loaded(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(device: torch.device) -> Any:
        raise StartupError(f"none for {device}")

    monkeypatch.setattr(factory, "load_backbone", None)
    with pytest.raises(StartupError, match="none for cpu"):
        create_detector(backbone="efficientnet_lite2", device="cpu", codec=missing)
