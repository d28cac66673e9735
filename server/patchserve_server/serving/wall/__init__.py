"""The wall: what the server inspects now, for those who watch it."""

from patchserve_server.serving.wall.kept_images import KeptImage
from patchserve_server.serving.wall.score_history import Score
from patchserve_server.serving.wall.shared_wall import SharedWall
from patchserve_server.serving.wall.tile import Tile
from patchserve_server.serving.wall.wall import Wall, WallLimits, WallSnapshot
from patchserve_server.serving.wall.watcher import ReferenceChange, Watcher, WatcherUpdate

__all__ = [
    "KeptImage",
    "ReferenceChange",
    "Score",
    "SharedWall",
    "Tile",
    "Wall",
    "WallLimits",
    "WallSnapshot",
    "Watcher",
    "WatcherUpdate",
]
