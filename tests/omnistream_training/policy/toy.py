# SPDX-License-Identifier: Apache-2.0
"""A table from above in plain numpy: three blocks, two bins, a gripper, six tasks in words, and an expert.

The action is (dx, dy, gripper), one unit of dx being `STEP` of the table's width. The task needs eyes and ears:
which block and which bin are said in words only, and where they are is in the picture only.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

from omnistream.contract import Action, Camera, Contract, Dimension, Gripper
from omnistream.episodes import EpisodeWriter

SIZE, STEP, LIMIT, REACH = 64, 0.06, 60, 0.07
COLOURS = {"red": (220, 40, 40), "green": (40, 200, 60), "blue": (50, 80, 230)}
BINS = {"left": (0.12, 0.5), "right": (0.88, 0.5)}
TEMPLATES = (
    "put the {c} block in the {b} bin",
    "move the {c} cube to the {b} tray",
    "pick up the {c} one and place it {b}",
)
CONTRACT = Contract(
    rate=10.0,
    cameras=(Camera("top", SIZE, SIZE),),
    state=(Dimension("x", "1"), Dimension("y", "1"), Dimension("closed", "1")),
    action=Action(
        (Dimension("dx", "1"), Dimension("dy", "1"), Dimension("gripper", "1")),
        mode="delta",
        frame="table",
        grippers=(Gripper(2, 1.0, -1.0),),
    ),
)


class Table:
    """One episode after another, each from its seed."""

    def reset(self, seed: int) -> np.ndarray:
        draw = np.random.default_rng(seed)
        while True:
            self.blocks = draw.uniform([0.27, 0.12], [0.73, 0.88], (3, 2))
            apart = [np.linalg.norm(self.blocks[i] - self.blocks[j]) for i in range(3) for j in range(i)]
            if min(apart) > 0.17:
                break
        self.hand = draw.uniform([0.3, 0.05], [0.7, 0.95])
        self.closed, self.held, self.steps = False, -1, 0
        self.block, self.bin = int(draw.integers(3)), str(draw.choice(list(BINS)))
        self.instruction = str(draw.choice(TEMPLATES)).format(c=list(COLOURS)[self.block], b=self.bin)
        return self.render()

    def render(self) -> np.ndarray:
        """uint8 [64, 64, 3]."""
        q = 2 * SIZE
        image = Image.new("RGB", (q, q), (210, 210, 210))
        draw = ImageDraw.Draw(image)

        def box(x: float, y: float, w: float, h: float) -> list[float]:
            return [(x - w) * q, (y - h) * q, (x + w) * q, (y + h) * q]

        for x, y in BINS.values():
            draw.rectangle(box(x, y, 0.1, 0.2), fill=(150, 140, 120))
        for (x, y), colour in zip(self.blocks, COLOURS.values(), strict=True):
            draw.rectangle(box(x, y, 0.055, 0.055), fill=colour)
        draw.ellipse(box(*self.hand, 0.045, 0.045), outline=(0, 0, 0), width=3)
        if self.closed:
            draw.ellipse(box(*self.hand, 0.02, 0.02), fill=(255, 255, 0))
        return np.asarray(image.resize((SIZE, SIZE), Image.Resampling.BOX))

    def state(self) -> np.ndarray:
        return np.array([*self.hand, float(self.closed)], np.float32)

    def expert(self) -> np.ndarray:
        """(dx, dy, gripper): 1 open, -1 closed."""
        if self.held >= 0 and self.held != self.block:
            return np.array([0.0, 0.0, 1.0])
        carrying = self.held == self.block
        way = (np.array(BINS[self.bin]) if carrying else self.blocks[self.block]) - self.hand
        far = np.linalg.norm(way)
        grip = -1.0 if carrying == (far > 0.03) else 1.0
        return np.array([*(way / max(far, STEP)), grip])

    def step(self, action: np.ndarray) -> tuple[np.ndarray, bool]:
        """The picture after, and whether the task is done."""
        self.hand = np.clip(self.hand + np.clip(action[:2], -1, 1) * STEP, 0, 1)
        closing = action[2] < 0
        if closing and not self.closed:
            far = np.linalg.norm(self.blocks - self.hand, axis=1)
            self.held = int(far.argmin()) if far.min() < REACH else -1
        if not closing:
            self.held = -1
        self.closed = bool(closing)
        if self.held >= 0:
            self.blocks[self.held] = self.hand
        self.steps += 1
        x, y = BINS[self.bin]
        bx, by = self.blocks[self.block]
        return self.render(), self.held < 0 and abs(bx - x) < 0.1 and abs(by - y) < 0.2


def demonstrations(seeds: range) -> Iterator[tuple[str, list[tuple[np.ndarray, np.ndarray, np.ndarray]]]]:
    """(instruction, [(state, action, picture)]). Some executed steps are disturbed, the recorded ones are not (DART),
    so that what to do when off the path is in the data."""
    table = Table()
    for seed in seeds:
        picture, noise = table.reset(seed), np.random.default_rng(seed + 10**6)
        rows, done = [], False
        while not done and table.steps < LIMIT:
            action = table.expert()
            rows.append((table.state(), action, picture))
            executed = action.copy()
            if noise.random() < 0.3:
                executed[:2] = np.clip(executed[:2] + noise.normal(0, 0.6, 2), -1, 1)
            picture, done = table.step(executed)
        yield table.instruction, rows


def write_demonstrations(folder: Path, seeds: range) -> Path:
    """A data set on disk, without loss."""
    with EpisodeWriter(folder, CONTRACT, storage="image") as writer:
        for instruction, rows in demonstrations(seeds):
            writer.begin(instruction)
            for state, action, picture in rows:
                writer.add(state, action, {"top": picture})
            writer.end(success=True)
    return folder
