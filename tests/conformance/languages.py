"""How to start the client of each language. A client that is not built is skipped; `make clients` builds all."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path

REPO = Path(__file__).resolve().parents[2]


CLIENT = REPO / "client"


@dataclass(frozen=True)
class Language:
    """`runner` is the command of the conformance runner, `built` a file that is there once the client is built.

    `soak` is the command of its load generator. `command` is its command line, with load, infer and stream; None: it is
    tested elsewhere.
    """

    name: str
    runner: tuple[str, ...]
    soak: tuple[str, ...]
    built: Path | None = None
    command: tuple[str, ...] | None = None

    @property
    def is_built(self) -> bool:
        return self.built is None or self.built.exists()


def compiled(name: str, built: Path, *command: str) -> Language:
    """A client whose command line has the commands `conformance` and `soak`."""
    return Language(name, (*command, "conformance"), (*command, "soak"), built, command)


NODE = CLIENT / "node/dist/cli.js"
GO = CLIENT / "go/build/patchserve-go"
JAVA = CLIENT / "java/build/patchserve-java.jar"
CPP = CLIENT / "cpp/build/patchserve-cpp"

JAVA_COMMAND = ("java", "-XX:TieredStopAtLevel=1", "-XX:+UseSerialGC")  # they make short runs faster

# The others are compared with the first.
LANGUAGES = (
    Language(
        "python",
        (sys.executable, "-m", "conformance.python_runner"),
        (sys.executable, str(Path(__file__).with_name("python_soak.py"))),
    ),
    compiled("node", NODE, "node", str(NODE)),
    compiled("go", GO, str(GO)),
    compiled("java", JAVA, *JAVA_COMMAND, "-jar", str(JAVA)),
    compiled("cpp", CPP, str(CPP)),
)
