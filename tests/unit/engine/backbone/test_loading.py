"""Which backbone a name stands for, and what happens without its weights."""

from __future__ import annotations

import logging
import subprocess
import sys
from pathlib import Path
from urllib.error import URLError

import pytest
import torch
from fakes.networks import WideResNet

from patchserve_server.domain.errors import StartupError
from patchserve_server.engine.backbone.loading import load_backbone

CPU = torch.device("cpu")


@pytest.fixture
def no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_args: object, **_options: object) -> None:
        raise URLError(OSError(101, "Network is unreachable"))

    monkeypatch.setattr(torch.hub, "load_state_dict_from_url", fail)


@pytest.mark.usefixtures("no_network")
def test_auto_falls_back_to_the_embedded_backbone_with_a_warning(caplog: pytest.LogCaptureFixture) -> None:
    backbone = load_backbone("auto", None, CPU)
    [record] = [record for record in caplog.records if record.levelno >= logging.WARNING]
    assert "USING THE EMBEDDED BACKBONE efficientnet_lite2" in record.getMessage()
    assert backbone.spec.name == "efficientnet_lite2"
    assert "wide_resnet50_2" in backbone.fallback_reason
    assert "Network is unreachable" in backbone.fallback_reason


@pytest.mark.usefixtures("no_network")
def test_a_named_backbone_does_not_fall_back_and_the_error_says_what_to_do() -> None:
    with pytest.raises(StartupError) as caught:
        load_backbone("wide_resnet50_2", None, CPU)
    for hint in ("--weights FILE", "--backbone auto", "efficientnet_lite2", "Network is unreachable"):
        assert hint in caught.value.message


@pytest.mark.usefixtures("no_network")
def test_auto_takes_a_weights_file_of_the_preferred_backbone(wide_resnet: WideResNet) -> None:
    backbone = load_backbone("auto", wide_resnet.weights, CPU)
    assert (backbone.spec.name, backbone.fallback_reason) == ("wide_resnet50_2", "")
    assert backbone.weights_source == "the file wide_resnet50_2.pth"


@pytest.mark.usefixtures("no_network")
def test_auto_does_not_ignore_a_bad_weights_file(tmp_path: Path) -> None:
    with pytest.raises(StartupError, match="cannot be read"):
        load_backbone("auto", tmp_path / "nothing.pth", CPU)


def test_weights_of_another_network_are_rejected(wide_resnet: WideResNet) -> None:
    with pytest.raises(StartupError, match="not those of efficientnet_lite2"):
        load_backbone("efficientnet_lite2", wide_resnet.weights, CPU)


def test_an_unknown_backbone_is_rejected_with_the_known_ones() -> None:
    with pytest.raises(
        StartupError,
        match=r'Unknown backbone "resnet18"\. Use wide_resnet50_2, efficientnet_lite2, .*, auto or timm:NAME',
    ):
        load_backbone("resnet18", None, CPU)


def test_loading_a_backbone_does_not_import_the_compiler_of_torch() -> None:
    """That import takes seconds at each start, as that of timm does."""
    program = (
        "import sys\n"
        "from patchserve_server.engine.factory import create_detector\n"
        "create_detector(backbone='efficientnet_lite2', device='cpu').warm_up()\n"
        "assert not {'torch._dynamo', 'timm'} & set(sys.modules)\n"
    )
    subprocess.run([sys.executable, "-c", program], check=True)
