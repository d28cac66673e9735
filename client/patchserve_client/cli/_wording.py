"""The words of the contract and of the library, in the words of the shell. Messages are translated where they leave."""

from __future__ import annotations

import re
from typing import Final

_WORDS: Final = {
    "LoadReferenceStream": "`patchserve reference load`",
    "LoadReference": "`patchserve reference load`",
    "ListReferences": "`patchserve reference list`",
    "GetReference": "`patchserve reference show`",
    "DeleteReference": "`patchserve reference delete`",
    "TuneReference": "`patchserve reference tune`",
    "RestoreReference": "`patchserve reference restore`",
    "GetReferenceHistory": "`patchserve reference history`",
    "ExportReference": "`patchserve reference export`",
    "ImportReference": "`patchserve reference import`",
    "GetReferenceImage": "`patchserve reference images`",
    "ListLoads": "`patchserve reference loads`",
    "GetServerInfo": "`patchserve info`",
    "GetServerStats": "`patchserve top`",
    "InferStream": "`patchserve stream`",
    "Infer": "`patchserve infer`",
    "Leave coreset out": "Leave the coreset options out",
    "Leave profile out": "Leave --profile out",
    "Leave input out": "Leave the options of the input size out",
    "another input": "another input size",
    "with REPLACE": "without --append",
    "REPLACE": "a load without --append",
    "APPEND": "--append",
    "DROP_OLDEST": "--drop-oldest",
    "send `authorization: Bearer TOKEN`": "set PATCHSERVE_TOKEN, --token-file or --token",
    "Leave `tls` out": "Leave out --tls, --ca, --cert, --key and their variables",
    "`insecure_token`": "--insecure-token",
    "`timeout_s`": "--timeout",
    "`tls`": "--tls",
    "`TlsConfig.ca_file`": "--ca",
    "`TlsConfig.cert_file`": "--cert",
    "`TlsConfig.key_file`": "--key",
    "approximate_search": "--approximate-search",
    "coreset cannot be": "--coreset-ratio and --coreset-max-patches cannot be",
    "false_alarm_rate": "--false-alarms",
    "frame_timeout": "--timeout",
    "longer_side_px of input": "--input",
    "max_in_flight": "--max-in-flight",
    "max_patches of a coreset": "--coreset-max-patches",
    "max_regions": "--max-regions",
    "overlay_format": "--overlay-format",
    "overlay_max_side_px": "--overlay-max-side",
    "ratio of a coreset": "--coreset-ratio",
    "region_of_interest": "--region",
    "search_radius": "--search-radius",
    "sensitivity": "--sensitivity",
    "tile_overlap of input": "--tile-overlap",
    "tile_px": "--tile-px",
    "tile_px of input": "--tile-px",
    "scales": "--scales",
    "views": "--views",
    "white_level": "--white-level",
}
# What is in quotes is a name and stays. Longer words first: LoadReferenceStream begins with LoadReference.
_PATTERN: Final = re.compile(
    '"[^"]*"|' + "|".join(rf"(?<![\w-]){re.escape(word)}(?![\w-])" for word in sorted(_WORDS, key=len, reverse=True))
)


def in_shell_words(message: str) -> str:
    """The message with the names of commands and options instead of those of calls, fields and arguments."""
    return _PATTERN.sub(lambda match: _WORDS.get(match[0], match[0]), message)
