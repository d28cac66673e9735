"""The background of every image: steel rollers, their rail, and the floor. None of it moves."""

import math
from dataclasses import dataclass

import cv2
import numpy as np

from parcel_scene.noise import Array, fractal, smoothstep

PX_PER_MM = 1.5
PITCH_MM, RADIUS_MM = 78.0, 30.0
RAIL_MM, RAIL_WIDTH_MM = 258.0, 52.0
LEFT_MM, RIGHT_MM, NEAR_MM, FAR_MM = -620.0, 720.0, -360.0, 860.0
SHAPE = (int((FAR_MM - NEAR_MM) * PX_PER_MM), int((RIGHT_MM - LEFT_MM) * PX_PER_MM))


@dataclass(frozen=True)
class Plane:
    """The conveyor seen from straight above."""

    albedo: Array  # (H, W, 3) linear
    gloss: Array  # (H, W)
    tilt: Array  # (H, W) the x component of the surface normal on a roller


def conveyor(rng: np.random.Generator) -> Plane:
    """Rollers across the direction of travel, a rail along it, and the floor of the hall behind the rail."""
    x = LEFT_MM + (np.arange(SHAPE[1], dtype=np.float32) + 0.5) / PX_PER_MM
    y = FAR_MM - (np.arange(SHAPE[0], dtype=np.float32)[:, None] + 0.5) / PX_PER_MM
    x, y = np.broadcast_to(x, SHAPE), np.broadcast_to(y, SHAPE)
    round_mm = (x + PITCH_MM / 2) % PITCH_MM - PITCH_MM / 2
    tilt = np.clip(round_mm / RADIUS_MM, -1, 1)
    worn = cv2.resize(fractal(rng, (SHAPE[0] // 30, SHAPE[1]), 7, 3), (SHAPE[1], SHAPE[0]))
    steel = (0.23 + 0.020 * worn + 0.015 * fractal(rng, SHAPE, 68, 4))[..., None] * np.asarray(
        (0.96, 0.99, 1.02), np.float32
    )
    solid = smoothstep(1.0, 0.955, np.abs(round_mm / RADIUS_MM))
    color = steel * solid[..., None] + 0.012 * (1 - solid[..., None])
    gloss = 0.75 * solid
    across = y - RAIL_MM
    under = smoothstep(-4, 2, across)  # the ends of the rollers are below the rail
    rail, shine = _rail(rng, across)
    color += (rail - color) * under[..., None]
    gloss += (shine - gloss) * under
    tilt = np.where(across > -1, 0, tilt)
    beyond = smoothstep(RAIL_WIDTH_MM, RAIL_WIDTH_MM + 3, across)
    color += (_floor(rng, x, y) - color) * beyond[..., None]
    return Plane(color.astype(np.float32), (gloss * (1 - beyond)).astype(np.float32), tilt.astype(np.float32))


def _rail(rng: np.random.Generator, across: Array) -> tuple[Array, Array]:
    """An extruded profile with a bright lip, flat parts and a slot, brushed lengthwise."""
    brushed = cv2.resize(fractal(rng, (SHAPE[0], SHAPE[1] // 45), 2, 2), (SHAPE[1], SHAPE[0]))
    shade = 0.36 + 0.16 * np.cos((across - 9) / RAIL_WIDTH_MM * 2 * math.pi) + 0.03 * brushed
    slot = smoothstep(22, 23.5, across) * smoothstep(33, 31.5, across)
    shade = shade * (1 - 0.9 * slot) + 0.22 * smoothstep(2.5, 0.5, np.abs(across - 35))
    shade *= smoothstep(-4, 5, across)
    return np.clip(shade, 0.01, 0.9)[..., None] * np.asarray((0.95, 0.98, 1.0), np.float32), 0.3 * (1 - slot)


def _floor(rng: np.random.Generator, x: Array, y: Array) -> Array:
    """Far below and out of focus, with the marking of a walkway."""
    concrete = 0.060 + 0.006 * fractal(rng, SHAPE, 375, 2)
    line = smoothstep(40, 0, np.abs(y - 560 - 0.10 * x) - 22)
    floor = concrete[..., None] * np.asarray((1.02, 1.0, 0.95), np.float32)
    return floor + line[..., None] * (np.asarray((0.42, 0.27, 0.03), np.float32) * 0.55 - floor)


def sample_plane(texture: Array, points_mm: Array) -> Array:
    """The plane's texture at world points (H, W, 2)."""
    x = ((points_mm[..., 0] - LEFT_MM) * PX_PER_MM - 0.5).astype(np.float32)
    y = ((FAR_MM - points_mm[..., 1]) * PX_PER_MM - 0.5).astype(np.float32)
    sampled: Array = cv2.remap(texture, x, y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    return sampled


def lit_share(points: Array, directions: Array, points_mm: Array) -> Array:
    """The share of lights (N, 3) that reach each point of the plane (H, W, 2) past a convex body of points (V, 3)."""
    size, scale = 700, 0.7
    origin = points[:, :2].mean(axis=0) - size / scale / 2
    blocked = np.zeros((size, size), np.float32)
    for direction in directions:
        cast = points[:, :2] - points[:, 2:] * (direction[:2] / direction[2])
        pixels = np.round((cast - origin) * scale * 16).astype(np.int32)
        layer = np.zeros((size, size), np.uint8)
        cv2.fillConvexPoly(layer, cv2.convexHull(pixels), 255.0, cv2.LINE_AA, 4)
        blocked += layer
    x, y = np.moveaxis(((points_mm - origin) * scale).astype(np.float32), -1, 0)
    share = 1 - blocked / (255 * len(directions))
    sampled: Array = cv2.remap(share, x, y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_CONSTANT, borderValue=1.0)
    return sampled
