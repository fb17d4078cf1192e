# SPDX-License-Identifier: Apache-2.0
"""The questions of a probe.

Three are asked of the whole picture: about the largest thing that is not a wall of it, and about the one thing of a
colour, with a regression for every colour; four of a patch that lies on a thing, about that thing. Places in the
camera's frame are asked for as direction times log(1 + distance), so that a street and a table top fit one regression;
their error is measured in per cent of the mean of both distances, the true one and the answered one, which keeps a near
thing from counting more than a far one.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from omnistream_training.evaluation.probe.scenes import ProbeScenes, Seen

LARGEST = 0.25
"""Share of the picture; what covers more is a table or a wall rather than a thing."""
THINGS_PER_SCENE = 8
ON_THING = 0.15
"""Share of a patch's pixels that must show the thing, and more than of any other thing."""
MIN_CLASS = 12
"""Samples that a class needs to be asked for at all."""
MIN_GROUP = 40
"""Scenes with one thing of a colour, for a regression of its own."""


@dataclass(frozen=True)
class Task:
    """N samples of one question."""

    name: str
    unit: str
    level: Literal["picture", "patch"]
    scene: NDArray[np.int64]
    """[N]"""
    patch: NDArray[np.int64]
    """[N] number of the patch; all -1 for questions to the picture."""
    answers: NDArray[np.float64]
    """[N, k] to regress, or [N] class numbers."""
    classes: tuple[str, ...] = ()
    """Names of the classes; empty: a regression."""
    group: NDArray[np.int64] | None = None
    """[N]: samples of different groups get regressions of their own, of one strength; None: all are one group."""
    error: Literal["width", "distance", "balanced"] = "width"
    """In per cent of the picture's width, of the thing's distance, or right answers, every class counting the same."""

    @property
    def better(self) -> int:
        """-1 where less is better, else 1."""
        return 1 if self.classes else -1


def make_tasks(scenes: ProbeScenes, patch_size: int, seed: int = 0) -> list[Task]:
    """All questions that can be asked of these scenes."""
    height, width = scenes.ids.shape[1:]
    tasks = [*_picture_tasks(scenes, width / height), *_colour_task(scenes, width / height)]
    where: list[tuple[int, int, Seen]] = []
    rng = np.random.default_rng(seed)
    for number, seen in enumerate(scenes.seen):
        where += [(number, patch, thing) for patch, thing in _patches(scenes.ids[number], seen, patch_size, rng)]
    if not where:
        return tasks
    scene = np.array([number for number, _, _ in where])
    patch = np.array([p for _, p, _ in where])
    things = [thing for _, _, thing in where]
    columns = width // patch_size
    middle = np.stack([(patch % columns + 0.5) * patch_size / width, (patch // columns + 0.5) * patch_size / height], 1)
    centre = np.array([thing.centre for thing in things])
    offset = (centre - middle) * (1.0, height / width)
    tasks.append(Task("where its thing's middle is", "% of width", "patch", scene, patch, offset))
    place = stretch(np.array([thing.place for thing in things]))
    tasks.append(
        Task("where its thing is, camera frame", "% of distance", "patch", scene, patch, place, error="distance")
    )
    colours = [thing.colour for thing in things]
    names = tuple(sorted({c for c in colours if c is not None and colours.count(c) >= MIN_CLASS}))
    tasks += _classes("which colour its thing has", scene, patch, colours, names)
    moves = ["moves" if thing.moves else "stands" for thing in things]
    tasks += _classes("whether its thing moves", scene, patch, moves, ("stands", "moves"))
    return tasks


def _picture_tasks(scenes: ProbeScenes, aspect: float) -> list[Task]:
    """aspect: width / height."""
    main = [next((thing for thing in seen if thing.share <= LARGEST), None) for seen in scenes.seen]
    known = [(number, thing) for number, thing in enumerate(main) if thing is not None]
    if not known:
        return []
    scene = np.array([number for number, _ in known])
    none = np.full(len(known), -1)
    centre = np.array([thing.centre for _, thing in known]) * (1.0, 1 / aspect)
    place = stretch(np.array([thing.place for _, thing in known]))
    return [
        Task("where the largest thing is", "% of width", "picture", scene, none, centre),
        Task(
            "where the largest thing is, camera frame", "% of distance", "picture", scene, none, place, error="distance"
        ),
    ]


def _colour_task(scenes: ProbeScenes, aspect: float) -> list[Task]:
    """Where the only thing of a colour is, for every colour that is alone often enough."""
    found: dict[str, list[tuple[int, Seen]]] = {}
    for number, seen in enumerate(scenes.seen):
        colours = Counter(thing.colour for thing in seen)
        for thing in seen:
            if thing.colour is not None and colours[thing.colour] == 1:
                found.setdefault(thing.colour, []).append((number, thing))
    kept = [found[colour] for colour in sorted(found) if len(found[colour]) >= MIN_GROUP]
    if not kept:
        return []
    scene = np.array([number for group in kept for number, _ in group])
    centre = np.array([thing.centre for group in kept for _, thing in group]) * (1.0, 1 / aspect)
    group = np.repeat(np.arange(len(kept)), [len(group) for group in kept])
    none = np.full(len(scene), -1)
    return [Task("where the thing of a colour is", "% of width", "picture", scene, none, centre, group=group)]


def _patches(
    ids: NDArray[np.int32], seen: tuple[Seen, ...], size: int, rng: np.random.Generator
) -> list[tuple[int, Seen]]:
    """One patch per thing, any of those that show it."""
    rows, columns = ids.shape[0] // size, ids.shape[1] // size
    cells = ids[: rows * size, : columns * size].reshape(rows, size, columns, size)
    covers = np.array([(cells == thing.id).mean((1, 3)).ravel() for thing in seen])
    found = []
    for thing, cover in zip(seen, covers, strict=True):
        candidates = np.flatnonzero((cover >= ON_THING) & (cover >= covers.max(0)))
        if len(candidates):
            found.append((int(rng.choice(candidates)), thing))
    order = rng.permutation(len(found))[:THINGS_PER_SCENE]
    return [found[i] for i in order]


def _classes(
    name: str,
    scene: NDArray[np.int64],
    patch: NDArray[np.int64],
    labels: list[str | None] | list[str],
    classes: tuple[str, ...],
) -> list[Task]:
    """No task where fewer than two classes occur often enough."""
    rows = [i for i, label in enumerate(labels) if label in classes]
    numbers = np.array([classes.index(str(labels[i])) for i in rows])
    if len(classes) < 2 or min(np.bincount(numbers, minlength=len(classes)).tolist(), default=0) < MIN_CLASS:
        return []
    return [Task(name, "% right", "patch", scene[rows], patch[rows], numbers, classes, error="balanced")]


def stretch(points: NDArray[np.float64]) -> NDArray[np.float64]:
    """[N, 3] m -> direction times log(1 + distance)."""
    distance = np.linalg.norm(points, axis=1, keepdims=True)
    return points / np.maximum(distance, 1e-9) * np.log1p(distance)


def shrink(values: NDArray[np.float64], most: float) -> NDArray[np.float64]:
    """The inverse of `stretch`; lengths beyond `most` (the longest of the training scenes) are cut down to it."""
    length = np.linalg.norm(values, axis=1, keepdims=True)
    return values / np.maximum(length, 1e-9) * np.expm1(np.minimum(length, most))
