"""Where there is no wheel of Ray, these tests are not for."""

from importlib.util import find_spec

collect_ignore_glob = [] if find_spec("ray") else ["test_*.py"]
