"""Load on a fleet from several languages while its servers are replaced, added, removed and started again.

    python -m e2e.rollout --seconds 30

with tests/ on the path does it with three servers, SeaweedFS and Envoy, and prints what each client saw. The clients
have to be built: make clients.
"""

from __future__ import annotations

import argparse
import json
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from conformance.languages import LANGUAGES, Language
from e2e.harness import load
from e2e.replicas import Replicas, replicas
from fakes.images import card, encoded
from fakes.object_servers import seaweedfs_server

SHARED = "shared"  # the reference of all clients; each has another one that it loads itself
END_TIMEOUT_S = 90


@dataclass(frozen=True)
class Outcome:
    """What one client has seen."""

    language: str
    calls: dict[str, dict[str, int]]  # kind -> ok, failed
    failures: list[str]

    @property
    def answered(self) -> int:
        return sum(count["ok"] for count in self.calls.values())

    @property
    def failed(self) -> int:
        return sum(count["failed"] for count in self.calls.values())


@contextmanager
def under_load(fleet: Replicas, folder: Path, languages: Sequence[Language]) -> Iterator[list[Outcome]]:
    """Clients that call all the time through Envoy; what they have seen is in the list when the block has ended."""
    images = folder / "images"
    images.mkdir()
    for seed in range(4):
        (images / f"{seed}.png").write_bytes(encoded(card(seed), "PNG"))
    with fleet.stub() as stub:
        load(stub, SHARED)
    common = ["--server", fleet.address, "--reference", SHARED, "--images", str(images), "--ca", str(fleet.ca_file)]
    running = [subprocess.Popen([*each.soak, *common], stdout=subprocess.PIPE, text=True) for each in languages]
    outcomes: list[Outcome] = []
    try:
        for each in running:
            assert each.stdout is not None
            assert json.loads(each.stdout.readline()) == {"started": True}
        yield outcomes
        for each in running:
            each.send_signal(signal.SIGTERM)
        with ThreadPoolExecutor() as pool:
            outcomes += pool.map(_outcome, running)
    finally:
        for each in running:
            each.kill()
            each.wait()


def _outcome(client: subprocess.Popen[str]) -> Outcome:
    text, _ = client.communicate(timeout=END_TIMEOUT_S)
    assert client.returncode == 0, text
    return Outcome(**json.loads(text))


def changes(fleet: Replicas) -> dict[str, Callable[[], object]]:
    """What is done to a fleet, by name."""

    def start_again() -> None:
        (oldest, *_) = fleet.servers
        assert oldest.stop() == 0, oldest.log
        fleet.start_again(oldest)

    def scale_down() -> None:
        for server in fleet.servers[:2]:
            fleet.remove(server)

    return {
        "rolling update": fleet.roll,
        "scale up by two": lambda: fleet.start(2),
        "scale down by two": scale_down,
        "restart in place": start_again,
    }


def changed(fleet: Replicas, seconds: float) -> Counter[str]:
    """Make the changes one after the other, each once, and again until the time has passed; how often each was made."""
    until_s = time.monotonic() + seconds
    made: Counter[str] = Counter()
    while True:
        for name, make in changes(fleet).items():
            if made[name] and time.monotonic() > until_s:
                return made
            make()
            made[name] += 1


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=30.0)
    parser.add_argument("--servers", type=int, default=3)
    parser.add_argument("--policy", choices=("least-request", "by-reference"), default="least-request")
    names = [each.name for each in LANGUAGES]
    parser.add_argument("--languages", nargs="+", choices=names, default=["python", "node", "go"])
    arguments: Any = parser.parse_args()
    languages = [each for each in LANGUAGES if each.name in arguments.languages]
    if missing := [each.name for each in languages if not each.is_built]:
        sys.exit(f"Not built: {', '.join(missing)}. Run `make clients` first.")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "store").mkdir()
        with (
            seaweedfs_server(folder / "store") as store,
            replicas(
                folder,
                arguments.servers,
                "--client-share",
                "1",  # to a server, all callers behind Envoy have one address
                store_url=store.url("fleet"),
                policy=arguments.policy,
                score_s=0.01,
                variables=store.environment,
            ) as fleet,
            under_load(fleet, folder, languages) as outcomes,
        ):
            made = changed(fleet, arguments.seconds)
    print(", ".join(f"{name}: {count}" for name, count in made.items()))
    for each in outcomes:
        kinds = ", ".join(f"{kind} {count['ok']}" for kind, count in each.calls.items())
        print(f"{each.language}: {each.answered} answered ({kinds}), {each.failed} failed")
        for failure in each.failures:
            print(f"  {failure}")
    sys.exit(any(each.failed for each in outcomes))


if __name__ == "__main__":
    main()
