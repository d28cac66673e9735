"""NetworkCache: a network is read back as it was written, or not at all."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch
from fakes.quantizer import SIZE_PX, doubling_model
from numpy.typing import NDArray

from patchserve_server.engine.backbone.int8.network_cache import NetworkCache, NetworkFile
from patchserve_server.engine.backbone.openvino_runtime import OpenVinoRuntime

KEY, OTHER_KEY = "a" * 64, "b" * 64
FILE = NetworkFile(b"<net/>", bytes(range(256)) * 40)
IMAGE: NDArray[np.uint8] = np.tile(np.array([3, 4, 5], np.uint8), (1, SIZE_PX, SIZE_PX, 1))


def only_file(folder: Path) -> Path:
    (found,) = folder.iterdir()
    return found


def test_a_written_network_is_read_back(tmp_path: Path) -> None:
    cache = NetworkCache(tmp_path / "made" / "when needed")
    assert cache.read(KEY) is None
    cache.write(KEY, FILE)
    assert NetworkCache(tmp_path / "made" / "when needed").read(KEY) == FILE
    assert cache.read(OTHER_KEY) is None
    assert only_file(tmp_path / "made" / "when needed").name == f"{KEY}.safetensors"  # and nothing half-written


def test_a_model_computes_the_same_after_its_file() -> None:
    model = doubling_model()
    before, after = (
        OpenVinoRuntime(one, precision="fp32", threads=1).layers(IMAGE)[0]
        for one in (model, NetworkFile.from_model(model).to_model())
    )
    assert torch.equal(before, after)
    assert torch.equal(after[0, :, 0, 0], torch.tensor([6.0, 8.0, 10.0]))


@pytest.mark.parametrize("damage", ["cut", "changed", "emptied", "of another key", "of another kind"])
def test_a_damaged_or_foreign_file_is_not_used(tmp_path: Path, damage: str, caplog: pytest.LogCaptureFixture) -> None:
    cache = NetworkCache(tmp_path)
    cache.write(KEY, FILE)
    path = only_file(tmp_path)
    data = path.read_bytes()
    if damage == "of another key":
        cache.write(OTHER_KEY, FILE)
        (tmp_path / f"{OTHER_KEY}.safetensors").replace(path)
    else:
        changed = data[:-1] + bytes([data[-1] ^ 1])
        path.write_bytes({"cut": data[:-9], "changed": changed, "emptied": b"", "of another kind": b"PK" * 99}[damage])
    assert cache.read(KEY) is None
    assert "quantizing again" in caplog.text
    cache.write(KEY, FILE)
    assert cache.read(KEY) == FILE


def test_a_folder_that_cannot_be_written_is_logged_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "file").touch()
    cache = NetworkCache(tmp_path / "file" / "folder")
    cache.write(KEY, FILE)
    cache.write(OTHER_KEY, FILE)
    assert caplog.text.count("Cannot write quantized networks") == 1
    caplog.clear()
    assert cache.read(KEY) is None


def test_threads_can_write_at_the_same_time(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    cache = NetworkCache(tmp_path)
    networks = {str(number) * 64: NetworkFile(b"<net/>", bytes([number]) * 100_000) for number in range(8)}
    with ThreadPoolExecutor(len(networks)) as pool:
        list(pool.map(cache.write, networks, networks.values()))
    assert not caplog.records
    assert {key: cache.read(key) for key in networks} == networks


def test_a_failed_write_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cache = NetworkCache(tmp_path)
    cache.write(KEY, FILE)
    monkeypatch.setattr(Path, "replace", lambda _self, _target: (_ for _ in ()).throw(OSError("no")))
    cache.write(KEY, NetworkFile(b"<other/>", b""))
    assert cache.read(KEY) == FILE


def test_networks_in_use_stay_and_of_the_others_those_used_last(tmp_path: Path) -> None:
    keys = [letter * 64 for letter in "cdef"]
    cache = NetworkCache(tmp_path, max_unused_bytes=int(2.5 * len(FILE.weights)))
    for at, key in enumerate(keys):
        cache.write(key, FILE, in_use=set(keys))
        os.utime(tmp_path / f"{key}.safetensors", (at, at))
    assert cache.read(keys[1]) == FILE  # used again
    cache.write(KEY, FILE, in_use={keys[0]})
    assert {path.stem for path in tmp_path.iterdir()} == {KEY, keys[0], keys[1], keys[3]}


def test_the_next_write_replaces_what_a_kill_left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cache = NetworkCache(tmp_path)
    with monkeypatch.context() as killed:
        killed.setattr(Path, "replace", lambda _self, _target: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            cache.write(OTHER_KEY, FILE)
    assert cache.read(OTHER_KEY) is None
    cache.write(KEY, FILE)
    assert only_file(tmp_path).stem == KEY
