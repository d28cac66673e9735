"""`patchserve reference images --out DIR`."""

from __future__ import annotations

import re
from pathlib import Path, PurePath
from typing import Annotated

import typer

from patchserve_client._counted import counted
from patchserve_client.cli._connection import Settings
from patchserve_client.cli._formats import TEXT, OutputOption, print_results
from patchserve_client.cli._output import print_line, progress
from patchserve_client.cli._paths import NEW_FOLDER

_NOT_IN_NAMES = re.compile(r"[^\w.-]")
_MAX_NAME_LENGTH = 80


def images(
    settings: Settings,
    reference_id: Annotated[str, typer.Argument(metavar="ID", help="Reference whose images to write.")] = "default",
    *,
    out: Annotated[Path, typer.Option("--out", **NEW_FOLDER, metavar="DIR", help="Folder to write them to.")],
    output: OutputOption = TEXT,
) -> None:
    """Write the images of a reference as PNG files, as the backbone saw them: scaled, and gray outside its region.

    The server does not keep the originals. A token needs the scope `manage`.
    """
    files = []
    with settings.client() as client:
        reference = client.get_reference(reference_id)
        out.mkdir(parents=True, exist_ok=True)
        with progress("Writing", reference.image_count) as step:
            for index in range(reference.image_count):
                image = client.reference_image(reference_id, index, expected_revision=reference.revision)
                files.append(out / _file_name(index, reference.image_count, image.name))
                files[-1].write_bytes(image.data)
                step()
    if output is not TEXT:
        facts = {"reference_id": reference_id, "revision": reference.revision}
        records = [{**facts, "file": str(file)} for file in files]
        print_results(output, {**facts, "files": list(map(str, files))}, records)
        return
    print_line(f"Wrote {counted(len(files), 'image')} of {reference_id}, revision {reference.revision[:12]}, to {out}")


def _file_name(index: int, count: int, name: str) -> str:
    """Such as 07_belt.png. A name may have been given by anyone, so only letters and digits of it are kept."""
    stem = _NOT_IN_NAMES.sub("_", PurePath(name).stem)[:_MAX_NAME_LENGTH]
    number = f"{index + 1:0{len(str(count))}}"
    return f"{number}_{stem}.png" if stem else f"{number}.png"
