# SPDX-License-Identifier: Apache-2.0
"""The table with its cabinet as URDF: a drawer with a knob, a slider on a rail, a button, a lamp."""

from __future__ import annotations

from collections.abc import Sequence

from .assets import slab_mesh
from .layout import (
    BUTTON_TRAVEL,
    CABINET_DEPTH,
    CABINET_HEIGHT,
    CABINET_WIDTH,
    DRAWER_TRAVEL,
    SLIDER_TRAVEL,
    Colour,
    Layout,
)

LINKS = ("top", "legs", "cabinet", "drawer", "slider", "button_base", "button", "lamp")
"""In the order of the URDF; "top" is the base (index -1), "legs" has index 0."""
LAMP_OFF: Colour = (0.30, 0.30, 0.26)
LAMP_ON: Colour = (1.0, 0.95, 0.35)
_BOARD = 0.012
_Box = tuple[tuple[float, float, float], tuple[float, float, float], Colour]
"""Size, centre, colour."""


def link_index(name: str) -> int:
    """PyBullet's index of a link."""
    return LINKS.index(name) - 1


def table_urdf(layout: Layout) -> str:
    """The table of a layout.

    Joints in metres: drawer 0 (closed) .. DRAWER_TRAVEL, slider +- SLIDER_TRAVEL / 2, button 0 (up) .. BUTTON_TRAVEL.
    """
    (x0, y0), (x1, y1) = layout.table_low, layout.table_high
    size = (x1 - x0, y1 - y0, 0.04)
    middle = ((x0 + x1) / 2, (y0 + y1) / 2)
    colours = layout.colours
    mesh = f'<mesh filename="{slab_mesh()}" scale="{_text(size)}"/>'
    seen = f'<origin xyz="{_text((*middle, 0))}"/><geometry>{mesh}</geometry>{_material(colours["table"])}'
    top = f"<visual>{seen}</visual>" + _collision(size, (*middle, -0.02))
    height = -layout.floor - 0.04
    legs = [
        ((0.05, 0.05, height), (x, y, -0.04 - height / 2), colours["legs"])
        for x in (x0 + 0.05, x1 - 0.05)
        for y in (y0 + 0.05, y1 - 0.05)
    ]
    front, y = layout.cabinet
    parts = [
        _link("top", top),
        _link("legs", _boxes(legs)) + _joint("legs", "fixed", (0, 0, 0)),
        _link("cabinet", _boxes(_cabinet(layout))) + _joint("cabinet", "fixed", (front, y, 0)),
        _link("drawer", _boxes(_drawer(layout)), mass=0.4)
        + _joint("drawer", "prismatic", (*layout.drawer_xy, 0), (-1, 0, 0), (0, DRAWER_TRAVEL)),
        _link("slider", _boxes(_slider(layout)), mass=0.15)
        + _joint(
            "slider",
            "prismatic",
            (*layout.slider_xy, CABINET_HEIGHT),
            (0, 1, 0),
            (-SLIDER_TRAVEL / 2, SLIDER_TRAVEL / 2),
        ),
        _link("button_base", _boxes([((0.07, 0.07, 0.012), (0, 0, 0.006), colours["button_base"])]))
        + _joint("button_base", "fixed", (*layout.button_xy, 0)),
        _link("button", _boxes([((0.044, 0.044, 0.02), (0, 0, 0.01), colours["button"])]), mass=0.05)
        + _joint("button", "prismatic", (*layout.button_xy, 0.012), (0, 0, -1), (0, BUTTON_TRAVEL)),
        _link("lamp", _boxes([((0.045, 0.045, 0.035), (0, 0, 0.0175), LAMP_OFF)]))
        + _joint("lamp", "fixed", (*layout.lamp_xy, CABINET_HEIGHT)),
    ]
    return '<?xml version="1.0"?>\n<robot name="table">\n' + "\n".join(parts) + "\n</robot>\n"


def _cabinet(layout: Layout) -> list[_Box]:
    """Boards, from the middle of the front: open where the drawer goes in."""
    colour, depth, width, height = layout.colours["cabinet"], CABINET_DEPTH, CABINET_WIDTH, CABINET_HEIGHT
    wall = height - _BOARD
    rail = tuple(0.6 * c for c in colour)
    upright = [(y, colour) for y in (-width / 2 + _BOARD / 2, 0.0, width / 2 - _BOARD / 2)]
    return [
        ((depth, width, _BOARD), (depth / 2, 0, height - _BOARD / 2), colour),
        *(((depth, _BOARD, wall), (depth / 2, y, wall / 2), c) for y, c in upright),
        ((_BOARD, width, wall), (depth - _BOARD / 2, 0, wall / 2), colour),
        ((_BOARD, width / 2, wall), (_BOARD / 2, -layout.side * width / 4, wall / 2), colour),
        ((0.014, SLIDER_TRAVEL + 0.06, 0.004), (0.03, -layout.side * 0.15, height + 0.002), rail),  # type: ignore[list-item]
    ]


def _drawer(layout: Layout) -> list[_Box]:
    """An open box behind a front with a knob that stands upright: a gripper pointing down can take it."""
    colour, handle = layout.colours["drawer"], layout.colours["handle"]
    return [
        ((0.012, 0.27, 0.112), (-0.007, 0, 0.064), colour),
        ((0.19, 0.25, 0.006), (0.095, 0, 0.011), colour),
        ((0.19, 0.006, 0.06), (0.095, 0.122, 0.044), colour),
        ((0.19, 0.006, 0.06), (0.095, -0.122, 0.044), colour),
        ((0.006, 0.25, 0.06), (0.187, 0, 0.044), colour),
        ((0.04, 0.016, 0.016), (-0.033, 0, 0.06), handle),
        ((0.024, 0.024, 0.085), (-0.055, 0, 0.0725), handle),
    ]


def _slider(layout: Layout) -> list[_Box]:
    colour = layout.colours["slider"]
    return [((0.03, 0.045, 0.012), (0, 0, 0.011), colour), ((0.024, 0.024, 0.06), (0, 0, 0.047), colour)]


def _link(name: str, content: str, mass: float = 0.0) -> str:
    moment = mass * 1e-2
    inertia = f'<inertia ixx="{moment}" iyy="{moment}" izz="{moment}" ixy="0" ixz="0" iyz="0"/>'
    return f'<link name="{name}"><inertial><mass value="{mass}"/>{inertia}</inertial>{content}</link>'


def _joint(
    child: str,
    kind: str,
    origin: Sequence[float],
    axis: Sequence[float] = (0, 0, 1),
    limits: tuple[float, float] | None = None,
) -> str:
    bounds = "" if limits is None else f'<limit lower="{limits[0]}" upper="{limits[1]}" effort="50" velocity="2"/>'
    return (
        f'<joint name="{child}_joint" type="{kind}"><parent link="top"/><child link="{child}"/>'
        f'<origin xyz="{_text(origin)}"/><axis xyz="{_text(axis)}"/>{bounds}</joint>'
    )


def _boxes(boxes: Sequence[_Box]) -> str:
    return "".join(
        f'<visual><origin xyz="{_text(centre)}"/><geometry><box size="{_text(size)}"/></geometry>{_material(colour)}'
        f"</visual>{_collision(size, centre)}"
        for size, centre, colour in boxes
    )


def _collision(size: Sequence[float], centre: Sequence[float]) -> str:
    return f'<collision><origin xyz="{_text(centre)}"/><geometry><box size="{_text(size)}"/></geometry></collision>'


def _material(colour: Colour) -> str:
    name = "-".join(f"{round(255 * c):02x}" for c in colour)  # equal names would share the first one's colour
    return f'<material name="{name}"><color rgba="{_text((*colour, 1))}"/></material>'


def _text(values: Sequence[float]) -> str:
    return " ".join(f"{v:.6g}" for v in values)
