"""Weights of DINOv2 and DINOv3 by timm's names, from files with timm's names or with those of their authors."""

from __future__ import annotations

import re

import torch

from patchserve_server.engine.backbone.weights import StateDict

_DINOV3_BLOCK = re.compile(r"(blocks\.\d+\.)ls([12])\.gamma")
_QKV_BIAS = re.compile(r"(blocks\.\d+\.attn\.)qkv\.bias")
_QKV_WEIGHT = re.compile(r"(blocks\.\d+\.attn\.)qkv\.weight")


def rename_dinov2(state: StateDict) -> StateDict:
    """Timm has no mask token, which is for training only, and adds the position of the class token to it."""
    if "mask_token" not in state:
        return state
    renamed = {name: values for name, values in state.items() if name != "mask_token"}
    if "register_tokens" in renamed:
        renamed["reg_token"] = renamed.pop("register_tokens")
        positions = renamed["pos_embed"]  # of the class token, then of the patches
        renamed["cls_token"] = renamed["cls_token"] + positions[:, :1]
        renamed["pos_embed"] = positions[:, 1:]
    return renamed


def rename_dinov3(state: StateDict) -> StateDict:
    """Timm has separate biases of query and value. Its other variant has none: the published ones are zero."""
    renamed: dict[str, torch.Tensor] = {}
    for name, values in state.items():
        if name.endswith(("mask_token", "rope_embed.periods", "qkv.bias_mask")):
            continue  # for training only; the same in all networks; marks the bias of the key, which is never used
        if match := _QKV_BIAS.fullmatch(name):
            query, _, value = values.chunk(3)
            renamed |= {f"{match[1]}q_bias": query, f"{match[1]}v_bias": value}
        else:
            renamed[_DINOV3_BLOCK.sub(r"\1gamma_\2", name.replace("storage_tokens", "reg_token"))] = values
    for name, values in state.items():
        if match := _QKV_WEIGHT.fullmatch(name):
            no_bias = torch.zeros(values.shape[0] // 3)
            renamed = {f"{match[1]}q_bias": no_bias, f"{match[1]}v_bias": no_bias} | renamed
    return renamed
