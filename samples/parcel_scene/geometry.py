"""The box as a mesh in space, and the camera.

World: millimeters, x to the right along the conveyor, y away from the camera, z up, the top of the rollers at z = 0.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, fields

import numpy as np

from parcel_scene.noise import Array
from parcel_scene.sheet import HEIGHT_MM, LENGTH_MM, WIDTH_MM

CELL_MM = 2.5
Deformation = Callable[[Array], Array]
"""Rest positions (..., 3) on a box that stands centered on the origin -> displacements (..., 3), all in mm."""


@dataclass(frozen=True)
class Mesh:
    """Triangles of the visible sides, and attributes of their vertices."""

    triangles: Array  # (T, 3) indices
    position: Array  # (V, 3) world, mm
    normal: Array  # (V, 3)
    along_x: Array  # (V, 3) the world direction of the sheet's x
    along_y: Array  # (V, 3) the world direction of the sheet's y
    sheet_mm: Array  # (V, 2)
    bend: Array  # (V,) mm above (+) or below (-) the mean of the neighbors
    moved_mm: Array  # (V,) displacement by damage


@dataclass(frozen=True)
class _Side:
    """The place of a side on the sheet, and in space before the box is turned."""

    sheet_origin: tuple[float, float]
    sheet_size: tuple[float, float]
    origin: tuple[float, float, float]
    x_axis: tuple[int, int, int]  # per mm of the sheet's x
    y_axis: tuple[int, int, int]


_L, _W, _H = LENGTH_MM, WIDTH_MM, HEIGHT_MM
_SIDES = (
    _Side((0, 0), (_L, _W), (-_L / 2, _W / 2, _H), (1, 0, 0), (0, -1, 0)),  # top
    _Side((0, _W), (_L, _H), (-_L / 2, -_W / 2, _H), (1, 0, 0), (0, 0, -1)),  # front
    _Side((_L, 0), (_H, _W), (_L / 2, _W / 2, _H), (0, 0, -1), (0, -1, 0)),  # right
)


def box_mesh(yaw_deg: float, place_mm: tuple[float, float], wear: Deformation, damage: Deformation | None) -> Mesh:
    """The top, front and right side as a fine grid, deformed and placed on the conveyor."""
    turn = _rotation(yaw_deg)
    sides = [_mesh(side, turn, np.array((*place_mm, 0.0)), wear, damage) for side in _SIDES]
    offsets = np.cumsum([0] + [len(side.position) for side in sides[:-1]])
    merged = {field.name: np.concatenate([getattr(side, field.name) for side in sides]) for field in fields(Mesh)}
    merged["triangles"] = np.concatenate([side.triangles + n for side, n in zip(sides, offsets, strict=True)])
    return Mesh(**merged)


def _mesh(side: _Side, turn: Array, place: Array, wear: Deformation, damage: Deformation | None) -> Mesh:
    columns, rows = (round(size / CELL_MM) + 1 for size in side.sheet_size)
    u, v = np.meshgrid(np.linspace(0, side.sheet_size[0], columns), np.linspace(0, side.sheet_size[1], rows))
    rest = np.array(side.origin) + u[..., None] * np.array(side.x_axis) + v[..., None] * np.array(side.y_axis)
    bulge_mm = 2.0 * np.sin(np.pi * u / side.sheet_size[0]) * np.sin(np.pi * v / side.sheet_size[1])
    moved = damage(rest) if damage else np.zeros_like(rest)
    points = rest + bulge_mm[..., None] * np.cross(side.y_axis, side.x_axis) + wear(rest) + moved
    points = points @ turn.T + place
    along_x, along_y = _unit(np.gradient(points, axis=1)), _unit(np.gradient(points, axis=0))
    normal = _unit(np.cross(along_y, along_x))
    return Mesh(
        triangles=_grid_triangles(rows, columns),
        position=points.reshape(-1, 3),
        normal=normal.reshape(-1, 3),
        along_x=along_x.reshape(-1, 3),
        along_y=along_y.reshape(-1, 3),
        sheet_mm=(np.stack([u, v], -1) + np.array(side.sheet_origin)).reshape(-1, 2),
        bend=_bend(points, normal).ravel(),
        moved_mm=np.linalg.norm(moved, axis=-1).ravel(),
    )


def _grid_triangles(rows: int, columns: int) -> Array:
    """Two triangles per cell of a grid of vertices, clockwise as seen from outside: (T, 3)."""
    index = np.arange(rows * columns).reshape(rows, columns)
    a, b, c, d = index[:-1, :-1], index[:-1, 1:], index[1:, 1:], index[1:, :-1]
    return np.concatenate([np.stack([a, b, c], -1).reshape(-1, 3), np.stack([a, c, d], -1).reshape(-1, 3)])


def _bend(points: Array, normal: Array) -> Array:
    """The height of each point of a grid (R, C, 3) above the mean of its neighbors, in mm: (R, C)."""
    padded = np.pad(points, ((1, 1), (1, 1), (0, 0)), mode="reflect", reflect_type="odd")
    neighbors = (padded[:-2, 1:-1] + padded[2:, 1:-1] + padded[1:-1, :-2] + padded[1:-1, 2:]) / 4
    return ((points - neighbors) * normal).sum(axis=-1)


def handling_wear(rng: np.random.Generator) -> Deformation:
    """Normal wear: edges that are not quite straight, and slightly blunt corners."""
    waves = [(rng.normal(0, 1 / 45, 3), rng.uniform(0, 2 * np.pi), rng.normal(0, 0.3, 3)) for _ in range(6)]
    corner = np.array((LENGTH_MM, WIDTH_MM, HEIGHT_MM)) / 2
    blunt_mm = rng.uniform(1.0, 3.5, (2, 2, 2))

    def displace(rest: Array) -> Array:
        moved = sum(np.sin(rest @ frequency + phase)[..., None] * push for frequency, phase, push in waves)
        middle = rest - (0, 0, HEIGHT_MM / 2)
        to_corner = np.linalg.norm(np.abs(middle) - corner, axis=-1)
        mm = blunt_mm[tuple((middle > 0).astype(int)[..., axis] for axis in range(3))]
        return moved - (mm * np.exp(-to_corner / 7))[..., None] * np.sign(middle) / math.sqrt(3)

    return displace


def _rotation(yaw_deg: float) -> Array:
    c, s = math.cos(math.radians(yaw_deg)), math.sin(math.radians(yaw_deg))
    return np.array([[c, -s, 0], [s, c, 0], [0, 0, 1]])


def _unit(vectors: Array) -> Array:
    return vectors / np.maximum(np.linalg.norm(vectors, axis=-1, keepdims=True), 1e-9)


@dataclass(frozen=True)
class Camera:
    """A pinhole above the conveyor."""

    position: tuple[float, float, float]
    target: tuple[float, float, float]
    focal_px: float
    width_px: int
    height_px: int

    def axes(self) -> Array:
        """Right, down and forward as rows (3, 3)."""
        forward = _unit(np.subtract(self.target, self.position))
        right = _unit(np.cross(forward, (0, 0, 1)))
        return np.stack([right, np.cross(forward, right), forward])

    def project(self, points: Array) -> Array:
        """World points (N, 3) to pixels and depth (N, 3)."""
        in_camera = (points - np.array(self.position)) @ self.axes().T
        scale = self.focal_px / in_camera[:, 2]
        center = np.array((self.width_px, self.height_px)) / 2
        return np.column_stack([in_camera[:, :2] * scale[:, None] + center, in_camera[:, 2]])

    def plane_points(self) -> Array:
        """The points where the rays of the pixels meet the plane z = 0: world x and y (H, W, 2)."""
        x, y = np.meshgrid(np.arange(self.width_px) + 0.5, np.arange(self.height_px) + 0.5)
        rays = (
            np.stack([x - self.width_px / 2, y - self.height_px / 2, np.full_like(x, self.focal_px)], -1) @ self.axes()
        )
        reach = -self.position[2] / rays[..., 2]
        return np.array(self.position[:2]) + rays[..., :2] * reach[..., None]
