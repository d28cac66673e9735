"""Serves the files of the page. They need no token: the page asks for one."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

_ASSETS: Final = Path(__file__).parent / "assets"
_MEDIA_TYPES: Final = {
    ".css": "text/css; charset=utf-8",
    ".html": "text/html; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
}


@dataclass(frozen=True, slots=True)
class Asset:
    """A file of the page.

    Args:
        data: its bytes.
        media_type: with the character set of a text.
        etag: of its content. (A time would not do: all files of a wheel have the same.)
    """

    data: bytes
    media_type: str
    etag: str

    def response(self, request: Request) -> Response:
        """The file; no body if the browser has it already. Browsers ask each time, so an update shows at once."""
        headers = {"cache-control": "no-cache", "etag": self.etag}
        known = [tag.strip().removeprefix("W/") for tag in request.headers.get("if-none-match", "").split(",")]
        if self.etag in known:
            return Response(status_code=304, headers=headers)
        return Response(self.data, headers=headers, media_type=self.media_type)


def _read_assets() -> dict[str, Asset]:
    assets = {}
    for path in sorted(_ASSETS.iterdir()):
        data = path.read_bytes()
        etag = f'"{hashlib.sha256(data).hexdigest()[:32]}"'
        assets[path.name] = Asset(data, _MEDIA_TYPES[path.suffix], etag)
    return assets


ASSETS: Final = _read_assets()
"""All files of the page, by name."""


def page_response(request: Request) -> Response:
    """The page itself."""
    return ASSETS["index.html"].response(request)


def routes() -> list[Route]:
    async def asset(request: Request) -> Response:
        found = ASSETS.get(request.path_params["name"])
        if found is None:
            raise HTTPException(404)
        return found.response(request)

    async def page(request: Request) -> Response:
        return page_response(request)

    return [Route("/page/", page), Route("/page/{name}", asset)]
