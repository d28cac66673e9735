"""Reads, downloads and checks the weights of a backbone. Code in weights files is never run."""

from __future__ import annotations

import contextlib
import hashlib
import pickle
import socket
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias
from urllib.error import HTTPError, URLError

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from patchserve_server.domain.errors import StartupError

StateDict: TypeAlias = Mapping[str, Tensor]

_DOWNLOAD_TIMEOUT_S = 10.0  # for each connection or read, so that a start without a network fails soon
_MAX_LISTED_NAMES = 3
_COUNTER = "num_batches_tracked"  # the training counter of batch norms: not in older files, and not used here

# What torch.load and safetensors raise for files that are truncated, of another format, or hold more than tensors.
_FORMAT_ERRORS = (pickle.UnpicklingError, SafetensorError, RuntimeError, EOFError, ValueError, KeyError, TypeError)


@dataclass(frozen=True, slots=True, eq=False)
class Weights:
    """A state dict and its source as text."""

    state: StateDict
    source: str


class DownloadError(Exception):
    """Weights could not be downloaded. The message is the reason, as part of a sentence."""


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
    except _FORMAT_ERRORS as error:
        raise StartupError(
            f'The weights file "{path}" is damaged or holds more than tensors. It must be a state dict: '
            "torch.save(model.state_dict(), FILE) or safetensors."
        ) from error
    if not isinstance(state, dict) or not all(isinstance(value, Tensor) for value in state.values()):
        raise StartupError(
            f'The weights file "{path}" is not a state dict: it must hold names with tensors, and nothing else.'
        )
    return Weights(state, f"the file {path.name}")


def download_weights(url: str, source: str) -> Weights:
    """The weights at a URL, downloaded once into torch's cache and checked against the checksum in their file name.

    Raises:
        DownloadError: the download failed, or the file in the cache is damaged.
    """
    try:
        # torch prints its progress to the standard output, which is for the server only.
        with _socket_timeout(_DOWNLOAD_TIMEOUT_S), contextlib.redirect_stdout(sys.stderr):
            state = torch.hub.load_state_dict_from_url(
                url, map_location="cpu", progress=True, check_hash=True, weights_only=True
            )
    except HTTPError as error:
        raise DownloadError(f"the download server answered {error.code} {error.reason}") from error
    except URLError as error:
        raise DownloadError(f"cannot reach the download server: {error.reason}") from error
    except OSError as error:
        raise DownloadError(error.strerror or str(error) or type(error).__name__) from error
    except _FORMAT_ERRORS as error:
        raise DownloadError("the download or its copy in torch's cache (TORCH_HOME) is damaged") from error
    return Weights(state, source)


def load_weights(used: nn.Module, full: nn.Module, weights: Weights, backbone: str) -> str:
    """Load weights into the used part of a network, and return their digest.

    Args:
        used: the modules that the backbone uses; names as in `full`.
        full: the full network. Weights that only it has are ignored.
        weights: of the full network or of the used part.
        backbone: its name, for messages.

    Returns:
        SHA-256 (hexadecimal) over names, shapes and float32 values of the used weights: the same for every file format.

    Raises:
        StartupError: names or shapes differ, or a value is not finite.
    """
    expected = used.state_dict()
    missing = [name for name in expected if name not in weights.state and not name.endswith(_COUNTER)]
    unknown = sorted(weights.state.keys() - full.state_dict().keys())
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


@contextlib.contextmanager
def _socket_timeout(seconds: float) -> Iterator[None]:
    """Limit the connections that torch opens. torch sets no timeout of its own, but uses the process-wide default."""
    default_s = socket.getdefaulttimeout()
    socket.setdefaulttimeout(seconds)
    try:
        yield
    finally:
        socket.setdefaulttimeout(default_s)
