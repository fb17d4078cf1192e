# SPDX-License-Identifier: Apache-2.0
"""The objects of a clip as a program reads them: which id, what it is called, which colour, whether it moves.

The field that `omnistream-eval probe` asks a live source for (the rules are in docs/data.md).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch

from .describe import FIRST_OBJECT, object_names
from .materials import PALETTE, PATTERNS
from .scene import Scenes, object_poses

_SHIFT, _TURN = 0.01, math.radians(10)
"""m and radians between any two pictures of a clip, from which on a thing counts as moving."""


@dataclass(frozen=True)
class Thing:
    """One object. Walls, floor, ceiling, ground and sky are none."""

    id: int
    """As in `Clip.ids`."""
    words: str
    """ "red ball"."""
    colour: str | None
    """Name in `materials.PALETTE`; None where two colours share the surface."""
    moves: bool
    """Whether it changes place or orientation during the clip, in the world."""


def things_of(scenes: Scenes, frames: int) -> tuple[tuple[Thing, ...], ...]:
    """Per scene, what is there, seen or not, during the first `frames` pictures."""
    names = object_names(scenes)
    rotation, centre = object_poses(scenes, scenes.stamps[:frames])
    shift = (centre - centre[:, :1]).norm(dim=-1).amax(1)  # [B, N]
    trace = (rotation * rotation[:, :1]).sum((-1, -2))
    turn = torch.acos(((trace - 1) / 2).clamp(-1, 1)).amax(1)
    moves = ((shift > _SHIFT) | (turn > _TURN)).tolist()
    colours = _colours(scenes)
    result = []
    for b in range(scenes.batch):
        found: dict[int, Thing] = {}
        slots = zip(scenes.object_id[b, : scenes.slots].tolist(), scenes.active[b].tolist(), strict=True)
        for slot, (number, active) in enumerate(slots):
            if active and number >= FIRST_OBJECT and number not in found:  # the first part stands for the object
                words = names[b].get(number, "thing")
                found[number] = Thing(number, words, colours[b][slot], moves[b][slot])
        result.append(tuple(found.values()))
    return tuple(result)


def _colours(scenes: Scenes) -> list[list[str | None]]:
    """[B][N] colour words, None where there is not one."""
    if scenes.words is None:
        return [[None] * scenes.slots for _ in range(scenes.batch)]
    palette, words = list(PALETTE), scenes.words
    table = torch.stack([words.colour, words.second, words.pattern], -1)[:, : scenes.slots].tolist()

    def colour(first: int, second: int, pattern: str) -> str | None:
        return palette[first] if pattern == "plain" or (first == second and pattern != "print") else None

    return [[colour(first, second, PATTERNS[pattern]) for first, second, pattern in rows] for rows in table]
