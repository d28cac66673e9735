"""How each language's client is started. What isn't built here isn't tested here: `make test-clients` builds."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path

REPO = Path(__file__).resolve().parents[2]


@dataclass(frozen=True)
class Language:
    """`runner` is the command of the conformance runner, `built` a file that is there once the client is built."""

    name: str
    runner: tuple[str, ...]
    built: Path | None = None

    @property
    def is_built(self) -> bool:
        return self.built is None or self.built.exists()


# The others are compared with the first.
LANGUAGES = (Language("python", (sys.executable, "-m", "conformance.python_runner")),)
