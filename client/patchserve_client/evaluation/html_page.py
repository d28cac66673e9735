"""A report as one HTML file that can be mailed: it loads nothing and runs nothing, and its images are inside."""

from __future__ import annotations

import base64
import io
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from PIL import Image

from patchserve_client._plain_text import one_line
from patchserve_client._verdicts import ratio_text
from patchserve_client.evaluation.verdict_pictures import VerdictPicture

_JPEG_QUALITY = 82
_NUMBER = re.compile(r"-|all|[\d.]+( to [\d.]+)?( %)?")
_KIND_WORDS = {"correct": "Correct", "missed": "Missed", "false alarm": "False alarm"}


@dataclass(frozen=True, slots=True)
class Cell:
    """A cell of a table. The detail is below its text, and smaller."""

    text: str
    detail: str = ""

    @property
    def is_number(self) -> bool:
        return _NUMBER.fullmatch(self.text) is not None


@dataclass(frozen=True, slots=True)
class Row:
    """A line of a table. The first cell names the line."""

    cells: Sequence[Cell]
    mark: str = ""  # a class of the style sheet, such as "chosen"

    @classmethod
    def of(cls, *texts: str, mark: str = "") -> Row:
        """A line without details."""
        return cls([Cell(text) for text in texts], mark)


@dataclass(frozen=True, slots=True)
class Table:
    """A table. Numbers are on the right of their columns."""

    caption: str
    titles: Sequence[str]
    rows: Sequence[Row]
    note: str = ""  # below it


@dataclass(frozen=True, slots=True)
class Plot:
    """A plot as PNG, and what it shows for those who cannot see it."""

    png: bytes = field(repr=False)
    text: str

    @property
    def uri(self) -> str:
        return _data_uri("image/png", self.png)


@dataclass(frozen=True, slots=True)
class Page:
    """What a report says, from the top down."""

    title: str
    facts: Sequence[str]  # what was measured, with what
    conclusion: Sequence[str]  # sentences
    command: str  # that does what the conclusion says; empty: none
    tables: Sequence[Table]
    plots: Sequence[Plot]
    pictures_title: str
    pictures: Sequence[VerdictPicture]
    notes: Sequence[str]

    def html(self, written: datetime) -> str:
        """The file. Whatever a name holds, it stays text."""
        environment = Environment(
            loader=PackageLoader("patchserve_client.evaluation"),
            autoescape=True,
            undefined=StrictUndefined,
            finalize=_shown,
            trim_blocks=True,
            lstrip_blocks=True,
        )
        pictures = [_picture(picture) for picture in self.pictures]
        template = environment.get_template("report.html.jinja")
        return template.render(page=self, pictures=pictures, written=f"{written:%Y-%m-%d %H:%M}")


def _shown(value: Any) -> Any:  # noqa: ANN401 - of any expression in the template
    """Every value that the template writes, before it is escaped."""
    return one_line(value) if isinstance(value, str) else value


def _picture(picture: VerdictPicture) -> dict[str, str | int]:
    verdict = picture.verdict
    truth = "intact" if verdict.image.defect is None else f"defective ({verdict.image.defect})"
    return {
        "kind": _KIND_WORDS[verdict.kind],
        "is_wrong": "" if verdict.is_correct else "wrong",
        "ratio": ratio_text(verdict.anomaly),
        "name": verdict.image.name,
        "truth": truth,
        "image": _jpeg_uri(picture.image),
        "overlay": _jpeg_uri(picture.overlay),
        "width": picture.image.width,
        "height": picture.image.height,
        "outline": " The damage is outlined in white." if verdict.image.mask_path else "",
    }


def _jpeg_uri(image: Image.Image) -> str:
    file = io.BytesIO()
    image.save(file, "JPEG", quality=_JPEG_QUALITY)
    return _data_uri("image/jpeg", file.getvalue())


def _data_uri(media_type: str, data: bytes) -> str:
    return f"data:{media_type};base64,{base64.b64encode(data).decode()}"
