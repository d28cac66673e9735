"""The settings, and where they come from: flags, PATCHSERVE_* variables, a TOML file, defaults."""

from patchserve_server.config.problems import ConfigurationError, Problem
from patchserve_server.config.reading import Configuration, Origin, read_configuration
from patchserve_server.config.settings import MAX_FRONTS, Settings, user_path, words_of

__all__ = [
    "MAX_FRONTS",
    "Configuration",
    "ConfigurationError",
    "Origin",
    "Problem",
    "Settings",
    "read_configuration",
    "user_path",
    "words_of",
]
