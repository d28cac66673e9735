"""What changes when the settings are read again, and what does not."""

from __future__ import annotations

from patchserve_server.config import Settings
from patchserve_server.config.changes import RUN_TIME_SETTINGS, Changes
from patchserve_server.config.shown import shown_value, toml_value


def test_only_what_may_change_at_run_time_changes_and_both_are_said() -> None:
    running = Settings(threads=2)
    changes = Changes(running, Settings(threads=3, log_level="debug", max_pending_images=32, store="/x"))
    assert changes.result == Settings(threads=2, log_level="debug", max_pending_images=32)
    assert str(changes) == (
        'max_pending_images is 32 (was 64), log_level is "debug" (was "info"). '
        'Only a restart changes store (is not set, would be "/x"), threads (is 2, would be 3)'
    )
    assert str(Changes(running, running)) == "nothing has changed"


def test_what_may_change_at_run_time_are_limits_and_times_but_no_place() -> None:
    assert {"log_level", "max_pending_images", "default_timeout_s", "drain_grace_s"} <= RUN_TIME_SETTINGS
    assert not RUN_TIME_SETTINGS & {"host", "port", "store", "backbone", "threads", "max_calls", "auth_tokens"}


def test_a_secret_in_a_url_is_not_shown() -> None:
    assert shown_value("https://line:secret@host.example/x") == "https://***@host.example/x"
    assert shown_value("https://line:p@ss@host.example/x@y") == "https://***@host.example/x@y"
    assert toml_value('a\x7f"\n') == '"a\\u007f\\"\\n"'
