"""An extension of Griffe: the comment after a field, such as `score: float  # 0 to 1`, is its description."""

from __future__ import annotations

from typing import Any

import griffe


class FieldComments(griffe.Extension):
    """Gives attributes without a docstring the comment on their line."""

    def on_attribute_instance(self, *, attr: griffe.Attribute, **_others: Any) -> None:  # noqa: ANN401 - others' arguments
        if attr.docstring is None and attr.lineno and attr.lineno == attr.endlineno:
            line = attr.lines_collection[attr.filepath][attr.lineno - 1]  # type: ignore[index] # a file, no folder
            _, mark, comment = line.partition("  # ")
            if mark and not comment.startswith("noqa"):
                attr.docstring = griffe.Docstring(comment[0].upper() + comment[1:] + ".", parent=attr)
