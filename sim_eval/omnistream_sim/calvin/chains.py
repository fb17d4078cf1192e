# SPDX-License-Identifier: Apache-2.0
"""The official chains: a start scene and five tasks each, drawn as calvin_agent's multistep_sequences.py draws them.

Each of the 192 possible start scenes has its own generator, seeded with the scene's number, and its share of the 1000
chains; one shuffle with seed 0 puts all of them in order. So the first N chains need only the scenes they start from,
which takes milliseconds per chain instead of minutes for all.

numpy's legacy generator is used on purpose: the protocol is defined by its stream.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import product

import numpy as np

from omnistream.errors import ConfigError

from .tasks import COLOURS, IN_SLIDER, TASKS, Scene

TOTAL = 1000
"""Chains of the official evaluation."""
LENGTH = 5
DIGEST = "ab0703429fe9243ee489eb8e3cd7068ce03fbf75edc7b1345e89ce89b58d710a"
"""sha256 of all 1000 chains as `digest` writes them; equal for ours and for a run of the original."""


@dataclass(frozen=True)
class Chain:
    """What one official chain asks for."""

    number: int
    """Position in the official order, from 0."""
    scene: Scene
    """At its start."""
    tasks: tuple[str, ...]


@cache
def start_scenes() -> tuple[Scene, ...]:
    """The 192 start scenes in the protocol's order: one or two blocks on the table, no two in the same cabinet half."""
    values: dict[str, tuple[int | str, ...]] = {
        "led": (0, 1),
        "lightbulb": (0, 1),
        "slider": ("right", "left"),
        "drawer": ("closed", "open"),
        **{f"{colour}_block": ("table", *IN_SLIDER) for colour in COLOURS},
        "grasped": (0,),
    }
    return tuple(
        dict(zip(values, words, strict=True))
        for words in product(*values.values())
        if words.count("table") in (1, 2) and all(words.count(side) < 2 for side in IN_SLIDER)
    )


def is_valid(scene: Scene, tasks: Sequence[str]) -> bool:
    """Whether tasks can be done one after the other, each in exactly one way, all of different kinds."""
    if len({TASKS[name].kind for name in tasks}) != len(tasks):
        return False
    now: Scene | None = scene
    for name in tasks:
        now = TASKS[name].result(now) if now is not None else None
    return now is not None


def scene_chains(number: int, count: int) -> list[tuple[str, ...]]:
    """The first `count` chains of a start scene: five distinct tasks are drawn until they are valid."""
    names, scene = list(TASKS), start_scenes()[number]
    kinds = np.array([task.kind for task in TASKS.values()])
    rng = np.random.RandomState(number)
    found: list[tuple[str, ...]] = []
    while len(found) < count:
        drawn = rng.permutation(len(names))[:LENGTH]  # what choice(names, 5, replace=False) does
        if len(set(kinds[drawn].tolist())) == LENGTH and is_valid(scene, [names[i] for i in drawn]):
            found.append(tuple(names[i] for i in drawn))
    return found


def official_chains(count: int = TOTAL) -> list[Chain]:
    """The first `count` of the official 1000, in the official order.

    (The original with another NUM_SEQUENCES than 1000 draws a different set; the first N of the 1000 are a fair sample
    of what is published.) ConfigError for a count outside 1..1000.
    """
    if not 1 <= count <= TOTAL:
        raise ConfigError(f"{count} chains; expected 1 to {TOTAL}")
    shares = [len(part) for part in np.array_split(range(TOTAL), len(start_scenes()))]
    owners = [(scene, position) for scene, share in enumerate(shares) for position in range(share)]
    order = np.random.RandomState(0).permutation(TOTAL)[:count]
    wanted = [owners[i] for i in order]
    needed: dict[int, int] = {}
    for scene, position in wanted:
        needed[scene] = max(needed.get(scene, 0), position + 1)
    drawn = {scene: scene_chains(scene, most) for scene, most in needed.items()}
    return [
        Chain(number, start_scenes()[scene], drawn[scene][position]) for number, (scene, position) in enumerate(wanted)
    ]


def digest(chains: Iterable[tuple[Scene, Sequence[str]]]) -> str:
    """sha256 over scenes and tasks, for comparing lists of chains."""
    text = json.dumps([[list(scene.items()), list(tasks)] for scene, tasks in chains], separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()
