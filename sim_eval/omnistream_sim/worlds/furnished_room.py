# SPDX-License-Identifier: Apache-2.0
"""The furnished room of the shipped recording, and the hand-held walk through it.

World frame: metres, z up; the room is 5.2 x 4.4 x 2.65 m, centred over the origin, its window in the left wall.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from .builder import SceneBuilder, look_at
from .materials import Material
from .scene import Scenes

_OAK = (0.50, 0.29, 0.13)
_OAK_DARK = (0.33, 0.17, 0.07)
_WALNUT = (0.20, 0.10, 0.05)
_WALNUT_DARK = (0.10, 0.05, 0.025)
_CREAM = (0.80, 0.72, 0.58)
_SAGE = (0.36, 0.46, 0.36)


def _oak(seed: int, repeat: float = 9.0) -> Material:
    return Material(
        colour=_OAK,
        second=_OAK_DARK,
        pattern="wood",
        repeat=(repeat, 0.3),
        noise=7,
        stretch=8,
        amount=0.5,
        seed=seed,
        gloss=0.25,
    )


def _table(room: SceneBuilder) -> None:
    """A dining table at the middle of the room and what lies on it."""
    top = 0.74
    room.box((0.15, 0.25, top - 0.02), (0.80, 0.45, 0.02), _oak(3, 7.0), name="table")
    for x in (-0.57, 0.87):
        for y in (-0.13, 0.63):
            room.box((x, y, (top - 0.04) / 2), (0.03, 0.03, (top - 0.04) / 2), _oak(4, 20.0), name="table")
    room.box((0.15, 0.25, top - 0.08), (0.70, 0.36, 0.035), _oak(5), name="table")

    blue = Material(
        colour="blue", second="white", pattern="stripes", repeat=(0.0, 28), round=0.045, gloss=0.6, amount=0.1
    )
    room.revolution("cup", (-0.28, 0.05, top + 0.05), (0.045, 0.045, 0.05), blue, name="blue cup")
    saucer = Material(colour="white", gloss=0.6)
    room.revolution("cup", (-0.28, 0.05, top + 0.005), (0.085, 0.085, 0.006), saucer, name="saucer")

    bowl = Material(colour="turquoise", second="white", pattern="dots", repeat=(18, 18), round=0.14, gloss=0.6)
    room.revolution("cup", (0.16, 0.32, top + 0.04), (0.15, 0.15, 0.04), bowl, name="bowl")
    for i, (x, y, z, colour) in enumerate(
        [
            (0.10, 0.29, 0.085, "red"),
            (0.20, 0.27, 0.085, "green"),
            (0.16, 0.38, 0.085, "orange"),
            (0.16, 0.31, 0.135, "yellow"),
        ]
    ):
        skin = Material(colour=colour, pattern="clouds", noise=35, amount=0.6, seed=i, gloss=0.5)
        room.revolution("sphere", (x, y, top + z), (0.047, 0.047, 0.043), skin, name=f"{colour} fruit")

    for i, (colour, w, d, h, z, yaw) in enumerate(
        [
            ("red", 0.12, 0.085, 0.018, 0.018, 12),
            ("turquoise", 0.11, 0.08, 0.022, 0.058, 4),
            ("yellow", 0.09, 0.065, 0.014, 0.094, 24),
        ]
    ):
        cover = Material(
            colour=colour, second="white", pattern="print", repeat=(0.5 / w, 0.5 / d), seed=40 + i, gloss=0.3
        )
        room.box((0.62, 0.45, top + z), (w, d, h), cover, name=f"{colour} book", turn=(0, 0, yaw))

    cereal = Material(colour="orange", pattern="print", repeat=(1 / 0.19, 1 / 0.29), seed=21, gloss=0.3)
    room.box((-0.42, 0.47, top + 0.145), (0.095, 0.035, 0.145), cereal, name="cereal box", turn=(0, 0, -18))

    for i, (x, y, z, colour, yaw) in enumerate(
        [
            (0.50, 0.02, 0.03, "red", 10),
            (0.58, 0.05, 0.03, "green", 35),
            (0.535, 0.04, 0.09, "yellow", 22),
            (0.66, -0.04, 0.03, "blue", 60),
        ]
    ):
        grain = Material(
            colour=colour, pattern="wood", repeat=(30, 3), noise=40, stretch=5, amount=0.4, seed=60 + i, gloss=0.25
        )
        room.box((x, y, top + z), (0.03, 0.03, 0.03), grain, name=f"{colour} block", turn=(0, 0, yaw))

    vase = Material(
        colour=(0.75, 0.70, 0.62),
        second=(0.30, 0.36, 0.50),
        pattern="marble",
        repeat=(9, 9),
        noise=14,
        amount=0.5,
        gloss=0.7,
    )
    room.revolution("barrel", (-0.05, 0.55, top + 0.12), (0.07, 0.07, 0.12), vase, name="vase")
    for i, (dx, dy, h, colour) in enumerate(
        [(-0.05, 0.01, 0.40, "pink"), (0.04, 0.03, 0.46, "yellow"), (0.02, -0.05, 0.37, "purple")]
    ):
        lean = (math.degrees(math.atan2(-dy, h - 0.2)), math.degrees(math.atan2(dx, h - 0.2)), 0)
        room.capsule(
            (-0.05 + dx / 2, 0.55 + dy / 2, top + 0.10 + h / 2),
            0.005,
            h / 2 - 0.1,
            Material(colour="green"),
            "stem",
            lean,
        )
        petal = Material(colour=colour, pattern="clouds", noise=60, amount=1.0, seed=i)
        room.revolution(
            "sphere", (-0.05 + dx, 0.55 + dy, top + h), (0.04, 0.04, 0.03), petal, name=f"{colour} flower", turn=lean
        )

    cone = Material(
        colour="orange", second="white", pattern="stripes", repeat=(0.0, 22), round=0.05, amount=0.0, gloss=0.3
    )
    room.revolution("cone", (0.03, -0.05, top + 0.075), (0.05, 0.05, 0.075), cone, name="orange cone")
    ball = Material(colour="white", second="red", pattern="checker", repeat=(10, 16), round=0.06, gloss=0.5)
    room.revolution("sphere", (0.29, 0.0, top + 0.06), (0.06, 0.06, 0.06), ball, name="checkered ball")
    pen = Material(colour="black", gloss=0.6)
    room.capsule((-0.10, -0.08, top + 0.007), 0.007, 0.07, pen, name="pen", turn=(90, 0, 70))
    sheet = Material(colour="white", pattern="print", repeat=(1 / 0.21, 1 / 0.297), seed=95)
    room.box((-0.12, 0.12, top + 0.001), (0.105, 0.148, 0.001), sheet, name="sheet of paper", turn=(0, 0, 16))


def _chairs(room: SceneBuilder) -> None:
    for x, y, yaw, colour in ((0.55, -0.62, 8.0, _SAGE), (1.45, 0.35, 100.0, (0.55, 0.20, 0.12))):
        wood, cloth = _oak(11, 18.0), Material(colour=colour, pattern="checker", repeat=(26, 26), amount=0.5)
        a = math.radians(yaw)

        def at(dx: float, dy: float, z: float, a: float = a, x: float = x, y: float = y) -> tuple[float, float, float]:
            return x + math.cos(a) * dx - math.sin(a) * dy, y + math.sin(a) * dx + math.cos(a) * dy, z

        name = f"chair at {x:.1f}"
        room.box(at(0, 0, 0.44), (0.21, 0.21, 0.018), wood, name, (0, 0, yaw))
        room.box(at(0, 0.01, 0.47), (0.19, 0.18, 0.018), cloth, name, (0, 0, yaw))
        for dx in (-0.18, 0.18):
            room.box(at(dx, 0.18, 0.22), (0.018, 0.018, 0.22), wood, name, (0, 0, yaw))
            room.box(at(dx, -0.19, 0.45), (0.018, 0.018, 0.45), wood, name, (0, 0, yaw))
        for z in (0.62, 0.74, 0.86):
            room.box(at(0, -0.19, z), (0.17, 0.01, 0.032), wood, name, (0, 0, yaw))


def _shelf(room: SceneBuilder) -> None:
    """A book shelf at the far wall, right."""
    x0, y0, w, depth, height = 1.55, 2.02, 0.62, 0.16, 1.95
    board = Material(
        colour=_WALNUT, second=_WALNUT_DARK, pattern="wood", repeat=(9, 0.3), noise=7, stretch=6, amount=0.5, gloss=0.2
    )
    for x in (x0 - w, x0 + w):
        room.box((x, y0, height / 2), (0.015, depth, height / 2), board, "shelf")
    room.box((x0, y0 + depth - 0.005, height / 2), (w, 0.006, height / 2), board, "shelf")
    levels = (0.06, 0.45, 0.84, 1.23, 1.60, 1.94)
    for z in levels:
        room.box((x0, y0, z), (w, depth, 0.014), board, "shelf")
    draw = torch.Generator().manual_seed(5)

    def uniform(lo: float, hi: float) -> float:
        return lo + (hi - lo) * float(torch.rand((), generator=draw))

    colours = (
        "red",
        "blue",
        "green",
        "yellow",
        "white",
        "orange",
        "turquoise",
        "purple",
        "brown",
        "grey",
        "pink",
        "black",
    )
    for level, (start, stop) in enumerate([(-0.58, 0.50), (-0.58, 0.08), (-0.10, 0.56), (-0.58, 0.20)]):
        x = start
        while x < stop:
            half = uniform(0.012, 0.028)
            tall = uniform(0.11, 0.165)
            index = int(uniform(0, len(colours)))
            spine = Material(
                colour=colours[index],
                second=colours[(index + 4) % 12],
                pattern="stripes",
                repeat=(0.0, uniform(2, 5)),
                amount=0.1,
                seed=int(uniform(0, 60000)),
                gloss=0.25,
            )
            room.box(
                (x0 + x + half, y0 - 0.02 + uniform(-0.02, 0.02), levels[level] + 0.014 + tall),
                (half, 0.11, tall),
                spine,
                "books",
            )
            x += 2 * half + uniform(0.001, 0.006)
    globe = Material(colour="blue", second="green", pattern="clouds", noise=9, amount=1.0, seed=9, gloss=0.6)
    room.revolution("sphere", (x0 + 0.36, y0 - 0.02, 0.454 + 0.17), (0.13, 0.13, 0.13), globe, "globe")
    room.revolution("frustum", (x0 + 0.36, y0 - 0.02, 0.454 + 0.025), (0.07, 0.07, 0.025), board, "globe")
    pot = Material(colour=(0.52, 0.20, 0.09), pattern="speckle", repeat=(40, 40), round=0.08, gloss=0.1)
    room.revolution("cup", (x0 - 0.38, y0 - 0.02, 0.854 + 0.075), (0.08, 0.08, 0.075), pot, "flower pot")
    leaf = Material(colour="green", second=(0.16, 0.50, 0.12), pattern="stripes", repeat=(90, 0), amount=1.0)
    for i in range(6):
        turn = (0.0, 38.0, 60.0 * i + 10)
        a = math.radians(turn[2])
        room.revolution(
            "sphere",
            (x0 - 0.38 + 0.07 * math.cos(a), y0 - 0.02 + 0.07 * math.sin(a), 0.854 + 0.21),
            (0.025, 0.008, 0.085),
            leaf,
            "plant",
            turn,
        )
    jar = Material(colour=(0.60, 0.56, 0.40), second="brown", pattern="tiles", repeat=(20, 30), round=0.07, gloss=0.6)
    room.revolution("barrel", (x0 + 0.36, y0 - 0.02, 1.244 + 0.12), (0.075, 0.075, 0.12), jar, "jar")
    crate = Material(colour=(0.45, 0.33, 0.18), second=_WALNUT, pattern="tiles", repeat=(3, 14), amount=0.8)
    room.box((x0 - 0.2, y0, 1.954 + 0.09), (0.25, 0.13, 0.09), crate, "crate")


def _sofa(room: SceneBuilder) -> None:
    """At the far wall, left, with cushions."""
    x0, y0 = -1.05, 1.72
    cloth = Material(
        colour=(0.10, 0.17, 0.27), second=(0.16, 0.26, 0.40), pattern="checker", repeat=(70, 70), amount=0.5, gloss=0.05
    )
    room.box((x0, y0, 0.22), (0.88, 0.40, 0.14), cloth, "sofa")
    room.box((x0, y0 + 0.34, 0.55), (0.88, 0.11, 0.26), cloth, "sofa", (-8, 0, 0))
    for side in (-1, 1):
        room.capsule((x0 + side * 0.87, y0, 0.50), 0.10, 0.34, cloth, "sofa", (90, 0, 0))
        room.box((x0 + side * 0.87, y0, 0.26), (0.10, 0.42, 0.22), cloth, "sofa")
        room.box((x0 + side * 0.40, y0 - 0.04, 0.42), (0.36, 0.34, 0.07), cloth, "sofa")
    for x, colour, second, pattern, turn in (
        (-1.55, "yellow", "white", "stripes", (68, 0, 14)),
        (-0.60, "red", "white", "dots", (68, 0, -12)),
        (-1.08, "turquoise", "white", "checker", (66, 0, 2)),
    ):
        repeat = (14, 0) if pattern == "stripes" else (16, 16)
        cover = Material(colour=colour, second=second, pattern=pattern, repeat=repeat, amount=0.2, gloss=0.05)
        room.revolution("barrel", (x, y0 + 0.12, 0.66), (0.19, 0.19, 0.06), cover, f"{colour} cushion", turn)


def _walls(room: SceneBuilder) -> None:
    """Window, pictures, lamp, rug, plant, ball."""
    frame = Material(colour="white", gloss=0.3)
    pane = Material(
        colour=(0.75, 0.88, 1.0), second=(1.0, 1.0, 1.0), pattern="clouds", noise=2.5, amount=0.6, emission=1.5
    )
    room.box((-2.595, 0.35, 1.45), (0.01, 0.75, 0.60), pane, "window")
    for y in (-0.40, 0.35, 1.10):
        room.box((-2.58, y, 1.45), (0.03, 0.03, 0.63), frame, "window")
    for z in (0.84, 1.45, 2.06):
        room.box((-2.58, 0.35, z), (0.03, 0.78, 0.03), frame, "window")
    for i, (x, z, w, h) in enumerate(
        [(-1.55, 1.62, 0.24, 0.32), (-0.90, 1.58, 0.30, 0.22), (-0.28, 1.66, 0.20, 0.28), (0.42, 1.52, 0.34, 0.44)]
    ):
        room.box((x, 2.19, z), (w + 0.025, 0.012, h + 0.025), Material(colour="black", gloss=0.4), f"picture {i + 1}")
        art = Material(colour="white", pattern="print", repeat=(0.5 / w, 0.5 / h), seed=301 + 13 * i)
        room.box((x, 2.178, z), (w, 0.004, h), art, f"picture {i + 1}")
    for i, (y, z, w, h) in enumerate([(-0.9, 1.55, 0.30, 0.42), (0.2, 1.60, 0.42, 0.30), (1.2, 1.55, 0.26, 0.36)]):
        art = Material(colour="white", pattern="print", repeat=(0.5 / w, 0.5 / h), seed=501 + 17 * i)
        room.box((2.592, y, z), (0.005, w, h), art, f"poster {i + 1}")
    rug = Material(
        colour=(0.45, 0.08, 0.07), second=_CREAM, pattern="stripes", repeat=(0, 9), noise=25, amount=0.1, gloss=0.0
    )
    room.box((0.15, 0.15, 0.006), (1.35, 1.0, 0.006), rug, "rug")
    pot = Material(colour=(0.62, 0.60, 0.56), second="grey", pattern="speckle", repeat=(30, 30), round=0.16, gloss=0.2)
    room.revolution("cup", (-2.1, -1.25, 0.19), (0.17, 0.17, 0.19), pot, "plant pot")
    leaf = Material(
        colour=(0.05, 0.28, 0.07), second=(0.20, 0.50, 0.13), pattern="stripes", repeat=(50, 0), amount=1.0, gloss=0.3
    )
    for i in range(9):
        lift, a = 18.0 + 5.0 * (i % 4), math.radians(40 * i)
        reach = 0.16 + 0.03 * (i % 3)
        room.revolution(
            "sphere",
            (-2.1 + reach * math.cos(a), -1.25 + reach * math.sin(a), 0.72 + 0.05 * (i % 2)),
            (0.07, 0.012, 0.32),
            leaf,
            "plant",
            (0, lift, math.degrees(a)),
        )
    ball = Material(
        colour="yellow", second="blue", pattern="stripes", repeat=(7, 0.0), round=0.16, amount=0.0, gloss=0.5
    )
    room.revolution("sphere", (-0.85, -0.35, 0.162), (0.15, 0.15, 0.15), ball, "ball", (25, 20, 0))
    steel = Material(colour="black", gloss=0.5)
    room.revolution("cylinder", (-2.15, 1.85, 0.02), (0.15, 0.15, 0.02), steel, "floor lamp")
    room.capsule((-2.15, 1.85, 0.80), 0.014, 0.76, steel, "floor lamp")
    shade = Material(
        colour=(1.0, 0.80, 0.50), emission=1.1, pattern="stripes", repeat=(60, 0.0), round=0.17, amount=0.0
    )
    room.revolution("frustum", (-2.15, 1.85, 1.62), (0.19, 0.19, 0.15), shade, "floor lamp")


def furnished_room(camera: Tensor, *, rate: float) -> Scenes:
    """The room with a camera path T_world_camera [T, 4, 4]."""
    plaster = Material(
        colour=(0.66, 0.62, 0.54), second=(0.56, 0.52, 0.45), pattern="clouds", noise=5, amount=0.4, gloss=0.02
    )
    accent = Material(
        colour=(0.30, 0.42, 0.42), second=(0.26, 0.37, 0.38), pattern="stripes", repeat=(7, 0.0), amount=0.1, gloss=0.03
    )
    floor = Material(
        colour=(0.44, 0.26, 0.13),
        second=(0.20, 0.10, 0.05),
        pattern="tiles",
        repeat=(1.1, 7.5),
        noise=9,
        amount=1.0,
        gloss=0.3,
    )
    room = SceneBuilder(
        room_min=(-2.6, -2.2, 0.0),
        room_max=(2.6, 2.2, 2.65),
        walls={
            "walls": plaster,
            "far wall": accent,
            "floor": floor,
            "ceiling": Material(colour=(0.85, 0.84, 0.81), amount=0.1),
        },
    )
    _table(room)
    _chairs(room)
    _shelf(room)
    _sofa(room)
    _walls(room)
    room.light((-2.3, 0.35, 1.85), (6.2, 6.3, 6.6), 0.25)
    room.light((0.5, -0.3, 2.55), (3.2, 2.8, 2.2), 0.22)
    return room.build(
        camera, focal=0.86, rate=rate, ambient=((0.20, 0.21, 0.235), (0.13, 0.11, 0.09)), exposure=(0.92, 0.92, 0.92)
    )


def walk(frames: int) -> Tensor:
    """A hand-held walk around the table, T_world_camera [frames, 4, 4]: about three metres, looking at the table."""
    s = torch.linspace(0, 1, frames, dtype=torch.float64)
    ease = s * s * (3 - 2 * s) * 0.35 + s * 0.65
    angle = torch.deg2rad(torch.tensor(-142.0) + 96.0 * ease)
    radius = 1.78 - 0.25 * torch.sin(math.pi * s)
    sway = torch.stack([torch.sin(11 * s + 0.3), torch.sin(13 * s + 1.0), torch.sin(19 * s)], -1) * torch.tensor(
        [0.02, 0.02, 0.015]
    )
    position = torch.stack(
        [0.15 + radius * torch.cos(angle), 0.25 + radius * torch.sin(angle), 1.42 - 0.12 * torch.sin(2.6 * s)], -1
    ) + sway  # fmt: skip
    target = torch.stack(
        [0.05 + 0.3 * torch.sin(2.2 * s), 0.55 + 0.1 * torch.sin(4 * s), 0.80 + 0.06 * torch.sin(5 * s + 1)], -1
    )
    return look_at(position, target, 0.025 * torch.sin(7 * s + 0.5))
