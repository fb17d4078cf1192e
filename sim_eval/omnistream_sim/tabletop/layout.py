# SPDX-License-Identifier: Apache-2.0
"""What stands on and around the table, and how it looks. The shipped layout is a constant; random ones are drawn.

World frame: z up, the table top is z = 0, the Panda's base is the origin and it looks along +x. Metres.
"""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass, field

import numpy as np

from .camera import Light
from .physics import data_folder
from .textures import BANK

Colour = tuple[float, float, float]

BLOCKS: dict[str, Colour] = {
    "red": (0.86, 0.10, 0.10),
    "green": (0.10, 0.62, 0.16),
    "blue": (0.10, 0.24, 0.86),
    "yellow": (0.96, 0.80, 0.08),
}
BLOCK_SIZE = 0.04
"""Edge of a block."""
DRAWER_TRAVEL = 0.14
SLIDER_TRAVEL = 0.18
BUTTON_TRAVEL = 0.008
CABINET_DEPTH, CABINET_WIDTH, CABINET_HEIGHT = 0.22, 0.60, 0.14

PAINTED = ("table", "legs", "cabinet", "drawer", "handle", "slider", "button_base", "button", "floor", "walls")


@dataclass(frozen=True)
class Extra:
    """A thing that pybullet_data ships."""

    file: str
    """Relative to pybullet_data."""
    scale: float
    colour: Colour
    position: tuple[float, float, float]
    """Of the mesh's origin."""
    yaw: float
    radius: float
    """Of a circle on the table that holds it."""


@dataclass(frozen=True)
class Layout:
    """Everything of a scene that does not move by itself."""

    table_low: tuple[float, float] = (-0.30, -0.60)
    table_high: tuple[float, float] = (0.95, 0.60)
    floor: float = -0.70
    """Height of the floor."""
    walls: tuple[float, float, float, float] = (-1.9, -2.0, 2.1, 2.0)
    """Low x, low y, high x, high y of the room."""
    ceiling: float = 2.2
    cabinet: tuple[float, float] = (0.64, 0.0)
    """x of its front, y of its middle."""
    side: int = 1
    """1: the drawer is left as the robot sees it, slider and button right; -1: the other way round."""
    colours: dict[str, Colour] = field(
        default_factory=lambda: {
            "table": (0.80, 0.62, 0.42),
            "legs": (0.35, 0.30, 0.26),
            "cabinet": (0.86, 0.86, 0.82),
            "drawer": (0.42, 0.56, 0.68),
            "handle": (0.16, 0.16, 0.18),
            "slider": (0.92, 0.48, 0.10),
            "button_base": (0.25, 0.25, 0.28),
            "button": (0.55, 0.15, 0.60),
            "floor": (0.62, 0.62, 0.66),
            "walls": (0.80, 0.84, 0.88),
        }
    )
    textures: dict[str, str] = field(default_factory=lambda: {"table": "wood", "floor": "tiles", "walls": "plaster"})
    light: Light = field(default_factory=Light)
    extras: tuple[Extra, ...] = ()

    @property
    def block_low(self) -> tuple[float, float]:
        """Corner of the rectangle in which block centres may lie: in reach, and clear of the opened drawer."""
        return (max(0.28, self.table_low[0]), max(-0.28, self.table_low[1] + 0.06))

    @property
    def block_high(self) -> tuple[float, float]:
        """The opposite corner."""
        return (self.cabinet[0] - 0.23, min(0.28, self.table_high[1] - 0.06))

    @property
    def drawer_xy(self) -> tuple[float, float]:
        """Middle of the closed drawer's front."""
        return (self.cabinet[0], self.cabinet[1] + self.side * 0.15)

    @property
    def slider_xy(self) -> tuple[float, float]:
        """Middle of the slider's rail, on top of the cabinet."""
        return (self.cabinet[0] + 0.03, self.cabinet[1] - self.side * 0.15)

    @property
    def button_xy(self) -> tuple[float, float]:
        """Middle of the button, on the table."""
        return (self.cabinet[0] - 0.11, self.cabinet[1] - self.side * 0.20)

    @property
    def lamp_xy(self) -> tuple[float, float]:
        """Middle of the lamp, on top of the cabinet."""
        return (self.cabinet[0] + 0.15, self.cabinet[1] + self.side * 0.15)


def random_layout(rng: np.random.Generator, extras: int = 4) -> Layout:
    """Other measures, sides, colours, textures and light; up to `extras` further things on the table."""

    def colour(low: float = 0.12) -> Colour:
        r, g, b = rng.uniform(low, 1.0, 3)
        return (float(r), float(g), float(b))

    low = (-rng.uniform(0.2, 0.5), -rng.uniform(0.45, 0.8))
    high = (rng.uniform(0.90, 1.15), rng.uniform(0.45, 0.8))
    room = [rng.uniform(0.9, 2.4) for _ in range(4)]
    azimuth, height = rng.uniform(-math.pi, math.pi), rng.uniform(0.5, 2.0)
    textured = [name for name in ("table", "floor", "walls", "cabinet", "drawer") if rng.random() < 0.65]
    warm = rng.uniform(0.85, 1.0, 3)
    ambient = rng.uniform(0.35, 0.65)
    layout = Layout(
        table_low=low,
        table_high=high,
        floor=-rng.uniform(0.45, 0.85),
        walls=(low[0] - room[0], low[1] - room[1], high[0] + room[2], high[1] + room[3]),
        ceiling=rng.uniform(1.6, 2.6),
        cabinet=(rng.uniform(0.62, 0.67), rng.uniform(-0.05, 0.05)),
        side=1 if rng.random() < 0.5 else -1,
        colours={name: colour(0.45 if name in textured else 0.12) for name in PAINTED},
        textures={name: f"random-{rng.integers(BANK)}" for name in textured},
        light=Light(
            direction=(math.cos(azimuth), math.sin(azimuth), height),
            colour=(float(warm[0]), float(warm[1]), float(warm[2])),
            ambient=ambient,
            diffuse=rng.uniform(0.85, 1.1) - ambient,
            specular=rng.uniform(0.0, 0.12),
        ),
    )
    return _with_extras(layout, rng, int(rng.integers(0, extras + 1)), colour)


def _with_extras(layout: Layout, rng: np.random.Generator, count: int, colour) -> Layout:  # type: ignore[no-untyped-def]
    """Things beside the blocks' place, where the arm seldom is."""
    placed: list[Extra] = []
    meshes = small_meshes()
    for _ in range(count):
        name, low, high = meshes[rng.integers(len(meshes))]
        size = np.subtract(high, low)
        scale = rng.uniform(0.05, 0.12) / float(size.max())
        radius = 0.5 * scale * float(np.hypot(size[0], size[1]))
        for _ in range(12):
            beside = rng.choice([-1, 1])
            x = rng.uniform(layout.table_low[0] + 0.1, layout.table_high[0] - 0.1)
            edge = layout.table_high[1] if beside > 0 else -layout.table_low[1]
            y = beside * rng.uniform(0.36, max(0.37, edge - 0.06))
            if all(math.hypot(x - e.position[0], y - e.position[1]) > radius + e.radius for e in placed):
                break
        else:
            continue
        yaw = rng.uniform(-math.pi, math.pi)
        middle = 0.5 * np.add(low, high) * scale
        cos, sin = math.cos(yaw), math.sin(yaw)
        at = (x - (cos * middle[0] - sin * middle[1]), y - (sin * middle[0] + cos * middle[1]), -low[2] * scale)
        placed.append(Extra(name, scale, colour(), (float(at[0]), float(at[1]), float(at[2])), yaw, radius))
    return Layout(**{**layout.__dict__, "extras": tuple(placed)})


@functools.cache
def small_meshes(triangles: int = 420) -> tuple[tuple[str, tuple[float, ...], tuple[float, ...]], ...]:
    """(file, low corner, high corner) of pybullet_data's meshes that are cheap to draw."""
    root = data_folder()
    names = ["duck_vhacd.obj", "jenga/jenga.obj", "domino/domino.obj", "toys/prism.obj", "toys/cylinder.obj"]
    names += [f"random_urdfs/{i:03d}/{i:03d}.obj" for i in range(160)]
    found = []
    for name in names:
        if not (root / name).exists():
            continue
        words = [line.split() for line in (root / name).read_text(errors="ignore").splitlines()]
        corners = np.array([[float(w) for w in line[1:4]] for line in words if line[:1] == ["v"]])
        faces = sum(len(line) - 3 for line in words if line[:1] == ["f"])
        if 0 < faces <= triangles:
            found.append((name, tuple(corners.min(0).tolist()), tuple(corners.max(0).tolist())))
    return tuple(found)
