"""What is measured, and how large."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Self


@dataclass(frozen=True)
class Scale:
    """How much work the cases have. On a CPU they only show that the program works."""

    batches: tuple[int, ...] = (1, 8, 32, 64)
    batch: int = 32  # of cases that compare something else
    rows: tuple[int, int, int] = (784, 7_840, 75_000)
    sides_px: tuple[int, ...] = (320, 448)
    mixed: int = 8  # references
    mixed_too: tuple[int, ...] = (2, 32)  # of the engine alone
    caller_processes: int = 4
    callers: int = 32  # of each process
    warm_up_s: float = 2.0  # of a server, by its callers


SMALL = Scale(
    batches=(1, 4),
    batch=4,
    rows=(784, 1_568, 3_136),
    sides_px=(256,),
    mixed=2,
    mixed_too=(4,),
    caller_processes=2,
    callers=2,
    warm_up_s=2.0,
)


@dataclass(frozen=True)
class Options:
    """Of one part of the benchmark."""

    part: str
    folder: str  # with what parts share: weights, images
    device: str
    precision: str
    seconds: float  # of each case, if there is enough time
    fronts: str  # a number, or auto
    backbone: str
    bare_per_s: float = 0.0  # of the network alone in batches of `scale.batch`; 0: not known
    scale: Scale = field(default_factory=Scale)

    @property
    def is_trial(self) -> bool:
        """Whether the engine of a GPU runs on the CPU."""
        return self.device == "cpu"

    def weights(self, backbone: str) -> Path:
        """A file of random weights."""
        return Path(self.folder) / f"{backbone}.safetensors"

    @property
    def images(self) -> Path:
        """The folder of the JPEG files that callers send."""
        return Path(self.folder) / "sent"

    @property
    def server_log(self) -> Path:
        """Of the server of this part, if it starts one."""
        return Path(self.folder) / f"{self.part.replace(' ', '-')}.log"

    def learned(self, found: dict[str, object]) -> Self:
        """With what an earlier part has found."""
        known = {name: found[name] for name in ("precision", "bare_per_s") if name in found}
        return replace(self, **known)  # type: ignore[arg-type]

    def to_json(self) -> str:
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> Self:
        values = json.loads(text)
        scale: dict[str, Any] = values.pop("scale")
        sizes: dict[str, Any] = {
            name: tuple(value) if isinstance(value, list) else value for name, value in scale.items()
        }
        return cls(**values, scale=Scale(**sizes))
