"""Weights of a backbone: read, downloaded, checked, and named by their content. Never unpickled."""

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

_DOWNLOAD_TIMEOUT_S = 10.0  # of one connection or read: a machine without a network must learn of it soon
_SHOWN_NAMES = 3
_COUNTER = "num_batches_tracked"  # batch norm's training counter: absent in older files, unused here

# All that torch.load raises on files that are truncated, no archives, or hold more than tensors.
_UNREADABLE = (pickle.UnpicklingError, SafetensorError, RuntimeError, EOFError, ValueError, KeyError, TypeError)


@dataclass(frozen=True, slots=True, eq=False)
class Weights:
    """A state dict and where it came from, in words."""

    state: StateDict
    source: str


class DownloadError(Exception):
    """Weights that could not be fetched. The message is the reason, as part of a sentence."""


def read_weights(path: Path) -> Weights:
    """Weights of a file: .pth or .pt (tensors only, no code is run) or .safetensors.

    Raises:
        StartupError: it is missing, damaged, or holds anything else.
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
    except _UNREADABLE as error:
        raise StartupError(
            f'The weights file "{path}" is damaged or holds more than tensors. It must be a state dict: '
            "torch.save(model.state_dict(), FILE) or safetensors."
        ) from error
    if not isinstance(state, dict) or not all(isinstance(value, Tensor) for value in state.values()):
        raise StartupError(f'The weights file "{path}" holds no state dict: names with tensors, and nothing else.')
    return Weights(state, f"the file {path.name}")


def download_weights(url: str, source: str) -> Weights:
    """Weights of torch's download cache, fetched once with progress and checked against the checksum in their name.

    Raises:
        DownloadError: they could not be fetched, or what is in the cache is damaged.
    """
    try:
        # torch tells of the download on standard output, which is for what the server itself has to say.
        with _socket_timeout(_DOWNLOAD_TIMEOUT_S), contextlib.redirect_stdout(sys.stderr):
            state = torch.hub.load_state_dict_from_url(
                url, map_location="cpu", progress=True, check_hash=True, weights_only=True
            )
    except HTTPError as error:
        raise DownloadError(f"the download server answered {error.code} {error.reason}") from error
    except URLError as error:
        raise DownloadError(f"no way to the download server: {error.reason}") from error
    except OSError as error:
        raise DownloadError(error.strerror or str(error) or type(error).__name__) from error
    except _UNREADABLE as error:
        raise DownloadError("the download, or its copy in torch's cache (TORCH_HOME), is damaged") from error
    return Weights(state, source)


def load_weights(part: nn.Module, whole: nn.Module, weights: Weights, backbone: str) -> str:
    """Puts weights into the part of a network that is used, and returns their digest.

    Args:
        part: the modules that are kept; names as in `whole`.
        whole: the full network: what only it has is dropped.
        weights: of the full network, or of the part.
        backbone: its name, for messages.

    Returns:
        SHA-256 (hexadecimal) over names, shapes and float32 values of what is kept: the same for each file format.

    Raises:
        StartupError: names or shapes differ, or a value is not finite.
    """
    expected = part.state_dict()
    missing = [name for name in expected if name not in weights.state and not name.endswith(_COUNTER)]
    unknown = sorted(weights.state.keys() - whole.state_dict().keys())
    if missing or unknown:
        lacks = f" It lacks {_shown(missing)}." if missing else ""
        extra = f" It has {_shown(unknown)}, which the network has not." if unknown else ""
        raise StartupError(f"The weights ({weights.source}) are not those of {backbone}.{lacks}{extra}")
    digest = hashlib.sha256()
    state: dict[str, Tensor] = {}
    for name, place in sorted(expected.items()):
        if name.endswith(_COUNTER):
            state[name] = torch.zeros(place.shape, dtype=place.dtype)
            continue
        state[name] = _checked(name, weights.state[name], place, weights.source)
        digest.update(f"\n{name} {tuple(place.shape)}\n".encode())
        digest.update(state[name].numpy().data)
    part.load_state_dict(state, assign=True)
    return digest.hexdigest()


def _checked(name: str, value: Tensor, place: Tensor, source: str) -> Tensor:
    if value.shape != place.shape:
        raise StartupError(
            f"The weights ({source}) do not fit: {name} is {tuple(value.shape)}, but {tuple(place.shape)} is needed."
        )
    if not value.is_floating_point() or not bool(value.isfinite().all()):
        raise StartupError(f"The weights ({source}) are damaged: {name} holds values that are no finite numbers.")
    return value.detach().to(torch.float32).contiguous()


def _shown(names: list[str]) -> str:
    more = f" and {len(names) - _SHOWN_NAMES} more" if len(names) > _SHOWN_NAMES else ""
    return ", ".join(names[:_SHOWN_NAMES]) + more


@contextlib.contextmanager
def _socket_timeout(seconds: float) -> Iterator[None]:
    """Bounds the connections that torch opens: it sets no timeout itself and heeds the process-wide one alone."""
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(seconds)
    try:
        yield
    finally:
        socket.setdefaulttimeout(before)
