# SPDX-License-Identifier: Apache-2.0
"""A made-up simulator with known answers: a point on a line. Task "right 3" is solved three metres to the right of
where the task began. Some tasks misbehave on purpose."""

from __future__ import annotations

import os
import resource
import signal
import time
from pathlib import Path
from typing import Any

import numpy as np

from omnistream_sim.evaluation.protocols import Benchmark, Episode, Rules


class LineWorld:
    """Action 0 moves the point, by at most one metre."""

    def __init__(self, marks: str = "") -> None:
        self._marks = Path(marks) if marks else None
        self.calls: list[str] = []
        self._broken = False

    def reset(self, episode: Episode):
        self.calls.append(f"reset {episode.index}")
        self.x = 0.0 if episode.state is None else float(episode.state)
        return self._observation()

    def begin(self, task: str) -> str:
        self.calls.append(f"begin {task}")
        self._task, self._start = task, self.x
        if task == "crash once" and self._first_time():
            os.kill(os.getpid(), signal.SIGSEGV)
        if task == "crash":
            os.kill(os.getpid(), signal.SIGKILL)
        if task == "hang once" and self._first_time():
            time.sleep(1000)
        if task == "break":
            self._broken = True
        if self._broken:
            raise RuntimeError("illegal memory access")
        if task == "raise":
            raise RuntimeError("the simulator lost its renderer")
        return f"go {task}"

    def step(self, action: np.ndarray):
        self.x += float(np.clip(action[0], -1, 1))
        return self._observation()

    def success(self) -> bool:
        word, _, distance = self._task.partition(" ")
        if word == "touch":  # true on the way only
            return self.x - self._start == float(distance)
        return word != "right" or self.x - self._start >= float(distance)

    def metrics(self) -> dict[str, Any]:
        return {"moved": self.x - self._start}

    def describe(self) -> dict[str, Any]:
        return {"name": "line world"}

    def close(self) -> None:
        pass

    def _observation(self):
        picture = np.full((16, 16, 3), int(10 * self.x) % 256, np.uint8)
        return {"rgb_static": picture, "state": np.array([self.x])}

    def _first_time(self) -> bool:
        assert self._marks is not None
        mark = self._marks / self._task
        if mark.exists():
            return False
        mark.touch()
        return True


def no_renderer() -> LineWorld:
    raise RuntimeError("no renderer: install libegl1")


def quits() -> LineWorld:
    """As calvin_env does where OpenGL is missing."""
    print("Plugin Failed to load!")
    raise SystemExit


class Heavy(LineWorld):
    """Each step takes a core a few hundredths of a second, as a renderer does."""

    def step(self, action: np.ndarray):
        end = time.process_time() + 0.03
        while time.process_time() < end:
            pass
        return super().step(action)


class Checked(LineWorld):
    """Its own checks are slow."""

    SECONDS = 0.05

    def check(self, solved: bool) -> None:
        time.sleep(self.SECONDS)


class NoRoom(LineWorld):
    """A disk with room for little more: whatever a process writes ends after so many bytes of a file."""

    def __init__(self, bytes_: int) -> None:
        super().__init__()
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)  # an error of the write instead of the process's end
        resource.setrlimit(resource.RLIMIT_FSIZE, (bytes_, bytes_))


def walker(observation, instruction):
    """One metre to the right, one action at a time."""
    return [1.0] + [0.0] * 6


class Drunkard:
    """Steps of random length: what it does depends on the episode's seed alone."""

    def __call__(self, observation, instruction):
        return np.random.rand(2, 7)  # noqa: NPY002


class Scribe:
    """Writes down what it is asked; chunks of `rows`."""

    def __init__(self, rows: int = 3) -> None:
        self.rows = rows
        self.calls: list[str] = []

    def reset(self) -> None:
        self.calls.append("reset")

    def observe(self, observation) -> None:
        self.calls.append("observe")

    def __call__(self, observation, instruction):
        self.calls.append(f"act {observation['state'][0]:g}")
        return np.tile([1.0] + [0.0] * 6, (self.rows, 1))


def benchmark(*chains: tuple[str, ...], steps: int = 5, environment: Any = LineWorld, **rules: Any) -> Benchmark:
    episodes = [Episode(index=i, tasks=chain, seed=i) for i, chain in enumerate(chains)]
    return Benchmark(name="line", rules=Rules(max_steps=steps, **rules), episodes=episodes, environment=environment)
