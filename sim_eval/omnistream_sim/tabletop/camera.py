# SPDX-License-Identifier: Apache-2.0
"""A pinhole camera on PyBullet's software renderer: RGB and metric depth for T_world_camera and K."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .physics import Client

NEAR, FAR = 0.02, 12.0
"""Metres; nothing nearer or farther is drawn."""

_GL_FROM_OPTICAL = np.diag([1.0, -1.0, -1.0, 1.0])


@dataclass(frozen=True)
class Light:
    """One light, far away. Colours are 0 .. 1; ambient, diffuse and specular are factors."""

    direction: tuple[float, float, float] = (-0.55, -0.75, 1.3)
    """From the scene to the light."""
    colour: tuple[float, float, float] = (1.0, 1.0, 1.0)
    ambient: float = 0.55
    diffuse: float = 0.45
    specular: float = 0.03
    shadow: bool = False


def intrinsics(size: tuple[int, int], fov: float) -> NDArray[np.float64]:
    """K [3, 3] of a horizontal field of view in degrees; (height, width); integer coordinates are pixel centres."""
    height, width = size
    focal = width / 2 / math.tan(math.radians(fov) / 2)
    return np.array([[focal, 0, (width - 1) / 2], [0, focal, (height - 1) / 2], [0, 0, 1]])


def look_at(eye: NDArray, target: NDArray, roll: NDArray | float = 0.0) -> NDArray[np.float64]:
    """T_world_camera [..., 4, 4] of cameras at `eye` [..., 3] that see `target` in the middle, world z up, rolled."""
    eye, target = np.broadcast_arrays(np.asarray(eye, float), np.asarray(target, float))
    forward = target - eye
    forward = forward / np.linalg.norm(forward, axis=-1, keepdims=True)
    right = np.cross(forward, [0.0, 0.0, 1.0])
    right = right / np.linalg.norm(right, axis=-1, keepdims=True)
    down = np.cross(forward, right)
    cos, sin = (np.asarray(f(roll))[..., None] for f in (np.cos, np.sin))
    pose = np.zeros((*eye.shape[:-1], 4, 4))
    pose[..., :3, 0] = cos * right + sin * down
    pose[..., :3, 1] = cos * down - sin * right
    pose[..., :3, 2] = forward
    pose[..., :3, 3] = eye
    pose[..., 3, 3] = 1
    return pose


def projection(K: NDArray, size: tuple[int, int]) -> NDArray[np.float64]:
    """OpenGL projection [4, 4] for which pixel (u, v) of the software renderer is the ray of K at (u, v).

    The renderer samples pixel (u, v) at (2u / W - 1, 1 - 2(v + 1) / H): found by fitting planes, and held by a test.
    """
    height, width = size
    matrix = np.zeros((4, 4))
    matrix[0, 0], matrix[1, 1] = 2 * K[0, 0] / width, 2 * K[1, 1] / height
    matrix[0, 2], matrix[1, 2] = 1 - 2 * K[0, 2] / width, 2 * (K[1, 2] + 1) / height - 1
    matrix[2, 2], matrix[2, 3] = -(FAR + NEAR) / (FAR - NEAR), -2 * FAR * NEAR / (FAR - NEAR)
    matrix[3, 2] = -1
    return matrix


def render(
    client: Client, T_world_camera: NDArray, K: NDArray, size: tuple[int, int], light: Light
) -> tuple[NDArray[np.uint8], NDArray[np.float32]]:
    """RGB [H, W, 3] and depth [H, W] in metres along the optical axis (NaN: nothing there); size is (height, width)."""
    height, width = size
    _, _, rgba, z, _ = picture(client, T_world_camera, K, size, light, client.ER_NO_SEGMENTATION_MASK)
    rgb = np.ascontiguousarray(np.asarray(rgba, np.uint8).reshape(height, width, 4)[..., :3])
    z = np.asarray(z, np.float64).reshape(height, width)
    depth = np.where(z < 1, FAR * NEAR / (FAR - (FAR - NEAR) * z), np.nan)
    return rgb, depth.astype(np.float32)


def picture(
    client: Client, T_world_camera: NDArray, K: NDArray, size: tuple[int, int], light: Light, flags: int
) -> Any:
    """What PyBullet's `getCameraImage` returns: width, height, RGBA, z buffer, segmentation mask."""
    height, width = size
    view = _GL_FROM_OPTICAL @ _inverse(T_world_camera)
    return client.getCameraImage(
        width,
        height,
        view.T.ravel().tolist(),
        projection(K, size).T.ravel().tolist(),
        lightDirection=light.direction,
        lightColor=light.colour,
        lightDistance=3.0,
        shadow=int(light.shadow),
        lightAmbientCoeff=light.ambient,
        lightDiffuseCoeff=light.diffuse,
        lightSpecularCoeff=light.specular,
        renderer=client.ER_TINY_RENDERER,
        flags=flags,
    )


def _inverse(pose: NDArray) -> NDArray[np.float64]:
    inverse = np.eye(4)
    inverse[:3, :3] = pose[:3, :3].T
    inverse[:3, 3] = -pose[:3, :3].T @ pose[:3, 3]
    return inverse
