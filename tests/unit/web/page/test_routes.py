"""The files of the page, as a browser gets them."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any
from urllib.parse import unquote

import pytest
from starlette.applications import Starlette

from patchserve_server.web.page.routes import ASSETS, routes

FACE = Starlette(routes=routes())


@dataclass
class Answer:
    status: int
    headers: dict[str, str]
    body: bytes


async def get(path: str, **headers: str) -> Answer:
    """What the routes answer."""
    sent: list[Any] = []

    async def receive() -> Any:
        return {"type": "http.request"}

    async def send(message: Any) -> None:
        sent.append(message)

    fields = [(name.replace("_", "-").encode(), value.encode()) for name, value in headers.items()]
    raw = {"path": unquote(path), "raw_path": path.encode(), "query_string": b"", "headers": fields}
    await FACE({"type": "http", "method": "GET", **raw}, receive, send)
    start, *rest = sent
    answered = {name.decode(): value.decode() for name, value in start["headers"]}
    return Answer(start["status"], answered, b"".join(message["body"] for message in rest))


@pytest.mark.parametrize("name", sorted(ASSETS))
async def test_each_file_comes_with_its_type_and_a_tag_and_is_asked_for_each_time(name: str) -> None:
    answer = await get(f"/page/{name}")
    assert answer.body == ASSETS[name].data
    kinds = {"js": "text/javascript", "css": "text/css", "svg": "image/svg+xml", "html": "text/html"}
    assert answer.headers["content-type"].startswith(kinds[name.rpartition(".")[2]])
    assert answer.headers["cache-control"] == "no-cache"
    again = await get(f"/page/{name}", if_none_match=f'"other", W/{answer.headers["etag"]}')
    assert (again.status, again.body) == (304, b"")


@pytest.mark.parametrize("path", ["/page/none.js", "/page/..%2froutes.py", "/page/%2e%2e/routes.py", "/page/routes.py"])
async def test_nothing_else_is_served(path: str) -> None:
    assert (await get(path)).status == 404


async def test_the_page_names_only_files_that_are_there_and_nothing_from_elsewhere() -> None:
    page = (await get("/page/")).body.decode()
    named = re.findall(r'(?:src|href)="/page/([^"]+)"', page)
    assert {"app.js", "style.css"} <= set(named) <= set(ASSETS)
    for name, asset in ASSETS.items():
        text = _without_comments(asset.data.decode()).replace("http://www.w3.org/2000/svg", "")  # a name, not a place
        assert not re.search(r"//\w+\.\w+", text), name


@pytest.mark.parametrize("name", sorted(name for name in ASSETS if name.endswith(".js")))
def test_scripts_import_only_files_that_are_there_and_make_no_markup_of_text(name: str) -> None:
    script = ASSETS[name].data.decode()
    imported = re.findall(r'(?:from|import) "\./([^"]+)"', script)
    assert set(imported) <= set(ASSETS)
    assert not re.search(r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\(|new Function", script)


def _without_comments(text: str) -> str:
    return re.sub(r"^\s*(?://|/?\*).*$", "", text, flags=re.MULTILINE)
