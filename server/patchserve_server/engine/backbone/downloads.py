"""Downloads weights once, into torch's cache (TORCH_HOME), and checks them. Their code is never run."""

from __future__ import annotations

import contextlib
import os
import re
import socket
import sys
from collections.abc import Iterator
from http.client import HTTPException
from pathlib import Path
from urllib.error import HTTPError, URLError
from urllib.parse import urlsplit
from urllib.request import HTTPRedirectHandler, Request, build_opener

import torch

from patchserve_server.domain.errors import StartupError
from patchserve_server.engine.backbone.weights import FORMAT_ERRORS, Weights, read_weights

_TIMEOUT_S = 10.0  # for each connection or read, so that a start without a network fails soon
_HUB = "https://huggingface.co"
_REDIRECTS = (301, 302, 303, 307, 308)
_SHA256 = re.compile(r"[0-9a-f]{64}")
_SHORT_SHA256 = 8 * "[0-9a-f]"  # as a pattern: the name of another repository may begin like this one


class DownloadError(Exception):
    """Weights could not be downloaded. The message is the reason, as part of a sentence."""


def downloaded(url: str, sha256: str = "") -> Path | None:
    """The file of `download_weights`, or with a SHA-256 that of `download_file`, if it is in the cache."""
    cached = _cached(url, sha256)
    return cached if cached.exists() else None


def downloaded_from_hub(repository: str) -> Path | None:
    """The file of `download_from_hub`, if it is in the cache."""
    found = sorted(_cache().glob(f"{repository.replace('/', '--')}-{_SHORT_SHA256}.safetensors"))
    return found[0] if found else None


def download_weights(url: str, source: str) -> Weights:
    """The weights at a URL whose file name has the start of their SHA-256, as those of torchvision have.

    Raises:
        DownloadError: the download failed, or the file in the cache is damaged.
    """
    with _download():
        state = torch.hub.load_state_dict_from_url(
            url, map_location="cpu", progress=True, check_hash=True, weights_only=True
        )
    return Weights(state, source)


def download_file(url: str, sha256: str, source: str) -> Weights:
    """The weights at a URL with this SHA-256 (hexadecimal). The name in the cache has its start.

    Raises:
        DownloadError: the download failed, or the file in the cache is damaged.
    """
    cached = _cached(url, sha256)
    if not cached.exists():
        with _download():
            _save(url, sha256, cached)
    return _read_cached(cached, source)


def download_from_hub(repository: str) -> Weights:
    """The weights `model.safetensors` of a repository of the Hugging Face Hub (or of the one that HF_ENDPOINT names).

    The SHA-256 is the one that the Hub states for the file.

    Raises:
        DownloadError: the download failed, or the file in the cache is damaged.
    """
    source, name = f"{repository} of the Hub", repository.replace("/", "--")
    if (found := downloaded_from_hub(repository)) is not None:
        return _read_cached(found, source)
    url = f"{os.environ.get('HF_ENDPOINT', _HUB)}/{repository}/resolve/main/model.safetensors"
    with _download():
        sha256 = _stated_sha256(url)
        cached = _cache() / f"{name}-{sha256[:8]}.safetensors"
        _save(url, sha256, cached)
    return _read_cached(cached, source)


def _save(url: str, sha256: str, path: Path) -> None:
    """Download a file with progress. It appears complete and checked, or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    torch.hub.download_url_to_file(url, str(path), hash_prefix=sha256, progress=True)


def _cached(url: str, sha256: str) -> Path:
    name = Path(urlsplit(url).path)
    return _cache() / (f"{name.stem}-{sha256[:8]}{name.suffix}" if sha256 else name.name)


def _cache() -> Path:
    return Path(torch.hub.get_dir()) / "checkpoints"


def _stated_sha256(url: str) -> str:
    """The SHA-256 of a large file of the Hub, which the redirect to its place states."""
    request = Request(url, method="HEAD")  # noqa: S310 - https, or what HF_ENDPOINT names
    try:
        with build_opener(_NoRedirects).open(request, timeout=_TIMEOUT_S) as answer:
            headers = answer.headers
    except HTTPError as error:
        if error.code not in _REDIRECTS:
            raise
        headers = error.headers
    stated: str = headers.get("X-Linked-ETag", "").strip('"')
    if not _SHA256.fullmatch(stated):
        raise DownloadError("the download server states no SHA-256 of the file")
    return stated


class _NoRedirects(HTTPRedirectHandler):
    def redirect_request(self, *_: object) -> None:
        """Follow no redirect: it becomes an HTTPError."""


def _read_cached(path: Path, source: str) -> Weights:
    try:
        return Weights(read_weights(path).state, source)
    except StartupError as error:
        raise DownloadError(f"{path.name} in torch's cache (TORCH_HOME) is damaged: remove it") from error


@contextlib.contextmanager
def _download() -> Iterator[None]:
    """Limit the connections that torch opens, keep its progress off the standard output, and name failures.

    torch sets no timeout of its own, but uses the process-wide default. The standard output is for the server only.

    Raises:
        DownloadError: anything that a download fails with.
    """
    default_s = socket.getdefaulttimeout()
    socket.setdefaulttimeout(_TIMEOUT_S)
    try:
        with contextlib.redirect_stdout(sys.stderr):
            yield
    except HTTPError as error:
        raise DownloadError(f"the download server answered {error.code} {error.reason}") from error
    except URLError as error:
        raise DownloadError(f"cannot reach the download server: {error.reason}") from error
    except HTTPException as error:
        raise DownloadError(f"the download server broke off: {type(error).__name__}") from error
    except OSError as error:
        raise DownloadError(error.strerror or str(error) or type(error).__name__) from error
    except FORMAT_ERRORS as error:
        raise DownloadError("the download or its copy in torch's cache (TORCH_HOME) is damaged") from error
    finally:
        socket.setdefaulttimeout(default_s)
