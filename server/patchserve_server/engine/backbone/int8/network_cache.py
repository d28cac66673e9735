"""A folder of quantized networks, so that a restart need not quantize again. It can be deleted at any time."""

from __future__ import annotations

import hashlib
import logging
import os
import threading
from collections.abc import Set as AbstractSet
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import openvino
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

_SUFFIX = ".safetensors"
_UNFINISHED = "unfinished"  # always the same name, so that the next write replaces the leftover of a kill
_MAX_UNUSED_BYTES = 2**30

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class NetworkFile:
    """A network in OpenVINO's file format."""

    graph: bytes  # XML
    weights: bytes

    @classmethod
    def from_model(cls, model: openvino.Model) -> NetworkFile:
        with TemporaryDirectory(prefix="patchserve-") as folder:
            path = Path(folder) / "network.xml"
            openvino.serialize(model, path)
            return cls(path.read_bytes(), path.with_suffix(".bin").read_bytes())

    def to_model(self) -> openvino.Model:
        return openvino.Core().read_model(self.graph, self.weights)

    def digest(self, key: str) -> str:
        """SHA-256 (hexadecimal) of the key and the content."""
        digest = hashlib.sha256(f"{key} {len(self.graph)} ".encode())
        digest.update(self.graph)
        digest.update(self.weights)
        return digest.hexdigest()


class NetworkCache:
    """One file for each network, for one process at a time; safe to use from several threads.

    Errors are logged and never raised: the network is then quantized again.
    """

    def __init__(self, folder: Path, *, max_unused_bytes: int = _MAX_UNUSED_BYTES) -> None:
        self._folder = folder
        self._max_unused_bytes = max_unused_bytes
        self._write_lock = threading.Lock()
        self._has_warned = False  # a failed write is logged once, not for each load

    def read(self, key: str) -> NetworkFile | None:
        """The network that was written with this key; None if there is none or its digest is wrong."""
        path = self._path(key)
        try:
            with safe_open(path, "numpy") as opened:
                expected = (opened.metadata() or {}).get("sha256")
                network = NetworkFile(opened.get_tensor("graph").tobytes(), opened.get_tensor("weights").tobytes())
        except FileNotFoundError:
            return None
        except (OSError, SafetensorError) as error:
            _log.warning("Cannot read the quantized network %s, quantizing again: %s", path.name, error)
            return None
        if network.digest(key) != expected:
            _log.warning("The quantized network %s is damaged (wrong digest), quantizing again", path.name)
            return None
        with suppress(OSError):
            os.utime(path)  # marks the file as used: the least recently used files are deleted first
        return network

    def write(self, key: str, network: NetworkFile, *, in_use: AbstractSet[str] = frozenset()) -> None:
        """Write a network atomically. Then delete the least recently used networks above the limit.

        Args:
            key: the name of the network.
            network: its content.
            in_use: keys of networks that are never deleted and do not count.
        """
        tensors = {"graph": np.frombuffer(network.graph, np.uint8), "weights": np.frombuffer(network.weights, np.uint8)}
        content = save(tensors, {"sha256": network.digest(key)})
        with self._write_lock:
            try:
                self._folder.mkdir(parents=True, exist_ok=True)
                unfinished = self._folder / _UNFINISHED
                unfinished.write_bytes(content)
                unfinished.replace(self._path(key))
                self._delete_unused({*in_use, key})
            except OSError as error:
                if not self._has_warned:
                    _log.warning("Cannot write quantized networks, they are lost at a restart: %s", error)
                self._has_warned = True

    def _path(self, key: str) -> Path:
        return self._folder / f"{key}{_SUFFIX}"

    def _delete_unused(self, in_use: AbstractSet[str]) -> None:
        unused = [(path.stat(), path) for path in self._folder.glob(f"*{_SUFFIX}") if path.stem not in in_use]
        total = 0
        for stat, path in sorted(unused, key=lambda entry: entry[0].st_mtime, reverse=True):
            total += stat.st_size
            if total > self._max_unused_bytes:
                path.unlink(missing_ok=True)
