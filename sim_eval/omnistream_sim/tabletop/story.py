# SPDX-License-Identifier: Apache-2.0
"""What happens in a clip: how the arm moves, where the blocks lie, how the camera goes. Drawn from a seed.

Nothing is simulated: things are put where they are, so a frame costs its rendering.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from . import arm as panda
from .config import TabletopConfig
from .layout import (
    BLOCK_SIZE,
    BLOCKS,
    CABINET_DEPTH,
    CABINET_HEIGHT,
    CABINET_WIDTH,
    DRAWER_TRAVEL,
    SLIDER_TRAVEL,
    Layout,
)
from .paths import Path, Region, draw_path, long_enough, path_length, still
from .scene import Scene

CLEARANCE = 0.10
"""Metres that a camera keeps from the arm, the blocks and the cabinet, if one of the candidates does."""
CANDIDATES = 6
MAX_HURRY = 4.0
"""An arm that carries the camera is not sped up more than so."""


@dataclass(frozen=True)
class Story:
    """T frames. The scene that it was drawn for shows it by `Story.show`."""

    T_world_camera: NDArray[np.float64]
    """[T, 4, 4]."""
    joints: NDArray[np.float64] | None
    """[T, 7] angles of the arm."""
    opening: float
    """Between the fingers, metres."""
    blocks: dict[str, tuple[NDArray, NDArray]]
    """Position [3] and quaternion [4] of the blocks that lie."""
    carried: str | None
    """The block between the fingers."""
    text: str

    def show(self, scene: Scene, frame: int) -> None:
        """Put what moves where it is at that frame."""
        if self.joints is None or scene.arm is None:
            return
        scene.set_arm(self.joints[frame], self.opening)
        if self.carried:
            pose = scene.client.getLinkState(scene.arm, panda.TOOL, computeForwardKinematics=1)
            scene.set_block(self.carried, pose[4], pose[5])


def draw_story(config: TabletopConfig, scene: Scene, rng: np.random.Generator, frames: int, rate: float) -> Story:
    """Blocks, furniture, arm and camera of a clip; puts what does not move in its place."""
    layout = scene.layout
    times = np.arange(frames) / rate
    drawer = float(rng.uniform(0, DRAWER_TRAVEL)) if rng.random() < 0.4 else 0.0
    slider = float(rng.uniform(-0.5, 0.5)) * SLIDER_TRAVEL
    lamp = bool(rng.random() < 0.3)
    scene.set_furniture(drawer, slider, lamp=lamp)
    blocks = place_blocks(layout, rng)
    for name, (position, quaternion) in blocks.items():
        scene.set_block(name, position, quaternion)
    carried = str(rng.choice(list(BLOCKS))) if scene.arm is not None and rng.random() < config.carried else None
    opening = BLOCK_SIZE if carried else float(rng.uniform(0, panda.MAX_OPENING))
    obstacles = np.array([p for name, (p, _) in blocks.items() if name != carried])
    sway = _draw_sway(config, scene, rng) if scene.arm is not None else None
    mounted = sway is not None and sway.strength > 0.3 and rng.random() < 0.25
    poses, hurry = _camera(config, scene, rng, times, sway, obstacles, mounted)
    joints = None if sway is None else sway(times * hurry)
    if carried:
        del blocks[carried]
    return Story(poses, joints, opening, blocks, carried, _describe(layout, drawer, lamp, sway, carried, mounted))


def place_blocks(
    layout: Layout, rng: np.random.Generator, elsewhere: bool = True, apart: float = 0.065, clear: float = 0.0
) -> dict[str, tuple[NDArray, NDArray]]:
    """Position and quaternion (xyzw) of every block: on the table; if `elsewhere`, some on others or the cabinet.

    apart: metres between blocks; clear: between a block and the knob of the opened drawer.
    """
    knob = np.array(layout.drawer_xy) - [0.055 + DRAWER_TRAVEL, 0]
    low, high = np.array(layout.block_low), np.array(layout.block_high)
    placed: dict[str, tuple[NDArray, NDArray]] = {}
    free: list[str] = []
    for name in rng.permutation(list(BLOCKS)):
        yaw, where = rng.uniform(-math.pi, math.pi), rng.random()
        if elsewhere and where < 0.125 and free:
            base = free.pop(int(rng.integers(len(free))))
            position = placed[base][0] + np.array([*rng.uniform(-0.006, 0.006, 2), BLOCK_SIZE])
        elif elsewhere and where < 0.225:
            y = layout.cabinet[1] + layout.side * rng.uniform(0.03, 0.10)
            position = np.array([layout.cabinet[0] + rng.uniform(0.04, 0.1), y, CABINET_HEIGHT + BLOCK_SIZE / 2])
        else:
            for _ in range(60):
                position = np.array([*rng.uniform(low, high), BLOCK_SIZE / 2])
                free_of_knob = np.linalg.norm(position[:2] - knob) >= clear
                if free_of_knob and all(np.linalg.norm(position[:2] - p[:2]) > apart for p, _ in placed.values()):
                    break
            free.append(str(name))
        if any(np.linalg.norm(position - p) < BLOCK_SIZE for p, _ in placed.values()):  # two on the cabinet
            position = position + np.array([0, 0, BLOCK_SIZE])
        placed[str(name)] = (position, np.array([0, 0, math.sin(yaw / 2), math.cos(yaw / 2)]))
    return placed


def _draw_sway(config: TabletopConfig, scene: Scene, rng: np.random.Generator) -> panda.Sway:
    """A pose with the tool over the table, and motion about it that stays over the table."""
    assert scene.arm is not None
    client, arm = scene.client, scene.arm
    strength = float(rng.uniform(0.3, 1.0)) if rng.random() < config.moving else 0.0
    best: panda.Sway | None = None
    for attempt in range(8):
        scene.set_arm(panda.HOME, 0.0)
        position = rng.uniform((0.28, -0.38, 0.04), (0.66, 0.38, 0.45))
        lean = rng.normal(0, 0.25, 2)
        turned = client.getQuaternionFromEuler([math.pi + lean[0], lean[1], rng.uniform(-1.2, 1.2)])
        centre = panda.inverse_kinematics(client, arm, position, turned)
        best = panda.Sway(rng, centre, strength * (0.75**attempt))
        if _above_the_table(scene, best):
            return best
    assert best is not None
    best.strength, best.centre = 0.0, panda.HOME
    return best


def _above_the_table(scene: Scene, sway: panda.Sway) -> bool:
    """Whether elbow, wrist, hand and finger tips keep off the table and the cabinet."""
    front, y = scene.layout.cabinet
    for joints in sway(np.linspace(0, 3.0, 7 if sway.strength else 1)):
        scene.set_arm(joints, 0.0)
        points = panda.link_positions(scene.client, scene.arm)[3:]  # type: ignore[arg-type]
        if (points[:, 2] < 0.02).any() or (points[:5, 2] < 0.09).any():
            return False
        inside = (points[:, 0] > front - 0.08) & (np.abs(points[:, 1] - y) < CABINET_WIDTH / 2 + 0.03)
        if (inside & (points[:, 2] < CABINET_HEIGHT + 0.03)).any():
            return False
    return True


def _camera(
    config: TabletopConfig,
    scene: Scene,
    rng: np.random.Generator,
    times: NDArray,
    sway: panda.Sway | None,
    obstacles: NDArray,
    mounted: bool,
) -> tuple[NDArray, float]:
    """Camera poses, and how much faster the arm moves for their sake."""
    if mounted and sway is not None:
        poses, hurry = long_enough(_wrist_camera(scene, sway), times, config.min_path)
        if hurry <= MAX_HURRY and path_length(poses) >= config.min_path:
            return poses, hurry
    resting = config.min_path == 0 and rng.random() < config.static
    arm = _arm_points(scene, sway, times)
    best, best_gap = None, -math.inf
    for _ in range(CANDIDATES):
        path = draw_path(rng, _region(scene.layout), config.speed)
        poses, hurry = long_enough(still(path) if resting else path, times, config.min_path)
        gap = _gap(poses, arm, obstacles, scene.layout) - 0.02 * max(0.0, hurry - 3)
        if path_length(poses) >= config.min_path and gap > best_gap:
            best, best_gap = poses, gap
        if best_gap > CLEARANCE:
            break
    return (poses if best is None else best), 1.0


def _wrist_camera(scene: Scene, sway: panda.Sway) -> Path:
    """The camera on the hand while the arm sways."""

    def poses(times: NDArray) -> NDArray:
        out = []
        for joints in sway(times):
            scene.set_arm(joints, 0.0)
            out.append(panda.link_pose(scene.client, scene.arm, panda.HAND) @ panda.T_HAND_CAMERA)  # type: ignore[arg-type]
        return np.array(out)

    return poses


def _arm_points(scene: Scene, sway: panda.Sway | None, times: NDArray) -> NDArray:
    """[T or 1, 12, 3] origins of the arm's links; far away where there is none."""
    if sway is None:
        return np.full((1, 1, 3), 100.0)
    moments = sway(times[:: max(1, len(times) // 12)]) if sway.strength else sway(times[:1])
    points = []
    for joints in moments:
        scene.set_arm(joints, 0.0)
        points.append(panda.link_positions(scene.client, scene.arm))  # type: ignore[arg-type]
    return np.array(points)


def _gap(poses: NDArray, arm: NDArray, obstacles: NDArray, layout: Layout) -> float:
    """Smallest distance of a path from anything, the thickness of things taken off."""
    eyes = poses[:, :3, 3]
    joints = arm.reshape(-1, 3)
    middles = 0.5 * (arm[:, 1:] + arm[:, :-1]).reshape(-1, 3) if arm.shape[1] > 1 else joints
    to_arm = min(_nearest(eyes, joints), _nearest(eyes, middles)) - 0.09
    to_blocks = _nearest(eyes, obstacles) - 0.03
    low = np.array([layout.cabinet[0], layout.cabinet[1] - CABINET_WIDTH / 2, 0])
    high = low + np.array([CABINET_DEPTH, CABINET_WIDTH, CABINET_HEIGHT + 0.07])
    to_cabinet = float(np.linalg.norm(eyes - np.clip(eyes, low, high), axis=-1).min())
    to_extras = min(
        (float(np.linalg.norm(eyes - np.array(e.position), axis=-1).min()) - 0.1 for e in layout.extras), default=1.0
    )
    return min(to_arm, to_blocks, to_cabinet, to_extras, float(eyes[:, 2].min()))


def _nearest(eyes: NDArray, points: NDArray) -> float:
    if not len(points):
        return math.inf
    return float(np.linalg.norm(eyes[:, None] - points[None], axis=-1).min())


def _region(layout: Layout) -> Region:
    x0, y0, x1, y1 = layout.walls
    return Region(
        low=(x0 + 0.25, y0 + 0.25, 0.05),
        high=(x1 - 0.25, y1 - 0.25, layout.ceiling - 0.2),
        look_low=(0.22, -0.25, 0.0),
        look_high=(layout.cabinet[0] + 0.08, 0.25, 0.15),
    )


def _describe(
    layout: Layout, drawer: float, lamp: bool, sway: panda.Sway | None, carried: str | None, mounted: bool
) -> str:
    """In words."""
    arm = "no arm" if sway is None else f"a Panda that {'moves' if sway.strength else 'rests'}"
    if carried:
        arm += f" and holds the {carried} block"
    state = f"drawer {'open ' + format(100 * drawer, '.0f') + ' cm' if drawer > 0.01 else 'closed'}"
    camera = "camera on the hand" if mounted else "free camera"
    things = f", {len(layout.extras)} further things" if layout.extras else ""
    return f"A tabletop with {len(BLOCKS)} blocks{things}, {arm}; {state}, lamp {'on' if lamp else 'off'}; {camera}."
