"""Triangles to pixels: the point of the mesh that each pixel shows."""

from dataclasses import dataclass

import numpy as np

from parcel_scene.geometry import Camera, Mesh
from parcel_scene.noise import Array


@dataclass(frozen=True)
class VisiblePoints:
    """The pixels that show the box, and the mesh point of each."""

    inside: Array  # (H, W) bool
    corners: Array  # (P, 3) vertex indices, P pixels inside
    shares: Array  # (P, 3) weights of those vertices

    def interpolate(self, values: Array) -> Array:
        """A vertex attribute (V,) or (V, C) at every pixel of the box: (P,) or (P, C)."""
        weights = self.shares if values.ndim == 1 else self.shares[..., None]
        return (values[self.corners] * weights).sum(axis=1)


def rasterize(camera: Camera, mesh: Mesh) -> VisiblePoints:
    """Test a window of pixels around each triangle, all triangles at once; each pixel shows the nearest one."""
    screen = camera.project(mesh.position)[mesh.triangles]  # (T, 3 corners, x y depth)
    area = _cross(screen[:, 1] - screen[:, 0], screen[:, 2] - screen[:, 0])
    order = np.argsort(-screen[:, :, 2].mean(axis=1), kind="stable")
    order = order[area[order] > 0]  # facing the camera, far to near: the last write to a pixel is the nearest
    triangles, screen, area = mesh.triangles[order], screen[order], area[order]
    low = np.floor(screen[:, :, :2].min(axis=1)).astype(np.int64)
    window = int((screen[:, :, :2].max(axis=1) - low).max()) + 1
    shape = (camera.height_px, camera.width_px)
    depth, owner, shares = np.full(shape, np.inf), np.full(shape, -1), np.zeros((*shape, 3))
    for dy, dx in np.ndindex(window, window):
        pixel = low + np.array((dx, dy))
        weights = _barycentric(screen[:, :, :2], area, pixel + 0.5)
        hit = (weights >= 0).all(axis=1) & (pixel >= 0).all(axis=1) & (pixel < (shape[1], shape[0])).all(axis=1)
        x, y = pixel[hit].T
        inverse = weights[hit] / screen[hit][:, :, 2]
        z = 1 / inverse.sum(axis=1)
        nearer = z < depth[y, x]
        x, y, z = x[nearer], y[nearer], z[nearer]
        depth[y, x], owner[y, x] = z, np.flatnonzero(hit)[nearer]
        shares[y, x] = inverse[nearer] * z[:, None]
    inside = owner >= 0
    return VisiblePoints(inside, triangles[owner[inside]], shares[inside])


def _barycentric(screen: Array, area: Array, point: Array) -> Array:
    """The weights of three corners at a point per triangle: (T, 3), all positive inside."""
    opposite = (_cross(screen[:, k - 1] - screen[:, k - 2], point - screen[:, k - 2]) for k in range(3))
    return np.stack(list(opposite), axis=1) / area[:, None]


def _cross(a: Array, b: Array) -> Array:
    return a[:, 0] * b[:, 1] - a[:, 1] * b[:, 0]
