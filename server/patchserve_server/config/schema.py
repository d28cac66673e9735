"""The JSON Schema of the TOML file, for editors."""

from __future__ import annotations

from typing import Any, Final

from patchserve_server.config.settings import Settings

_DIALECT: Final = "https://json-schema.org/draft/2020-12/schema"


def file_schema() -> dict[str, Any]:
    """What a file may contain: every setting with its type, bounds, default and description."""
    schema = Settings.model_json_schema()
    properties = {name: _without_null(each) for name, each in schema["properties"].items()}
    return {
        "$schema": _DIALECT,
        "title": "Settings of patchserve-server",
        "type": "object",
        "properties": properties,
        "additionalProperties": False,
    }


def _without_null(schema: dict[str, Any]) -> dict[str, Any]:
    """The same without what TOML does not have: a setting that is not set is left out."""
    kept = {key: value for key, value in schema.items() if key not in ("anyOf", "title") and value is not None}
    kept["description"] = " ".join(schema["description"].split())
    alternatives = [each for each in schema.get("anyOf", ()) if each != {"type": "null"}]
    if len(alternatives) == 1:
        return {**alternatives[0], **kept}
    return {"anyOf": alternatives, **kept} if alternatives else kept
