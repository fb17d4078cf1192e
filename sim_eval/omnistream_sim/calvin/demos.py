# SPDX-License-Identifier: Apache-2.0
"""Demonstrations in the real CALVIN: the script is disturbed, what it would have done is written down (DART, Laskey et
al. 2017).

A demonstration is a function of the options and its number. Finished ones are kept in OUT.parts, where a stopped run
finds them again; at the end they become one data set in CALVIN's format.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from omnistream.errors import ConfigError
from omnistream.io.files import replacing, write_bytes
from omnistream_sim.evaluation.protocols import EvaluationError, Observation
from omnistream_sim.parts import Parts

from .chains import start_scenes
from .checkout import find_checkout
from .environment import CalvinEnvironment
from .official import save_configuration
from .recording import Demo, SplitWriter, frame
from .scripted import METRES, STOOD_M, LiftBlock
from .starts import YAW, start_state
from .tasks import COLOURS, TASKS

SCENE = "calvin_scene_D_eval"
DEMONSTRATED = tuple(f"lift_{colour}_block_table" for colour in COLOURS)
"""What the script can do."""
ATTEMPTS = 8
"""Starts that are tried for a demonstration before the run is given up."""
TABLE_Y = (-0.15, -0.05)
"""Where on the table, across it, a block's middle may lie, m."""
ROOM = ((-0.05, -0.22, 0.50), (0.32, -0.05, 0.62))
"""Corners of where the hand may be when a demonstration begins elsewhere, m."""
WALK = 40
"""Control periods that it takes to get there, at most."""


@dataclass(frozen=True, kw_only=True)
class DemoOptions:
    """What is demonstrated. The same options give the same data set."""

    episodes: int
    tasks: tuple[str, ...] = (DEMONSTRATED[0],)
    """They take turns."""
    seed: int = 0
    noise: float = 0.35
    """Standard deviation of the disturbance, in actions (1: 0.02 m, and 0.025 rad about the vertical)."""
    disturbed: float = 0.5
    """Share of the control periods that are disturbed."""
    elsewhere: float = 0.5
    """Share of the demonstrations that begin with the hand anywhere over the table, open or closed."""
    spread: float = 0.05
    """How far blocks may lie from the two places of the evaluation's starts, m along each axis."""
    max_steps: int = 120
    renderer: Literal["tiny", "egl"] = "tiny"
    validation: float = 0.1
    """Share that goes into the split `validation`, at least one."""

    def __post_init__(self) -> None:
        if self.episodes < 2 or self.seed < 0 or self.noise < 0 or self.spread < 0 or self.max_steps < 1:
            raise ConfigError(
                f"episodes {self.episodes}, seed {self.seed}, noise {self.noise}, spread {self.spread}, max_steps "
                f"{self.max_steps}; expected at least 2, 0, 0, 0 and 1"
            )
        if not (0 <= self.disturbed <= 1 and 0 <= self.elsewhere <= 1 and 0 < self.validation < 1):
            raise ConfigError(
                f"disturbed {self.disturbed}, elsewhere {self.elsewhere}, validation {self.validation}; expected "
                "shares from 0 to 1, and between the two"
            )
        unknown = [task for task in self.tasks if task not in DEMONSTRATED]
        if unknown or not self.tasks:
            raise ConfigError(f"tasks are {list(self.tasks)}; the script can do {', '.join(DEMONSTRATED)}")


class Demonstrator:
    """Makes demonstrations, one after the other, in one simulator."""

    def __init__(self, options: DemoOptions, root: Path | None = None) -> None:
        self.options = options
        checkout = find_checkout(root)
        self._sentences = checkout.sentences()
        self._world = CalvinEnvironment(checkout.root, renderer=options.renderer, scene=SCENE)

    def attempt(self, number: int, attempt: int) -> Demo | None:
        """One try at demonstration `number`; None where the script did not get there."""
        options, world = self.options, self._world
        task = options.tasks[number % len(options.tasks)]
        rng = np.random.default_rng([options.seed, number, attempt])
        observation = world.place(*start(task, options.spread, rng))
        if rng.random() < options.elsewhere:
            observation = self._walk(observation, rng)
        world.begin(task)
        sentence = str(rng.choice(self._sentences[task]))
        script, frames = LiftBlock(), list[dict[str, NDArray[Any]]]()
        for _ in range(options.max_steps):
            action = script(observation, sentence)
            frames.append(frame(world.raw, action))
            if rng.random() < options.disturbed:
                action = action.copy()
                action[:3] += rng.normal(0, options.noise, 3)
                action[5] += rng.normal(0, options.noise / 2)
                action = np.clip(action, -1, 1)
                script.sent(action)
            observation = world.step(action)
            if world.success():
                return Demo(task, sentence, {name: np.stack([one[name] for one in frames]) for name in frames[0]})
        return None

    def close(self) -> None:
        """Free the simulator."""
        self._world.close()

    def _walk(self, observation: Observation, rng: np.random.Generator) -> Observation:
        """The hand goes somewhere; nobody records it."""
        place, gripper = rng.uniform(*ROOM), float(rng.choice([-1.0, 1.0]))
        target = observation["state"][:3].copy()
        self._world.look(False)
        for _ in range(WALK):
            before = observation["state"][:3]
            move = np.clip((place - target) / METRES, -1, 1)
            target += METRES * move
            observation = self._world.step(np.array([*move, 0.0, 0.0, 0.0, gripper]))
            if not move.any() and np.linalg.norm(observation["state"][:3] - before) < STOOD_M:
                break  # it stands where it was sent, which the script takes for granted
        self._world.look(True)
        return self._world.step(np.array([0.0, 0.0, 0.0, 0.0, 0.0, 0.0, gripper]))


def start(task: str, spread: float, rng: np.random.Generator) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """robot_obs [15] and scene_obs [24]: one of the protocol's start scenes in which the task can be done, with the
    blocks on the table moved and turned."""
    scenes = [scene for scene in start_scenes() if TASKS[task].result(scene) is not None]
    scene = scenes[rng.integers(len(scenes))]
    robot, numbers = start_state(scene)
    for place, colour in enumerate(COLOURS):
        if scene[f"{colour}_block"] == "table":
            x, y, yaw = (6 + 6 * place + offset for offset in (0, 1, 5))
            numbers[x] += rng.uniform(-spread, spread)
            numbers[y] = np.clip(numbers[y] + rng.uniform(-spread, spread), *TABLE_Y)
            numbers[yaw] = rng.uniform(*YAW)
    return robot, numbers


def make_demos(
    folder: Path,
    options: DemoOptions,
    *,
    root: Path | None = None,
    workers: int = 1,
    progress: Callable[[int, int], None],
) -> dict[str, Any]:
    """Write the data set; progress(done, all) counts. Returns {episodes, frames, validation_episodes, failed}.

    A stopped run goes on with the same options. ConfigError if the folder is taken, InputError if a run with other
    options lies beside it, EvaluationError if the script fails at a demonstration time and again.
    """
    checkout = find_checkout(root)
    wanted = _plain(options) | {"commits": checkout.commits()}
    del wanted["episodes"], wanted["validation"]  # neither changes a demonstration
    parts = Parts(folder, ".npz", wanted)
    maker = partial(Demonstrator, options, checkout.root)
    parts.make(options.episodes, maker, _demonstrate, workers=workers, progress=progress)
    whole = parts.folder / "set"
    shutil.rmtree(whole, ignore_errors=True)
    apart = min(max(1, round(options.validation * options.episodes)), options.episodes - 1)
    splits = {"training": range(apart, options.episodes), "validation": range(apart)}
    told: dict[str, Any] = {"episodes": options.episodes, "validation_episodes": apart, "frames": 0, "failed": 0}
    for name, numbers in splits.items():
        writer = SplitWriter(whole / name, SCENE.removesuffix("_eval"))
        for number in numbers:
            demo, failures = _load(parts.path(number))
            writer.add(demo)
            told["failed"] += failures
        writer.close()
        save_configuration(checkout, SCENE, writer.folder / ".hydra" / "merged_config.yaml")
        told["frames"] += writer.frames
    about = _plain(options) | told | {"commits": checkout.commits()}
    write_bytes(whole / "demos.json", (json.dumps(about, indent=2) + "\n").encode())
    whole.replace(folder)
    parts.remove()
    return told


def _demonstrate(maker: Demonstrator, number: int, path: Path) -> None:
    for attempt in range(ATTEMPTS):
        demo = maker.attempt(number, attempt)
        if demo is not None:
            with replacing(path) as temporary, temporary.open("wb") as file:
                words = {"task": demo.task, "sentence": demo.sentence, "failures": str(attempt)}
                arrays: dict[str, Any] = {name: np.array(word) for name, word in words.items()} | demo.arrays
                np.savez_compressed(file, **arrays)
            return
    raise EvaluationError(f"demonstration {number}: the script failed {ATTEMPTS} times in a row")


def _load(path: Path) -> tuple[Demo, int]:
    with np.load(path, allow_pickle=False) as file:
        arrays = {name: file[name] for name in file.files}
    task, sentence, failures = (str(arrays.pop(name)) for name in ("task", "sentence", "failures"))
    return Demo(task, sentence, arrays), int(failures)


def _plain(options: DemoOptions) -> dict[str, Any]:
    plain: dict[str, Any] = json.loads(json.dumps(asdict(options)))
    return plain
