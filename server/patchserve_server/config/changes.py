"""What is different after the settings were read again."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from patchserve_server.config.settings import AT_RUN_TIME, Settings
from patchserve_server.config.shown import shown_value, toml_value

RUN_TIME_SETTINGS: Final = frozenset(
    name for name, field in Settings.model_fields.items() if AT_RUN_TIME in field.metadata
)


@dataclass(frozen=True, slots=True)
class Changes:
    """The settings that a server has, and those that it would have after a restart."""

    running: Settings
    read: Settings

    @property
    def result(self) -> Settings:
        """What the server can have without a restart."""
        return with_run_time_settings(self.running, self.read)

    def __str__(self) -> str:
        now, later = [], []
        for name in Settings.model_fields:
            old, new = (_text(getattr(each, name)) for each in (self.running, self.read))
            if old == new:
                continue
            if name in RUN_TIME_SETTINGS:
                now.append(f"{name} is {new} (was {old})")
            else:
                later.append(f"{name} (is {old}, would be {new})")
        text = ", ".join(now) or "nothing has changed"
        return f"{text}. Only a restart changes {', '.join(later)}" if later else text


def _text(value: object) -> str:
    return "not set" if value is None else toml_value(shown_value(value))


def with_run_time_settings(settings: Settings, source: Settings) -> Settings:
    """The settings, with RUN_TIME_SETTINGS of `source`."""
    return settings.model_copy(update={name: getattr(source, name) for name in RUN_TIME_SETTINGS})
