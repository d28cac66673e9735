"""A link: each request has one answer, whenever the other side has changed its mind."""

from __future__ import annotations

import asyncio

import pytest
from fakes.waiting import settle

from patchserve_server.fronts.frames import Body, Head
from patchserve_server.fronts.link import Link


class Slow:
    """Never answers of itself."""

    async def answer(self, _request: Head, _body: bytes, /) -> tuple[Head, Body]:
        await asyncio.Event().wait()
        raise AssertionError

    def told(self, message: Head, body: bytes) -> None:
        raise AssertionError


@pytest.mark.parametrize("has_begun", [False, True])
async def test_a_cancelled_request_is_answered_once(monkeypatch: pytest.MonkeyPatch, *, has_begun: bool) -> None:
    """What the other side holds for it, such as memory that both share, it holds until then."""
    link, sent = Link(Slow()), list[Head]()
    monkeypatch.setattr(link.connection, "send", lambda head, _body=b"": sent.append(head))
    link.connection._received({"n": 7, "do": "score"}, b"")
    if has_begun:
        await settle()
    link.connection._received({"cancel": 7}, b"")  # in the same turn of the loop, if both have come together
    await settle()
    assert sent == [{"re": 7}]
