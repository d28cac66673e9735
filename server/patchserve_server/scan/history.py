"""What earlier runs have left in the results: the same scan goes on, another one is refused."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from datetime import UTC, datetime
from importlib.metadata import version
from typing import Any, Final

from patchserve_server.domain.errors import InvalidInputError
from patchserve_server.scan.errors import ScanError
from patchserve_server.scan.options import ScanOptions, encoded
from patchserve_server.scan.plan import OVERLAYS, PLAN, SEGMENTS, VERDICTS
from patchserve_server.scan.references import REFERENCE
from patchserve_server.scan.results import Results

SCAN: Final = "scan.json"
SUMMARY: Final = "summary.json"
_SHORT: Final = 12  # characters of a revision in a message
_OWN: Final = {  # nothing else is ever removed
    VERDICTS: re.compile(rf"{VERDICTS}/part-\d{{6,}}\.parquet"),
    SEGMENTS: re.compile(rf"{SEGMENTS}/\d{{6,}}\.json"),
    OVERLAYS: re.compile(rf"{OVERLAYS}/part-\d{{6,}}/\d{{4}}-[A-Za-z0-9._-]*\.(png|jpg|webp)"),
}


def begin(options: ScanOptions, results: Results) -> None:
    """Write what the scan is. From now on, the results are those of this scan."""
    more = {"version": version("patchserve"), "begin_time": datetime.now(UTC).isoformat()}
    results.write(SCAN, encoded(options, more))


def read_options(results: Results) -> ScanOptions | None:
    """What the scan in the results is; None: there is none.

    Raises:
        ScanError: it was made by another version, or is damaged.
    """
    data = results.read(SCAN)
    if data is None:
        return None
    try:
        return ScanOptions.from_json(json.loads(data))
    except (KeyError, TypeError, ValueError, InvalidInputError) as error:
        message = f"{results.name}/{SCAN} is damaged, or of another version of patchserve. Name other results."
        raise ScanError(message) from error


def forget(results: Results) -> None:
    """Remove what a scan has written; first what says that there is one, so that a kill leaves no half of it."""
    for name in (SCAN, PLAN, SUMMARY, REFERENCE):
        results.remove(name)
    for folder, own in _OWN.items():
        for name in list(results.names(folder)):
            if own.fullmatch(name):
                results.remove(name)


def check_same(begun: ScanOptions, options: ScanOptions, name: str) -> None:
    """Refuse another scan than the one in the results.

    Raises:
        ScanError: with what differs, and what can be done.
    """
    if begun == options:
        return
    restart = "--restart removes what is there and begins again"
    if replace(begun, revision=options.revision) == options:
        was, now, reference_id = begun.revision[:_SHORT], options.revision[:_SHORT], options.reference_id
        raise ScanError(
            f'The results in {name} are verdicts of revision {was} of reference "{reference_id}", which is at {now} '
            f"now. Name other results, to compare both; or go on with the old revision: --reference-file "
            f"{name}/{REFERENCE}; {restart}."
        )
    was_said, is_said = begun.to_json(), options.to_json()
    differences = ", ".join(
        f"{_word(key)} {_text(was_said[key])}, not {_text(is_said[key])}"
        for key in was_said
        if was_said[key] != is_said[key]
    )
    raise ScanError(
        f"The scan in {name} was begun with {differences}. Say the same to go on, or name other results; {restart}."
    )


def _word(key: str) -> str:
    """The option of the command line."""
    words = {"source": "SOURCE", "reference_id": "--reference", "overlay_max_side_px": "--overlay-max-side"}
    return words.get(key, f"--{key.replace('_', '-')}")


def _text(value: Any) -> str:  # noqa: ANN401 - any value of the options
    return "unset" if value is None else str(value)
