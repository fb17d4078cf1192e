# SPDX-License-Identifier: Apache-2.0
"""What a worker has and does: one simulator, one policy, episodes one after the other; the same in every pool."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from .episode import run_episode
from .pictures import Film
from .protocols import Environment, Episode, Observation, Policy, Rules
from .records import EpisodeRecord

BEAT_S = 1.0
"""How often a worker tells that it lives."""


@dataclass(frozen=True)
class Work:
    """What every worker is told at its start; picklable."""

    environment: Callable[[], Environment]
    policy: Callable[[], Policy]
    rules: Rules
    execute: int
    """Rows of a chunk that are carried out; 0: all."""
    folder: Path
    pictures: frozenset[int] = frozenset()
    """Indices of the episodes that are filmed."""


@dataclass(frozen=True)
class Ready:
    """A worker has its simulator and policy."""

    description: dict[str, Any]


@dataclass(frozen=True)
class Beat:
    """A sign of life."""

    index: int
    steps: int
    """Control periods since the last sign."""


@dataclass(frozen=True)
class Finished:
    """An episode is done."""

    record: EpisodeRecord
    no_film: str = ""
    """Why there is no film of it, though there was to be one."""


@dataclass(frozen=True)
class Failed:
    """An episode could not be run to its end; it is no failure of the policy."""

    index: int
    reason: str


Event = Ready | Beat | Finished | Failed


class Worker:
    """One simulator and one policy."""

    def __init__(self, work: Work) -> None:
        self._work = work
        self._environment = work.environment()
        self._policy = work.policy()

    def describe(self) -> dict[str, Any]:
        """{simulator: ..., policy: ...}: what the numbers depend on."""
        describe = getattr(self._policy, "describe", dict)
        return {"simulator": self._environment.describe(), "policy": describe()}

    def run(self, episode: Episode, beat: Callable[[Beat], None]) -> Finished:
        """Run one, filming it if it is to be filmed. A film that cannot be written costs no episode."""
        work, began = self._work, time.perf_counter()
        film = Film(work.folder, episode.index) if episode.index in work.pictures else None
        last, steps = time.monotonic(), 0

        def watch(observation: Observation, instruction: str, step: int) -> None:
            nonlocal last, steps
            steps += 1
            if time.monotonic() - last >= BEAT_S:
                beat(Beat(episode.index, steps))
                last, steps = time.monotonic(), 0
            if film is not None:
                film.add(observation, instruction, step)

        try:
            record = run_episode(
                self._environment, self._policy, episode, work.rules, execute=work.execute, watch=watch
            )
        except BaseException:
            if film is not None:
                film.drop()
            raise
        no_film = "" if film is None else film.save(record)
        seconds = record.timing["seconds"] | {"total": round(time.perf_counter() - began, 4)}  # a film is paid for too
        return Finished(replace(record, timing=record.timing | {"seconds": seconds}), no_film)

    def close(self) -> None:
        """Free the simulator."""
        self._environment.close()
