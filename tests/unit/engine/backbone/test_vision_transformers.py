"""DINOv2 and DINOv3 give the features of another implementation with the same weights, whatever names a file has."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from fakes.images import card
from fakes.networks import random_transformer_weights
from numpy.typing import NDArray
from safetensors.torch import save_file
from torch import Tensor
from torch.nn import functional
from transformers import (
    Dinov2Config,
    Dinov2Model,
    Dinov2WithRegistersConfig,
    Dinov2WithRegistersModel,
    DINOv3ViTConfig,
    DINOv3ViTModel,
    PreTrainedModel,
)

from patchserve_server.domain.errors import StartupError
from patchserve_server.engine.backbone.architectures import BACKBONES
from patchserve_server.engine.backbone.device_runtime import in_precision
from patchserve_server.engine.backbone.loading import load_backbone

CPU = torch.device("cpu")
SIZE: dict[str, Any] = {"hidden_size": 384, "num_attention_heads": 6, "num_hidden_layers": 12}
MEAN, STD = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
BLOCKS = {"dinov2_vits14": [11], "dinov2_vits14_reg": [11], "dinov3_vits16": [3, 6, 9, 11]}
NAMES = tuple(BLOCKS)
# From the names of transformers to those of the authors. Queries, keys and values are one tensor there.
RENAMED = {
    r"embeddings\.(cls_token|mask_token|register_tokens)": r"\1",
    r"embeddings\.position_embeddings": "pos_embed",
    r"embeddings\.patch_embeddings\.(?:projection\.)?(\w+)": r"patch_embed.proj.\1",
    r"(?:layernorm|norm)\.(\w+)": r"norm.\1",
    r"(?:encoder|model)\.layer\.(\d+)\.attention\.o_proj\.(\w+)": r"blocks.\1.attn.proj.\2",
    r"(?:encoder|model)\.layer\.(\d+)\.layer_scale(\d)\.lambda1": r"blocks.\1.ls\2.gamma",
    r"(?:encoder|model)\.layer\.(\d+)\.mlp\.(?:fc1|up_proj)\.(\w+)": r"blocks.\1.mlp.fc1.\2",
    r"(?:encoder|model)\.layer\.(\d+)\.mlp\.(?:fc2|down_proj)\.(\w+)": r"blocks.\1.mlp.fc2.\2",
    r"(?:encoder|model)\.layer\.(\d+)\.(norm\d)\.(\w+)": r"blocks.\1.\2.\3",
}


def other_implementation(name: str) -> PreTrainedModel:
    model: PreTrainedModel
    if name == "dinov3_vits16":
        config = DINOv3ViTConfig(**SIZE, intermediate_size=1536, num_register_tokens=4, patch_size=16)
        model = DINOv3ViTModel(config)
    elif name == "dinov2_vits14_reg":
        model = Dinov2WithRegistersModel(Dinov2WithRegistersConfig(**SIZE, image_size=518, patch_size=14))
    else:
        model = Dinov2Model(Dinov2Config(**SIZE, image_size=518, patch_size=14))
    model.load_state_dict(random_transformer_weights(model))
    model.train(mode=False)
    return model


def original_names(state: Mapping[str, Tensor], *, is_dinov3: bool) -> dict[str, Tensor]:
    """The state dict of transformers as the authors name and arrange it."""
    renamed = {}
    for name, values in state.items():
        for pattern, replacement in RENAMED.items():
            if re.fullmatch(pattern, name):
                renamed[re.sub(pattern, replacement, name)] = values
    for name, weight in state.items():
        if match := re.fullmatch(r"((?:encoder|model)\.layer\.(\d+)\.attention\.)q_proj\.weight", name):
            prefix, block = match.groups()
            biases = [state.get(f"{prefix}{part}_proj.bias", torch.zeros(len(weight))) for part in "qkv"]
            weights = [state[f"{prefix}{part}_proj.weight"] for part in "qkv"]
            renamed[f"blocks.{block}.attn.qkv.weight"] = torch.cat(weights)
            renamed[f"blocks.{block}.attn.qkv.bias"] = torch.cat(biases)
            if is_dinov3:
                renamed[f"blocks.{block}.attn.qkv.bias_mask"] = torch.ones(3 * len(weight))
    if is_dinov3:
        renamed["storage_tokens"] = renamed.pop("register_tokens")
        renamed["rope_embed.periods"] = torch.ones(16)
    return renamed


@dataclass(frozen=True)
class Published:
    """The other implementation, and its weights in a file as their authors publish them."""

    name: str
    model: PreTrainedModel
    weights: Path

    @torch.inference_mode()
    def layers(self, images: NDArray[np.uint8]) -> list[Tensor]:
        """Patch tokens of the used blocks after the final norm, each (B, P, C)."""
        inputs = (torch.from_numpy(images).float() / 255 - MEAN) / STD
        states = self.model(inputs.permute(0, 3, 1, 2), output_hidden_states=True).hidden_states
        norm = self.model.get_submodule("norm" if self.name == "dinov3_vits16" else "layernorm")
        prefix = 1 if self.name == "dinov2_vits14" else 5  # the class token, and four registers
        return [norm(states[block + 1])[:, prefix:] for block in BLOCKS[self.name]]


@pytest.fixture(scope="module", params=NAMES)
def published(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Published:
    name: str = request.param
    model = other_implementation(name)
    path = tmp_path_factory.mktemp("weights") / f"{name}_pretrain.pth"
    torch.save(original_names(model.state_dict(), is_dinov3=name == "dinov3_vits16"), path)
    return Published(name, model, path)


@pytest.mark.parametrize("steps", [(16, 16), (23, 17), (37, 37)])
def test_features_equal_those_of_another_implementation(published: Published, steps: tuple[int, int]) -> None:
    backbone = load_backbone(published.name, published.weights, CPU)
    rows, columns = steps
    size_px = (columns * backbone.spec.step_px, rows * backbone.spec.step_px)
    images = np.stack([np.asarray(card(seed).resize(size_px)) for seed in range(2)])
    expected = published.layers(images)
    with torch.inference_mode():
        actual = backbone.runtime.layers(images)
    for ours, theirs in zip(actual, expected, strict=True):
        assert theirs.std(dim=1).mean() > 0.05  # patches differ
        unit = functional.normalize(theirs, dim=2) / len(expected) ** 0.5
        torch.testing.assert_close(ours.flatten(2).transpose(1, 2), unit, rtol=0, atol=1e-5)
        assert tuple(ours.shape[2:]) == steps


def test_angles_are_as_exact_in_every_number_format(published: Published) -> None:
    backbone = load_backbone(published.name, published.weights, CPU)
    buffers = dict(in_precision(backbone.runtime.module, "bf16").part.named_buffers())
    periods = [buffer for name, buffer in buffers.items() if name.endswith("_periods")]
    assert [each.dtype for each in periods] == [torch.float32] * (published.name == "dinov3_vits16")


def test_half_the_squared_distance_is_the_mean_cosine_distance_of_the_layers(published: Published) -> None:
    backbone = load_backbone(published.name, published.weights, CPU)
    images = np.stack([np.asarray(card(seed).resize((224, 224))) for seed in range(2)])
    with torch.inference_mode():
        vectors = torch.cat(backbone.runtime.layers(images), dim=1).flatten(2).transpose(1, 2)  # (B, P, D)
    cosines = [functional.cosine_similarity(layer[0], layer[1], dim=1) for layer in published.layers(images)]
    squared = (vectors[0] - vectors[1]).square().sum(dim=1)
    torch.testing.assert_close(squared / 2, 1 - torch.stack(cosines).mean(dim=0), rtol=0, atol=1e-4)


def test_names_of_timm_and_of_the_authors_give_the_same_weights(published: Published, tmp_path: Path) -> None:
    spec = BACKBONES[published.name]
    by_timm = dict(spec.rename(torch.load(published.weights, weights_only=True)))
    assert set(by_timm) == set(spec.build().state_dict())
    save_file({name: values.contiguous() for name, values in by_timm.items()}, tmp_path / "model.safetensors")
    one, other = (load_backbone(spec.name, path, CPU) for path in (published.weights, tmp_path / "model.safetensors"))
    assert one.weights_digest == other.weights_digest


def test_dinov3_without_biases_of_query_and_value_has_zeros(tmp_path: Path) -> None:
    state = random_transformer_weights(BACKBONES["dinov3_vits16"].build())
    for name in state:
        if name.endswith(("q_bias", "v_bias")):
            state[name] = torch.zeros_like(state[name])
    save_file(state, tmp_path / "with.safetensors")
    bare = {name: values for name, values in state.items() if not name.endswith(("q_bias", "v_bias"))}
    save_file(bare, tmp_path / "without.safetensors")
    one, other = (load_backbone("dinov3_vits16", path, CPU) for path in tmp_path.iterdir())
    assert one.weights_digest == other.weights_digest


@pytest.mark.parametrize(("name", "other"), [(NAMES[0], NAMES[1]), (NAMES[1], NAMES[0]), (NAMES[2], NAMES[0])])
def test_weights_of_another_transformer_are_rejected(tmp_path: Path, name: str, other: str) -> None:
    save_file(random_transformer_weights(BACKBONES[other].build()), tmp_path / "other.safetensors")
    with pytest.raises(StartupError, match=f"not those of {name}|do not fit"):
        load_backbone(name, tmp_path / "other.safetensors", CPU)


@pytest.mark.parametrize(
    "state",
    [
        {"mask_token": torch.zeros(1, 384), "register_tokens": torch.zeros(1, 4, 384)},
        {"mask_token": torch.zeros(1), "register_tokens": torch.zeros(1), "pos_embed": torch.zeros(3)},
        {"blocks.0.attn.qkv.bias": torch.zeros(2), "blocks.0.attn.qkv.weight": torch.zeros(())},
        {},
    ],
)
@pytest.mark.parametrize("name", NAMES)
def test_files_that_only_look_like_theirs_are_rejected(tmp_path: Path, name: str, state: dict[str, Tensor]) -> None:
    torch.save(state, tmp_path / "broken.pth")
    with pytest.raises(StartupError, match=f"not those of {name}"):
        load_backbone(name, tmp_path / "broken.pth", CPU)
