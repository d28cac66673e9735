"""Fronts that reach each other without an engine between them."""

from __future__ import annotations

from patchserve_server.serving.peers import Answer, Peers, Question


class Switchboard:
    """Connects the peers of several fronts of this process."""

    def __init__(self) -> None:
        self._all: list[Peers] = []
        self.told: list[tuple[str, bytes]] = []

    def front(self) -> Peers:
        """The peers of one more front."""
        peers = Peers()
        self._all.append(peers)
        peers.line = _Line(self, peers)
        return peers

    def others(self, asking: Peers) -> list[Peers]:
        return [peers for peers in self._all if peers is not asking and peers.line is not None]

    def leave(self, peers: Peers) -> None:
        """It has ended, and does not say so."""
        peers.line = None


class _Line:
    def __init__(self, switchboard: Switchboard, peers: Peers) -> None:
        self._switchboard = switchboard
        self._peers = peers

    async def ask_others(self, name: str, question: Question) -> list[Answer]:
        return [await peers.answer(name, question) for peers in self._switchboard.others(self._peers)]

    def tell_others(self, name: str, body: bytes) -> None:
        self._switchboard.told.append((name, body))
        for peers in self._switchboard.others(self._peers):
            peers.hear(name, body)
