"""Reads and checks the weights of a backbone. Code in weights files is never run."""

from __future__ import annotations

import hashlib
import pickle
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from patchserve_server.domain.errors import StartupError

StateDict: TypeAlias = Mapping[str, Tensor]

_MAX_LISTED_NAMES = 3
_COUNTER = "num_batches_tracked"  # the training counter of batch norms: not in older files, and not used here

# What torch.load and safetensors raise for files that are truncated, of another format, or hold more than tensors.
FORMAT_ERRORS = (pickle.UnpicklingError, SafetensorError, RuntimeError, EOFError, ValueError, KeyError, TypeError)


@dataclass(frozen=True, slots=True, eq=False)
class Weights:
    """A state dict and its source as text."""

    state: StateDict
    source: str


def read_weights(path: Path) -> Weights:
    """The weights in a file: .pth, .pt (tensors only, no code is run) or .safetensors.

    Raises:
        StartupError: the file is missing, damaged, or not a state dict.
    """
    try:
        if path.suffix == ".safetensors":
            state = load_file(path)
        elif path.suffix in {".pth", ".pt"}:
            state = torch.load(path, map_location="cpu", weights_only=True)
        else:
            raise StartupError(f'The weights file "{path}" must end in .pth, .pt or .safetensors.')
    except OSError as error:
        raise StartupError(f'The weights file "{path}" cannot be read: {error.strerror or error}.') from error
    except FORMAT_ERRORS as error:
        raise StartupError(
            f'The weights file "{path}" is damaged or holds more than tensors. It must be a state dict: '
            "torch.save(model.state_dict(), FILE) or safetensors."
        ) from error
    if not isinstance(state, dict) or not all(isinstance(value, Tensor) for value in state.values()):
        raise StartupError(
            f'The weights file "{path}" is not a state dict: it must hold names with tensors, and nothing else.'
        )
    return Weights(state, f"the file {path.name}")


def renamed(weights: Weights, rename: Callable[[StateDict], StateDict], backbone: str) -> Weights:
    """The weights by other names.

    Raises:
        StartupError: they are those of another network.
    """
    try:
        return Weights(rename(weights.state), weights.source)
    except (KeyError, IndexError, RuntimeError, ValueError) as error:  # a name or a shape that `rename` relies on
        raise StartupError(f"The weights ({weights.source}) are not those of {backbone}.") from error


def load_weights(used: nn.Module, known: Collection[str], weights: Weights, backbone: str) -> str:
    """Load weights into the used part of a network, and return their digest.

    Args:
        used: the modules that the backbone uses; names as in the full network.
        known: all names of the full network. Weights that only it has are ignored.
        weights: of the full network or of the used part.
        backbone: its name, for messages.

    Returns:
        SHA-256 (hexadecimal) over names, shapes and float32 values of the used weights: the same for every file format.

    Raises:
        StartupError: names or shapes differ, or a value is not finite.
    """
    expected = used.state_dict()
    missing = [name for name in expected if name not in weights.state and not name.endswith(_COUNTER)]
    unknown = sorted(weights.state.keys() - set(known))
    if missing or unknown:
        missing_text = f" They lack {_listed(missing)}." if missing else ""
        unknown_text = f" The network has no {_listed(unknown)}." if unknown else ""
        raise StartupError(f"The weights ({weights.source}) are not those of {backbone}.{missing_text}{unknown_text}")
    digest = hashlib.sha256()
    state: dict[str, Tensor] = {}
    for name, parameter in sorted(expected.items()):
        if name.endswith(_COUNTER):
            state[name] = torch.zeros(parameter.shape, dtype=parameter.dtype)
            continue
        state[name] = _checked_values(name, weights.state[name], parameter.shape, weights.source)
        digest.update(f"\n{name} {tuple(parameter.shape)}\n".encode())
        digest.update(state[name].numpy().data)
    used.load_state_dict(state, assign=True)
    return digest.hexdigest()


def _checked_values(name: str, values: Tensor, shape: torch.Size, source: str) -> Tensor:
    """The values as contiguous float32."""
    if values.shape != shape:
        raise StartupError(
            f"The weights ({source}) do not fit: {name} is {tuple(values.shape)}, but must be {tuple(shape)}."
        )
    if not values.is_floating_point() or not bool(values.isfinite().all()):
        raise StartupError(f"The weights ({source}) are damaged: {name} has values that are not finite numbers.")
    return values.detach().to(torch.float32).contiguous()


def _listed(names: list[str]) -> str:
    more = f" and {len(names) - _MAX_LISTED_NAMES} more" if len(names) > _MAX_LISTED_NAMES else ""
    return ", ".join(names[:_MAX_LISTED_NAMES]) + more
