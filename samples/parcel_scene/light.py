"""Lamps, shading and the sensor: from surfaces to a photograph."""

import math
from dataclasses import dataclass

import cv2
import numpy as np

from parcel_scene.conveyor import Plane, lit_share, sample_plane
from parcel_scene.geometry import Camera, Mesh
from parcel_scene.noise import Array, smoothstep
from parcel_scene.raster import VisiblePoints
from parcel_scene.sheet import PX_PER_MM, Sheet


@dataclass(frozen=True)
class Light:
    """One large lamp, and the color temperature of all light."""

    azimuth_deg: float  # where the lamp stands: 0 to the right, -90 towards the camera
    elevation_deg: float
    strength: float
    warmth: float  # 0: neutral

    def direction(self) -> Array:
        azimuth, elevation = math.radians(self.azimuth_deg), math.radians(self.elevation_deg)
        level = math.cos(elevation)
        return np.array((level * math.cos(azimuth), level * math.sin(azimuth), math.sin(elevation)))

    def color(self) -> Array:
        return self.strength * np.array((1 + 0.5 * self.warmth, 1.0, 1 - self.warmth))


SKY = np.array((0.46, 0.49, 0.54))
GROUND = np.array((0.13, 0.12, 0.11))
GLOW_WIDTH_PX = 1280
WINDOW = np.array((0.75, -0.62, 0.25))  # a weaker light from the right, where the lamp does not reach


def shade_conveyor(camera: Camera, mesh: Mesh, light: Light, plane: Plane) -> Array:
    """The conveyor with the shadow of the box, without the box: (H, W, 3) linear."""
    points = camera.plane_points()
    lamp = light.direction()
    disc = lamp + 0.16 * _spiral(40)
    dome = 0.97 * _spiral(90)
    dome[:, 2] = np.sqrt(1 - (dome**2).sum(axis=1))
    key, sky = (lit_share(mesh.position, lights, points)[..., None] for lights in (disc, dome))
    tilt, gloss = sample_plane(plane.tilt, points), sample_plane(plane.gloss, points)
    normal = np.stack([tilt, np.zeros_like(tilt), np.sqrt(1 - np.clip(tilt**2, 0, 0.999))], axis=-1)
    facing = np.clip(normal @ lamp, 0, None)[..., None]
    deep = (1 - 0.75 * tilt**2)[..., None]  # little sky is visible from between two rollers
    place = np.concatenate([points, np.zeros_like(points[..., :1])], axis=-1)
    to_eye = _unit(np.array(camera.position) - place)
    shine = 0.9 * _reflection(normal, to_eye, place, gloss, light) * (0.25 + 0.75 * key) * sky**1.5
    return sample_plane(plane.albedo, points) * (light.color() * facing * key + SKY * deep * sky**1.2) + shine


def shade_box(camera: Camera, mesh: Mesh, visible: VisiblePoints, sheet: Sheet, light: Light) -> Array:
    """The box's pixels: (P, 3) linear."""
    spot = visible.interpolate(mesh.sheet_mm)
    albedo, gloss = sample(sheet.albedo, spot), sample(sheet.gloss, spot)
    slope_x = sample(cv2.Sobel(sheet.height_mm, cv2.CV_32F, 1, 0, scale=PX_PER_MM / 8), spot)
    slope_y = sample(cv2.Sobel(sheet.height_mm, cv2.CV_32F, 0, 1, scale=PX_PER_MM / 8), spot)
    flat, along_x, along_y = (visible.interpolate(field) for field in (mesh.normal, mesh.along_x, mesh.along_y))
    normal = _unit(flat - slope_x[:, None] * along_x - slope_y[:, None] * along_y)
    place, bend = visible.interpolate(mesh.position), visible.interpolate(mesh.bend)
    moved = visible.interpolate(mesh.moved_mm)
    broken = np.clip(moved / 3, 0, 1) * smoothstep(0.08, 0.45, np.abs(bend))
    albedo += (np.array((0.66, 0.49, 0.32), np.float32) - albedo) * (0.55 * broken * (1 - gloss))[:, None]
    to_eye = _unit(np.array(camera.position) - place)
    lamp = light.direction()
    facing = np.clip((normal * lamp).sum(1) * 0.92 + 0.08 * (flat * lamp).sum(1), 0, None)
    # The conveyor hides the sky from the lower parts of the sides, and a dent hides it from its inside.
    low_down = (1 - np.clip(flat[:, 2], 0, 1)) * smoothstep(75, 0, place[:, 2])
    open_sky = (1 - 0.55 * low_down) * np.exp(2.6 * np.clip(bend, -1, 0) - moved / 130)
    up = 0.5 + 0.5 * normal[:, 2:]
    ambient = SKY * up + GROUND * (1 - up) + 0.16 * np.clip(normal @ _unit(WINDOW), 0, None)[:, None]
    diffuse = albedo * (light.color() * facing[:, None] + ambient * open_sky[:, None])
    return diffuse + _reflection(normal, to_eye, place, gloss, light)


def _reflection(normal: Array, to_eye: Array, place: Array, gloss: Array, light: Light) -> Array:
    """Reflections of the lamp and of ceiling lights on film and metal. (..., 3) each, gloss (...)."""
    towards_lamp = np.clip((normal * _unit(to_eye + light.direction())).sum(-1), 0, 1)
    towards_eye = (normal * to_eye).sum(-1)
    mirrored = 2 * towards_eye[..., None] * normal - to_eye
    reach = (2600 - place[..., 2]) / np.maximum(mirrored[..., 2], 0.05)
    ceiling_x, ceiling_y = (place[..., axis] + reach * mirrored[..., axis] for axis in (0, 1))
    rows = smoothstep(0.55, 0.95, np.cos(ceiling_x * (2 * np.pi / 1500) - 0.6))
    tubes = rows * smoothstep(4200, 2800, ceiling_y)
    fresnel = 0.04 + 0.96 * (1 - np.clip(towards_eye, 0, 1)) ** 5
    bright = gloss * fresnel * (9.0 * towards_lamp**90 + 4.5 * tubes + 0.5)
    paper = 0.02 * towards_lamp**12 * (1 - gloss)
    return (bright + paper)[..., None] * light.color()


def photograph(linear: Array, rng: np.random.Generator, points: int) -> Array:
    """Lens and sensor: softness, vignette, exposure curve, noise.

    (points * H, points * W, 3) linear to (H, W, 3) uint8.
    """
    height, width = linear.shape[0] // points, linear.shape[1] // points
    soft = 0.97 * cv2.GaussianBlur(linear, (0, 0), 0.9) + 0.03 * _glow(linear)
    small = cv2.resize(soft, (width, height), interpolation=cv2.INTER_AREA)
    y, x = np.mgrid[0:height, 0:width]
    small += 0.5 * (small - cv2.GaussianBlur(small, (0, 0), 1.0))  # the camera's own sharpening
    radius2 = ((x - width / 2) ** 2 + (y - height / 2) ** 2) / (width / 2) ** 2
    small = np.clip(small, 0, None) * (1.15 / (1 + 0.16 * radius2) ** 2)[..., None]
    grain = 0.85 * rng.standard_normal((height, width, 1)) + 0.45 * rng.standard_normal(small.shape)
    grain *= np.sqrt(0.0000015 + 0.00010 * np.clip(small, 0, 1))
    small = np.clip(small + cv2.GaussianBlur(grain, (0, 0), 0.55) * 1.4, 0, None)
    curved = small * (1 + small / 1.9) / (1 + small)  # rolls off towards white
    srgb = np.where(curved <= 0.0031308, 12.92 * curved, 1.055 * np.clip(curved, 1e-6, None) ** (1 / 2.4) - 0.055)
    return np.clip(np.round(srgb * 255), 0, 255).astype(np.uint8)


def _glow(linear: Array) -> Array:
    """Light that the lens scatters widely: (H, W, 3) in and out. A large image is scaled down, which nobody sees."""
    height, width = linear.shape[:2]
    scale = min(1.0, GLOW_WIDTH_PX / width)
    small = cv2.resize(linear, (round(scale * width), round(scale * height)), interpolation=cv2.INTER_AREA)
    glow: Array = cv2.resize(cv2.GaussianBlur(small, (0, 0), 18), (width, height), interpolation=cv2.INTER_LINEAR)
    return glow


def sample(texture: Array, spot_mm: Array) -> Array:
    """The sheet's texture at sheet points (P, 2), averaged over about one pixel."""
    soft = cv2.GaussianBlur(texture, (0, 0), 0.22 * PX_PER_MM)
    column, row = (spot_mm * PX_PER_MM).astype(int).T
    sampled: Array = soft[np.clip(row, 0, soft.shape[0] - 1), np.clip(column, 0, soft.shape[1] - 1)]
    return sampled


def _spiral(count: int) -> Array:
    """Points spread evenly over the unit disc (count, 3), z = 0."""
    step = np.arange(count) + 0.5
    radius, angle = np.sqrt(step / count), step * math.pi * (3 - math.sqrt(5))
    return np.stack([radius * np.cos(angle), radius * np.sin(angle), np.zeros(count)], axis=1)


def _unit(vectors: Array) -> Array:
    return vectors / np.maximum(np.linalg.norm(vectors, axis=-1, keepdims=True), 1e-9)
