# SPDX-License-Identifier: Apache-2.0
"""Demonstrations: the expert is disturbed, what it would have done is written down (Laskey et al. 2017, DART).

An episode is a function of the options and its number. Workers put finished ones into OUT.parts, where a stopped run
finds them again; at the end they are written as one data set in LeRobot's format.
"""

from __future__ import annotations

import json
import zipfile
from collections.abc import Callable
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from omnistream.contract import Action, Camera, Contract, Dimension, Gripper
from omnistream.episodes import EpisodeWriter
from omnistream.episodes.plans import Plans, joined
from omnistream.errors import ConfigError
from omnistream.io.files import replacing, write_bytes
from omnistream_sim.evaluation.protocols import EvaluationError
from omnistream_sim.parts import Parts

from .env import STEP, TURN
from .expert import Expert
from .foresight import GOAL, Foresight
from .starts import Beginning, chain, start_of_kind
from .task_env import RATE, TaskWorld, View, instruction
from .tasks import TASKS, tasks_of

STATE = (
    *(Dimension(f"tool_{axis}", "m") for axis in "xyz"),
    *(Dimension(f"tool_{angle}", "rad") for angle in ("roll", "pitch", "yaw")),
    Dimension("opening", "m"),
    *(Dimension(f"joint_{number}", "rad") for number in range(1, 8)),
    Dimension("last_gripper", "1"),
)
ACTION = Action(
    dimensions=(
        *(Dimension(axis, "m") for axis in "xyz"),
        *(Dimension(angle, "rad") for angle in ("roll", "pitch", "yaw")),
        Dimension("gripper", "1"),
    ),
    mode="delta",
    frame="world",
    grippers=(Gripper(index=6, open=1.0, closed=-1.0),),
)
UNITS = np.array([STEP] * 3 + [TURN] * 3 + [1.0])
"""From the environment's actions to the contract's."""
ATTEMPTS = 8
"""Starts that are tried for an episode before the run is given up."""
SEEDS = 1 << 60
"""Demonstrations have seeds from here on, evaluations below."""


@dataclass(frozen=True, kw_only=True)
class DemoOptions:
    """What is demonstrated. The same options give the same data set."""

    episodes: int
    tasks: tuple[str, ...] = ()
    """Kinds or names; none: all. Kinds take turns."""
    seed: int = 0
    noise: float = 0.35
    """Standard deviation of the disturbance, in actions (1: 0.02 m, and 0.025 rad about the vertical)."""
    disturbed: float = 0.5
    """Share of the control periods that are disturbed."""
    later: float = 0.3
    """Share of the episodes that begin where a chain has got to, not at a start of their own."""
    others: int = 2
    """Other tasks per frame of which it is noted what the expert would do, were it told them (`plans.parquet`)."""
    max_steps: int = 200
    view: View = field(default_factory=View)
    storage: Literal["image", "jpeg", "video"] = "image"

    def __post_init__(self) -> None:
        if self.episodes < 1 or min(self.seed, self.noise, self.others) < 0 or self.max_steps < 1:
            raise ConfigError(
                f"episodes {self.episodes}, seed {self.seed}, noise {self.noise}, others {self.others}, max_steps "
                f"{self.max_steps}; expected at least 1, 0, 0, 0 and 1"
            )
        if not (0 <= self.disturbed <= 1 and 0 <= self.later <= 1):
            raise ConfigError(f"disturbed {self.disturbed}, later {self.later}; expected shares from 0 to 1")
        tasks_of(self.tasks)

    @property
    def contract(self) -> Contract:
        """Of the data set."""
        cameras = tuple(Camera(name, side, side) for name, side in self.view.cameras.items())
        return Contract(rate=float(RATE), cameras=cameras, state=STATE, action=ACTION)


@dataclass(frozen=True, eq=False)
class Demo:
    """One attempt."""

    task: str
    instruction: str
    success: bool
    state: NDArray[np.float32]
    """[T, 15]."""
    action: NDArray[np.float32]
    """[T, 7] in the contract's units: what the expert wanted, not what the disturbed arm was told."""
    pictures: dict[str, NDArray[np.uint8]]
    """[T, H, W, 3] per camera."""
    plans: Plans
    """From its frames; of episode 0."""


class Demonstrator:
    """Makes episodes, one after the other, in one simulator."""

    def __init__(self, options: DemoOptions) -> None:
        self.options = options
        self._world = TaskWorld(options.view)
        self._kinds: dict[str, list[str]] = {}
        for task in tasks_of(options.tasks):
            self._kinds.setdefault(task.kind, []).append(task.name)

    def attempt(self, number: int, attempt: int) -> Demo:
        """One try at episode `number`."""
        options = self.options
        seed = SEEDS + (options.seed << 40) + (attempt << 32) + number
        rng = np.random.default_rng(seed)
        kind = list(self._kinds)[number % len(self._kinds)]
        beginning = self._beginning(seed, kind, later=bool(rng.random() < options.later))
        self._world.reset(beginning.start.plain(), seed)
        for name in beginning.tasks[:-1]:
            if not self._do(name, rng, Record()):
                return _failed(beginning.tasks[-1])
        task = beginning.tasks[-1]
        told = instruction(TASKS[task], "seen", seed)
        record = Record(tuple(options.view.cameras), Foresight(TASKS[task], told, options.others, seed))
        success = self._do(task, rng, record)
        return record.demo(task, told, success)

    def close(self) -> None:
        """Free the simulator."""
        self._world.env.close()

    def _beginning(self, seed: int, kind: str, later: bool) -> Beginning:
        names = self._kinds[kind]
        draw = seed
        while later:
            whole = chain(draw)
            wanted = [i for i, name in enumerate(whole.tasks) if name in names and i > 0]
            if wanted:
                return Beginning(whole.start, whole.tasks[: wanted[0] + 1])
            draw += 1 << 48
        return start_of_kind([TASKS[name] for name in names], seed)

    def _do(self, name: str, rng: np.random.Generator, record: Record) -> bool:
        task, world, options = TASKS[name], self._world, self.options
        begin = state = world.env.state()
        expert = Expert(task)
        for _ in range(options.max_steps):
            action = expert.action(state)
            if action is None:
                return False
            record.add(world, expert, action)
            if rng.random() < options.disturbed:
                action = shaken(action, rng, options.noise)
            world.step(np.clip(action, -1, 1))
            state = world.env.state()
            if task.solved(begin, state):
                return True
        return False


def shaken(action: NDArray[np.float64], rng: np.random.Generator, noise: float) -> NDArray[np.float64]:
    """What a disturbed arm does instead of an action [7]."""
    action = action.copy()
    action[:3] += rng.normal(0, noise, 3)
    action[5] += rng.normal(0, noise / 2)
    return action


class Record:
    """What is kept of an episode while it runs; without cameras, nothing."""

    def __init__(self, cameras: tuple[str, ...] = (), foresight: Foresight | None = None) -> None:
        self._cameras, self._foresight = cameras, foresight
        self._rows: list[tuple[NDArray[Any], NDArray[Any]]] = []
        self._pictures: dict[str, list[NDArray[np.uint8]]] = {name: [] for name in cameras}

    def add(self, world: TaskWorld, expert: Expert, action: NDArray[np.float64]) -> None:
        """What is seen and felt now, and what the expert does about it."""
        if not self._cameras:
            return
        observation: dict[str, Any] = dict(world.look())
        self._rows.append((observation["state"], action * UNITS))
        for name, pictures in self._pictures.items():
            pictures.append(observation[f"rgb_{name}"])
        if self._foresight:
            self._foresight.add(world.env.state(), expert)

    def demo(self, task: str, told: str, success: bool) -> Demo:
        """All of it."""
        if not success or self._foresight is None:
            return _failed(task)
        state, action = (np.array([row[i] for row in self._rows], np.float32) for i in (0, 1))
        pictures = {name: np.array(rows) for name, rows in self._pictures.items()}
        return Demo(task, told, True, state, action, pictures, self._foresight.plans(UNITS))


def make_demos(
    folder: Path, options: DemoOptions, *, workers: int = 1, progress: Callable[[int, int], None]
) -> dict[str, Any]:
    """Write the data set; progress(done, all) counts episodes. Returns {episodes, frames, tried, failed: {task: n}}.

    A stopped run goes on with the same options; with fewer episodes, it ends sooner. ConfigError if the folder is
    taken, InputError if a run with other options lies beside it, EvaluationError if the expert fails at an episode time
    and again.
    """
    wanted = _plain(options)
    # Neither changes an episode: a run may be cut short, made longer, or stored in another way.
    del wanted["episodes"], wanted["storage"]
    parts = Parts(folder, ".zip", wanted)
    parts.make(options.episodes, partial(Demonstrator, options), _episode, workers=workers, progress=progress)
    failed: dict[str, int] = {}
    plans: list[Plans] = []
    with EpisodeWriter(folder, options.contract, storage=options.storage, robot="panda") as writer:
        for number in range(options.episodes):
            demo, failures = _load(parts.path(number))
            for task in failures:
                failed[task] = failed.get(task, 0) + 1
            writer.begin(demo.instruction, source=f"{demo.task}, number {number}")
            for t, (state, action) in enumerate(zip(demo.state, demo.action, strict=True)):
                writer.add(state, action, {name: rows[t] for name, rows in demo.pictures.items()})
            writer.end(success=True)
            plans.append(replace(demo.plans, episode=demo.plans.episode + number))
        writer.add_plans(joined(plans))
        told: dict[str, Any] = {"episodes": writer.episodes, "frames": writer.frames}
    told |= {"tried": options.episodes + sum(failed.values()), "failed": dict(sorted(failed.items()))}
    write_bytes(folder / "demos.json", (json.dumps(_plain(options) | told, indent=2) + "\n").encode())
    parts.remove()
    return told


def _episode(maker: Demonstrator, number: int, path: Path) -> None:
    failures: list[str] = []
    for attempt in range(ATTEMPTS):
        demo = maker.attempt(number, attempt)
        if demo.success:
            return _save(path, demo, failures)
        failures.append(demo.task)
    raise EvaluationError(f"episode {number}: the expert failed {ATTEMPTS} times at {', '.join(sorted(set(failures)))}")


def _save(path: Path, demo: Demo, failures: list[str]) -> None:
    plans = {f"plans.{name}": value for name, value in vars(demo.plans).items() if isinstance(value, np.ndarray)}
    arrays = {"state": demo.state, "action": demo.action} | plans | demo.pictures
    # np.savez_compressed has no level: its 6 takes four times as long as 1, for a fifth less.
    with replacing(path) as temporary, zipfile.ZipFile(temporary, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as file:
        told = {"task": demo.task, "instruction": demo.instruction, "failures": failures}
        told["plans"] = demo.plans.instruction
        file.writestr("about.json", json.dumps(told))
        for name, array in arrays.items():
            with file.open(f"{name}.npy", "w") as entry:
                np.lib.format.write_array(entry, array, allow_pickle=False)  # type: ignore[no-untyped-call]


def _load(path: Path) -> tuple[Demo, list[str]]:
    with zipfile.ZipFile(path) as file:
        about = json.loads(file.read("about.json"))
        arrays = {}
        for name in file.namelist():
            if name.endswith(".npy"):
                with file.open(name) as entry:
                    arrays[name[:-4]] = np.lib.format.read_array(entry, allow_pickle=False)  # type: ignore[no-untyped-call]
    state, action = arrays.pop("state"), arrays.pop("action")
    rows = {name[len("plans.") :]: arrays.pop(name) for name in sorted(arrays) if name.startswith("plans.")}
    plans = Plans(goal=GOAL, instruction=about["plans"], **rows)
    return Demo(about["task"], about["instruction"], True, state, action, arrays, plans), about["failures"]


def _failed(task: str) -> Demo:
    none = Foresight(TASKS[task], "", 0, 0).plans(UNITS)
    return Demo(task, "", False, np.zeros((0, 15), np.float32), np.zeros((0, 7), np.float32), {}, none)


def _plain(options: DemoOptions) -> dict[str, Any]:
    plain: dict[str, Any] = json.loads(json.dumps(asdict(options)))
    return plain
