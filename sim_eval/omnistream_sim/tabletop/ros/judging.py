# SPDX-License-Identifier: Apache-2.0
"""What the simulator node judges, as omnistream_msgs/TaskStatus."""

from __future__ import annotations

from builtin_interfaces.msg import Time
from std_msgs.msg import Header

from omnistream_msgs.msg import TaskStatus

from ..judge import Assignment, Judge, Verdict
from ..state import State

STATES = {
    Verdict.WAITING: TaskStatus.STATE_WAITING,
    Verdict.RUNNING: TaskStatus.STATE_RUNNING,
    Verdict.SOLVED: TaskStatus.STATE_SOLVED,
    Verdict.TIME_OVER: TaskStatus.STATE_TIME_OVER,
}


class Judging:
    """Of one episode.

    Args:
        episode: its number.
        task: what is to be done; None: nothing is judged.
        begin: the state in which it begins, where something is judged.
        limit: see `Judge`.
    """

    def __init__(
        self, episode: int, task: Assignment | None = None, begin: State | None = None, limit: int = 0
    ) -> None:
        self._episode, self._task = episode, task
        self._judge = None if task is None or begin is None else Judge(task.task, begin, limit)

    @property
    def wanted(self) -> bool:
        """Whether a state would change anything: it takes a moment to find out what touches what."""
        return self._judge is not None and self._judge.verdict in (Verdict.WAITING, Verdict.RUNNING)

    def look(self, state: State, commanded: bool) -> None:
        """One period on."""
        if self._judge is not None:
            self._judge.look(state, commanded)

    def message(self, stamp: Time) -> TaskStatus:
        """How it stands."""
        message = TaskStatus(header=Header(stamp=stamp), episode=self._episode)
        if self._task is not None and self._judge is not None:
            judge = self._judge
            message.task, message.instruction = self._task.task.name, self._task.instruction
            message.state, message.periods, message.limit = STATES[judge.verdict], judge.periods, judge.limit
        return message
