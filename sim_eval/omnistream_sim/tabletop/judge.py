# SPDX-License-Identifier: Apache-2.0
"""One task in one episode of a robot that acts by itself: has it begun, is it solved, is its time over.

In an evaluation a loop asks the policy before every period and counts them. Here periods pass whether anybody commands
or not, so time counts from the first command: telling a robot what to do is no part of doing it.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from .starts import Beginning, start_for, start_of_kind
from .state import Start, State
from .task_env import instruction
from .tasks import TASKS, Task, tasks_of


class Verdict(Enum):
    """How a task stands."""

    WAITING = "waiting"
    """At its start; nothing was commanded yet."""
    RUNNING = "running"
    SOLVED = "solved"
    """Stays, whatever happens afterwards."""
    TIME_OVER = "time over"


@dataclass(frozen=True)
class Assignment:
    """What is to be done, and from where."""

    task: Task
    start: Start
    instruction: str
    """A sentence that no demonstration has: the one that an evaluation with this seed tells."""


def assignment(name: str, seed: int, start: Start | None = None) -> Assignment:
    """The task `name`, or one of the kind `name` as evaluations draw it from the seed.

    start: where things are; None: drawn from the seed so that the task is possible.
    ConfigError for an unknown name.
    """
    tasks = tasks_of((name,))
    begun = Beginning(start_for(tasks[0], seed), (name,)) if name in TASKS else start_of_kind(tasks, seed)
    task = TASKS[begun.tasks[0]]
    return Assignment(task, begun.start if start is None else start, instruction(task, "unseen", seed, 1))


class Judge:
    """Looks at every moment of an episode.

    Args:
        task: which is judged.
        begin: the state in which it begins.
        limit: control periods from the first command; 0: any number.
    """

    def __init__(self, task: Task, begin: State, limit: int) -> None:
        self.verdict = Verdict.WAITING
        self.periods = 0
        """From the first command to now, or to the end."""
        self.limit = limit
        self._task, self._begin = task, begin

    def look(self, state: State, commanded: bool) -> Verdict:
        """One period on. commanded: whether a command has moved the arm since the episode began."""
        if self.verdict is Verdict.WAITING and commanded:
            self.verdict = Verdict.RUNNING
        if self.verdict is Verdict.RUNNING:
            self.periods += 1
            if self._task.solved(self._begin, state):
                self.verdict = Verdict.SOLVED
            elif self.limit and self.periods >= self.limit:
                self.verdict = Verdict.TIME_OVER
        return self.verdict
