"""create_detector: what it hands from the settings to the parts."""

from __future__ import annotations

from urllib.error import URLError

import pytest
import torch

from patchserve_server.domain.errors import StartupError
from patchserve_server.engine.factory import create_detector


def test_a_fallback_is_visible_in_the_info(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_args: object, **_options: object) -> None:
        raise URLError(OSError(101, "Network is unreachable"))

    monkeypatch.setattr(torch.hub, "load_state_dict_from_url", fail)
    info = create_detector(backbone="auto", device="cpu").info
    assert (info.backbone, info.device, info.precision) == ("efficientnet_lite2", "cpu", "fp32")
    assert "wide_resnet50_2" in info.fallback_reason
    assert "Network is unreachable" in info.fallback_reason


@pytest.mark.parametrize("wrong", [{"backbone": "none"}, {"device": "none"}, {"precision": "none"}])
def test_a_wrong_setting_is_rejected(wrong: dict[str, str]) -> None:
    with pytest.raises(StartupError, match=r'Unknown .* "none"'):
        create_detector(**{"backbone": "efficientnet_lite2", "device": "cpu"} | wrong)  # type: ignore[arg-type]


def test_threads_are_those_of_torch_too() -> None:
    before = torch.get_num_threads()
    try:
        create_detector(backbone="efficientnet_lite2", device="cpu", threads=before + 1)
        assert torch.get_num_threads() == before + 1
    finally:
        torch.set_num_threads(before)
