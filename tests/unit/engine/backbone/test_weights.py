"""Weights: which files are accepted, and what their digest covers."""

from __future__ import annotations

import functools
import io
import pickle
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from patchserve_server.domain.errors import StartupError
from patchserve_server.engine.backbone.weights import (
    Weights,
    load_weights,
    read_weights,
)


class Full(nn.Module):
    """A network whose head is not used."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3)
        self.norm = nn.BatchNorm2d(4)
        self.head = nn.Linear(4, 2)


class Used(nn.Module):
    def __init__(self, full: Full) -> None:
        super().__init__()
        self.conv, self.norm = full.conv, full.norm


def state_of_full(seed: int = 0) -> dict[str, Tensor]:
    torch.manual_seed(seed)
    return Full().state_dict()


def load(state: dict[str, Tensor]) -> tuple[str, Used]:
    with torch.device("meta"):
        full = Full()
        used = Used(full)
    return load_weights(used, set(full.state_dict()), Weights(state, "a test"), "toy"), used


def test_the_used_layers_get_the_values() -> None:
    state = state_of_full()
    _, used = load(state)
    assert torch.equal(used.conv.weight, state["conv.weight"])
    assert used.norm.running_var is not None
    assert torch.equal(used.norm.running_var, state["norm.running_var"])


def test_the_digest_covers_the_used_values_not_the_file(tmp_path: Path) -> None:
    state = state_of_full()
    torch.save(state, tmp_path / "a.pth")
    save_file(state, tmp_path / "a.safetensors")
    digests = {load(dict(read_weights(path).state))[0] for path in tmp_path.iterdir()}
    without_head = {name: value for name, value in state.items() if not name.startswith("head.")}
    without_counter = {name: value for name, value in state.items() if not name.endswith("num_batches_tracked")}
    other_head = {**state, "head.bias": torch.ones(2)}
    digests |= {load(each)[0] for each in (without_head, without_counter, other_head)}
    assert len(digests) == 1
    assert len(digests.pop()) == 64


def test_each_used_value_changes_the_digest() -> None:
    state = state_of_full()
    before = load(state)[0]
    state["norm.running_mean"][3] += 1e-6
    assert load(state)[0] != before


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"conv.weight": None}, "They lack conv.weight"),
        ({"stem.weight": torch.ones(1)}, "The network has no stem.weight"),
        ({"conv.weight": torch.ones(4, 3, 5, 5)}, r"conv.weight is \(4, 3, 5, 5\), but must be \(4, 3, 3, 3\)"),
        ({"conv.bias": torch.tensor([0.0, float("nan"), 0.0, 0.0])}, "conv.bias has values that are not finite"),
        ({"norm.running_var": torch.full((4,), float("inf"))}, "norm.running_var has values that are not finite"),
        ({"conv.bias": torch.ones(4, dtype=torch.int64)}, "conv.bias has values that are not finite"),
    ],
)
def test_weights_that_do_not_fit_are_rejected(change: dict[str, Tensor | None], message: str) -> None:
    state = {name: value for name, value in {**state_of_full(), **change}.items() if value is not None}
    with pytest.raises(StartupError, match=message):
        load(state)


class Trap:
    """Runs code when it is unpickled."""

    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self) -> tuple[Callable[..., object], tuple[object, ...]]:
        return Path.touch, (self.target,)


def saved(value: object) -> bytes:
    file = io.BytesIO()
    torch.save(value, file)
    return file.getvalue()


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("weights.onnx", b"", "must end in .pth, .pt or .safetensors"),
        ("empty.pth", b"", "is damaged"),
        ("empty.safetensors", b"", "is damaged"),
        ("garbage.pth", b"\x80\x02 no weights at all" * 99, "is damaged"),
        ("garbage.safetensors", b"\xff" * 999, "is damaged"),
        ("text.pth", b"404: not found", "is damaged"),
        ("cut.pth", saved(state_of_full())[:-700], "is damaged"),
        ("module.pth", saved(nn.Linear(2, 2)), "holds more than tensors"),
        ("list.pth", saved([torch.ones(2)]), "is not a state dict"),
        ("nested.pth", saved({"state_dict": state_of_full()}), "is not a state dict"),
    ],
)
def test_files_without_weights_are_rejected(tmp_path: Path, name: str, content: bytes, message: str) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(StartupError, match=message) as caught:
        read_weights(tmp_path / name)
    assert name in caught.value.message


@pytest.mark.parametrize("name", ["nothing.pth", "nothing.safetensors"])
def test_a_missing_file_is_reported_as_missing(tmp_path: Path, name: str) -> None:
    with pytest.raises(StartupError, match="cannot be read: No such file"):
        read_weights(tmp_path / name)


@pytest.mark.parametrize("name", ["folder.pth", "folder.safetensors"])
def test_a_folder_is_rejected(tmp_path: Path, name: str) -> None:
    (tmp_path / name).mkdir()
    with pytest.raises(StartupError, match="cannot be read"):
        read_weights(tmp_path / name)


@pytest.mark.parametrize("write", [functools.partial(pickle.dumps, protocol=2), saved])
def test_code_in_a_file_is_never_run(tmp_path: Path, write: Callable[[object], bytes]) -> None:
    touched = tmp_path / "touched"
    (tmp_path / "trap.pth").write_bytes(write({"conv.weight": Trap(touched)}))
    with pytest.raises(StartupError, match="holds more than tensors"):
        read_weights(tmp_path / "trap.pth")
    assert not touched.exists()
