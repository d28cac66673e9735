"""Downloads: once, with progress, checked, and with a reason when they fail."""

from __future__ import annotations

import hashlib
import http.server
import io
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from safetensors.torch import save

from patchserve_server.engine.backbone import downloads
from patchserve_server.engine.backbone.downloads import (
    DownloadError,
    download_file,
    download_from_hub,
    download_weights,
    downloaded,
    downloaded_from_hub,
)

STATE = {"conv.weight": torch.arange(4096.0)}
REPOSITORY = "owner/network"


def saved() -> bytes:
    file = io.BytesIO()
    torch.save(STATE, file)
    return file.getvalue()


class DownloadHandler(http.server.BaseHTTPRequestHandler):
    """Serves one file: complete, cut short, with an error, or never. A HEAD gets a redirect, as from the Hub."""

    content = saved()
    stated_sha256 = ""
    behavior = "complete"
    requests = 0
    release = threading.Event()

    def do_GET(self) -> None:
        type(self).requests += 1
        if self.behavior == "silent":
            self.release.wait(30)
            return
        if self.behavior == "error":
            self.send_error(503)
            return
        self.send_response(200)
        self.send_header("Content-Length", str(len(self.content)))
        self.end_headers()
        self.wfile.write(self.content[: 1000 if self.behavior == "cut" else None])

    def do_HEAD(self) -> None:
        type(self).requests += 1
        self.send_response(302)
        self.send_header("Location", "https://elsewhere.example.com/file")
        self.send_header("X-Linked-ETag", f'"{self.stated_sha256}"')
        self.end_headers()

    def log_message(self, *args: object) -> None:
        pass


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[str, Path]]:
    """The URL of a file with its checksum in its name, and the folder of torch's downloads."""
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setattr(DownloadHandler, "requests", 0)
    monkeypatch.setattr(DownloadHandler, "release", threading.Event())
    checksum = hashlib.sha256(DownloadHandler.content).hexdigest()[:8]
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), DownloadHandler) as served:
        thread = threading.Thread(target=served.serve_forever, args=(0.05,))
        thread.start()
        yield f"http://127.0.0.1:{served.server_port}/toy-{checksum}.pth", tmp_path / "hub" / "checkpoints"
        DownloadHandler.release.set()
        served.shutdown()
        thread.join()


def test_a_file_is_downloaded_once(server: tuple[str, Path], capsys: pytest.CaptureFixture[str]) -> None:
    url, cache = server
    assert downloaded(url) is None
    first, again = (download_weights(url, "somewhere") for _ in range(2))
    assert DownloadHandler.requests == 1
    assert first.source == "somewhere"
    assert all(torch.equal(each.state["conv.weight"], STATE["conv.weight"]) for each in (first, again))
    output = capsys.readouterr()
    assert "Downloading" in output.err
    assert "100" in output.err
    assert output.out == ""
    assert [downloaded(url)] == list(cache.iterdir())


@pytest.mark.parametrize(
    ("behavior", "message"), [("cut", "damaged"), ("error", "answered 503"), ("silent", "timed out")]
)
def test_a_failed_download_leaves_nothing(
    server: tuple[str, Path], monkeypatch: pytest.MonkeyPatch, behavior: str, message: str
) -> None:
    url, cache = server
    monkeypatch.setattr(DownloadHandler, "behavior", behavior)
    monkeypatch.setattr(downloads, "_TIMEOUT_S", 0.3)
    with pytest.raises(DownloadError, match=message):
        download_weights(url, "somewhere")
    assert list(cache.iterdir()) == []


def test_a_download_with_another_checksum_is_rejected(server: tuple[str, Path]) -> None:
    url, cache = server
    with pytest.raises(DownloadError, match="damaged"):
        download_weights(url.replace("toy-", "toy-0"), "somewhere")
    assert list(cache.iterdir()) == []


def test_a_damaged_file_in_the_cache_is_reported(server: tuple[str, Path]) -> None:
    url, cache = server
    cache.mkdir(parents=True)
    (cache / url.rpartition("/")[2]).write_bytes(DownloadHandler.content[:1000])
    with pytest.raises(DownloadError, match="TORCH_HOME"):
        download_weights(url, "somewhere")


def test_a_server_that_does_not_answer_is_reported(server: tuple[str, Path]) -> None:
    with pytest.raises(DownloadError, match="cannot reach the download server"):
        download_weights("http://127.0.0.1:9/toy-00000000.pth", "somewhere")


def sha256_of(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def test_a_file_with_a_known_checksum_is_downloaded_once(server: tuple[str, Path]) -> None:
    url, cache = server
    sha256 = sha256_of(DownloadHandler.content)
    assert downloaded(url, sha256) is None
    first, again = (download_file(url, sha256, "somewhere") for _ in range(2))
    assert DownloadHandler.requests == 1
    assert torch.equal(first.state["conv.weight"], again.state["conv.weight"])
    assert [path.name for path in cache.iterdir()] == [f"{Path(url).stem}-{sha256[:8]}.pth"]
    assert [downloaded(url, sha256)] == list(cache.iterdir())


def test_a_file_with_another_checksum_is_rejected(server: tuple[str, Path]) -> None:
    url, cache = server
    with pytest.raises(DownloadError, match="damaged"):
        download_file(url, "0" * 64, "somewhere")
    assert list(cache.iterdir()) == []


@pytest.fixture
def hub(server: tuple[str, Path], monkeypatch: pytest.MonkeyPatch) -> Path:
    """A Hub that states the checksum of its file; the folder of torch's downloads."""
    url, cache = server
    monkeypatch.setattr(DownloadHandler, "content", save(STATE))
    monkeypatch.setattr(DownloadHandler, "stated_sha256", sha256_of(save(STATE)))
    monkeypatch.setenv("HF_ENDPOINT", url.rpartition("/")[0])
    return cache


def test_a_file_of_the_hub_is_checked_and_downloaded_once(hub: Path) -> None:
    assert downloaded_from_hub(REPOSITORY) is None
    first, again = (download_from_hub(REPOSITORY) for _ in range(2))
    assert DownloadHandler.requests == 2  # one for the checksum, one for the file
    assert first.source == "owner/network of the Hub"
    assert all(torch.equal(each.state["conv.weight"], STATE["conv.weight"]) for each in (first, again))
    assert [downloaded_from_hub(REPOSITORY)] == list(hub.iterdir())


@pytest.mark.parametrize(
    ("stated", "message"), [("", "states no SHA-256"), ("weak", "states no SHA-256"), ("0" * 64, "damaged")]
)
def test_a_file_of_the_hub_without_a_true_checksum_is_rejected(
    hub: Path, monkeypatch: pytest.MonkeyPatch, stated: str, message: str
) -> None:
    monkeypatch.setattr(DownloadHandler, "stated_sha256", stated)
    with pytest.raises(DownloadError, match=message):
        download_from_hub(REPOSITORY)
    assert not list(hub.glob("*"))


def test_a_damaged_file_of_the_hub_in_the_cache_is_named(hub: Path) -> None:
    download_from_hub(REPOSITORY)
    (path,) = hub.iterdir()
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(DownloadError, match=f"{path.name} in torch's cache"):
        download_from_hub(REPOSITORY)


def test_a_repository_whose_name_begins_alike_does_not_stand_in(hub: Path) -> None:
    hub.mkdir(parents=True)
    other = hub / f"{REPOSITORY.replace('/', '--')}-large-01234567.safetensors"
    other.write_bytes(b"weights of another network")
    download_from_hub(REPOSITORY)
    assert len(list(hub.iterdir())) == 2
