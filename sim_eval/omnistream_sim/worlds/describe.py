# SPDX-License-Identifier: Apache-2.0
"""Words for a clip: what is seen, how many of it, and where it is.

Only what the object ids of the pictures show is mentioned, so text and labels never disagree.
"""

from __future__ import annotations

from collections import Counter
from itertools import pairwise

import torch
from torch import Tensor

from .layout import NOUNS
from .materials import PALETTE, PATTERNS
from .scene import Scenes, object_poses

_PATTERN_WORDS = dict(
    zip(
        PATTERNS,
        ("", "checkered", "striped", "mottled", "wooden", "marbled", "speckled", "tiled", "dotted", "printed"),
        strict=True,
    )
)
_NOUN_WORDS = {"sphere": "ball", "frustum": "tapered cylinder"}
_SHELL = ("wall", "floor", "ceiling", "ground")
_NUMBERS = ("no", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten")
_SMALLEST = 0.001
"""Share of a picture from which on an object counts as seen."""
FIRST_OBJECT = 7
"""Ids below are the faces of the room."""


def object_names(scenes: Scenes) -> tuple[dict[int, str], ...]:
    """Per scene: object id -> words, such as "red and white striped ball"."""
    if scenes.names:
        return scenes.names
    words = scenes.words
    if words is None:
        return tuple({} for _ in range(scenes.batch))
    colours = list(PALETTE)
    columns = (scenes.object_id, words.colour, words.second, words.pattern, words.noun)
    table = torch.stack([c.long() for c in columns], -1).tolist()
    result: list[dict[int, str]] = []
    for rows in table:
        names: dict[int, str] = {}
        for object_id, colour, second, pattern, noun in rows:
            if object_id not in names:  # the first part names the object
                names[object_id] = _name(colours[colour], colours[second], PATTERNS[pattern], NOUNS[noun])
        result.append(names)
    return tuple(result)


def _name(colour: str, second: str, pattern: str, noun: str) -> str:
    noun = "wall" if noun.endswith("wall") else _NOUN_WORDS.get(noun, noun)
    two = second != colour and pattern not in ("plain", "print")
    return " ".join(filter(None, [f"{colour} and {second}" if two else colour, _PATTERN_WORDS[pattern], noun]))


def describe(scenes: Scenes, ids: Tensor) -> tuple[str, ...]:
    """One text per clip from its object ids [B, T, H, W]; positions are those in the first frame."""
    names = object_names(scenes)
    rotation, centre = object_poses(scenes, scenes.stamps[:1])
    del rotation
    pose = scenes.T_world_camera[:, 0]
    away = centre[:, 0] - pose[:, None, :3, 3]
    seen_from = (away[..., None] * pose[:, None, :3, :3]).sum(-2)  # camera frame, [B, N, 3]
    moving = (scenes.motion.swing.abs().sum(-1) + scenes.motion.bounce + scenes.motion.spin_rate.abs()) > 0
    texts = []
    for b in range(scenes.batch):
        first = ids[b, 0]
        values, counts = torch.unique(first, return_counts=True)
        least = _SMALLEST * first.numel()
        shown = {int(v): int(c) for v, c in zip(values, counts, strict=True) if c >= least and int(v) in names[b]}
        places: dict[int, tuple[list[float], bool]] = {}
        for slot, object_id in enumerate(scenes.object_id[b, : scenes.slots].tolist()):
            places.setdefault(object_id, (seen_from[b, slot].tolist(), bool(moving[b, slot])))
        texts.append(_text(names[b], shown, places))
    return tuple(texts)


def _text(names: dict[int, str], shown: dict[int, int], places: dict[int, tuple[list[float], bool]]) -> str:
    """Sentences about the objects of `shown` (id -> pixels)."""
    objects = sorted((i for i in shown if i >= FIRST_OBJECT), key=lambda i: -shown[i])
    shell = sorted({names[i] for i in shown if i < FIRST_OBJECT})
    counts = Counter(names[i] for i in objects)
    parts = [_some(count, name) for name, count in counts.items()] + [_some(1, name) for name in shell]
    if not parts:
        return "Nothing but sky."
    sentences = [f"In view: {_list(parts)}."]
    if objects:
        sentences.append(f"{_NUMBERS[len(objects)].capitalize() if len(objects) <= 10 else len(objects)} "
                         f"object{'s' if len(objects) > 1 else ''}.")  # fmt: skip
    unique = [i for i in objects if counts[names[i]] == 1 and i in places]
    for a, b in pairwise(unique[:4]):
        sentences.append(f"The {names[a]} is {_relation(places[a][0], places[b][0])} the {names[b]}.")
    movers = [names[i] for i in unique if places[i][1]]
    if movers:
        sentences.append(f"The {_list(movers[:3])} move{'s' if len(movers[:3]) == 1 else ''}.")
    return " ".join(sentences)


def _relation(a: list[float], b: list[float]) -> str:
    """Where a is, seen from the camera (x right, y down, z away), with respect to b."""
    sideways, down, away = a[0] / max(a[2], 0.1) - b[0] / max(b[2], 0.1), a[1] - b[1], a[2] - b[2]
    if abs(away) > 0.5 * max(a[2], b[2], 0.1) and abs(away) > abs(sideways) * 2:
        return "behind" if away > 0 else "in front of"
    if abs(down) > abs(a[0] - b[0]):
        return "below" if down > 0 else "above"
    return "right of" if sideways > 0 else "left of"


def _some(count: int, name: str) -> str:
    if count > 1:
        plural = name + ("es" if name.endswith(("x", "s")) else "s")
        return f"{_NUMBERS[count] if count <= 10 else count} {plural}"
    return f"{'an' if name[0] in 'aeiou' else 'a'} {name}"


def _list(parts: list[str]) -> str:
    return parts[0] if len(parts) == 1 else ", ".join(parts[:-1]) + " and " + parts[-1]
