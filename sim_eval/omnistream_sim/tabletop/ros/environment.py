# SPDX-License-Identifier: Apache-2.0
"""The tabletop through its nodes, for the evaluator: simulator and policy node over real topics, in real time.

The evaluator's loop only looks on here. The policy acts by itself, at its own rate and with all its stops; a step of
the loop is one moment of the simulator, and success is what the simulator's judge says. Starts, sentences and limits
are those of the in-process benchmark: the two can be compared episode by episode (`tools/bench_policy_loop.py`).
"""

from __future__ import annotations

import dataclasses
import json
import os
import sys
import time
from contextlib import ExitStack, suppress
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from omnistream.errors import ConfigError
from omnistream_msgs.msg import TaskStatus
from omnistream_ros.domains import reserved_domain_id
from omnistream_ros.environment import loopback_environment
from omnistream_ros.nodes import NODES
from omnistream_ros.processes import ProcessGroup
from omnistream_ros.running import spinning
from omnistream_ros.tabletop_robot import TabletopRobot
from omnistream_ros.task_client import TaskClient
from omnistream_sim.evaluation.protocols import Benchmark, Episode, EvaluationError, Observation

from ..task_env import Words, instruction
from ..tasks import TASKS

START_S = 180.0
FIRST_COMMAND_S = 20.0
"""Simulated seconds in which a policy has to begin to act."""
GRACE_S = 15.0


def nodes_benchmark(benchmark: Benchmark, robot: TabletopRobot, words: Words = "unseen") -> Benchmark:
    """A benchmark of single tasks on the tabletop, through nodes; its policy is `Bystander`.

    ConfigError for chains and other tasks than those that are told: nodes have single tasks only.
    """
    if any(len(episode.tasks) > 1 or "instead" in episode.state for episode in benchmark.episodes):
        raise ConfigError(
            "chains, and tasks other than those told, are not evaluated through nodes; expected single ones"
        )
    limit = benchmark.rules.max_steps / robot.contract.rate
    robot = dataclasses.replace(robot, task_time=limit)
    how = {"real_time_factor": robot.factor, "sim_time": robot.sim_time, **robot.policy_parameters}
    return dataclasses.replace(
        benchmark,
        name=f"{benchmark.name}, through nodes",
        environment=partial(NodesEnvironment, robot, words),
        convention=None,
        settings=benchmark.settings | {"nodes": how},
    )


class Bystander:
    """Stands where a policy stands in the evaluator. The one that acts is a node."""

    def __init__(self, policy: str, weights: str) -> None:
        self._policy, self._weights = Path(policy), weights

    def __call__(self, observation: Observation, instruction: str) -> NDArray[np.float64]:
        """[7] that nobody carries out."""
        return np.zeros(7)

    def describe(self) -> dict[str, Any]:
        """What the node runs."""
        digest = json.loads((self._policy / "policy.json").read_text(encoding="utf-8"))["weights_sha256"]
        return {"checkpoint": str(self._policy), "policy_sha256": digest, "weights": self._weights}


class NodesEnvironment:
    """See the module; `Environment` of the evaluator.

    Raises EvaluationError, with the last lines of a node that cannot start.
    """

    def __init__(self, robot: TabletopRobot, words: Words = "unseen") -> None:
        self._robot, self._words = robot, words
        self._seed = 0
        self._first: TaskStatus | None = None
        self._status = TaskStatus()
        self._began = self._steps = 0.0
        self._holds: dict[str, int] = {}
        self._open()

    def reset(self, episode: Episode) -> Observation:
        """The simulator at the episode's start; whatever the policy was doing ends."""
        self._seed = episode.seed
        if self._nodes.failed() is not None:  # in the episode before
            self.close()
            self._open()
        self._client.halt()
        self._client.begin(episode.tasks[0], episode.seed, json.dumps(episode.state["start"]))
        return self._look()

    def begin(self, task: str) -> str:
        """Tell the policy; returns when it has begun to act."""
        text = instruction(TASKS[task], self._words, self._seed, 1)
        self._holds = self._client.stops()
        self._client.follow(text)
        for _ in range(round(FIRST_COMMAND_S * self._robot.contract.rate)):
            self._first = self._client.moment()
            if self._first.state != TaskStatus.STATE_WAITING:
                self._began, self._steps = time.monotonic(), 0
                return text
        said = self._client.policy
        why = "" if said is None else f": {said.reason} {said.detail}"
        raise EvaluationError(f"the policy node commanded nothing for {FIRST_COMMAND_S:g} s{why}")

    def step(self, action: NDArray[np.float64]) -> Observation:
        """The simulator's next moment."""
        self._status, self._first = self._first or self._client.moment(), None
        self._steps += 1
        return self._look()

    def success(self) -> bool:
        """What the simulator's judge says of this moment."""
        return bool(self._status.state == TaskStatus.STATE_SOLVED)

    def metrics(self) -> dict[str, float | bool]:
        """Moments per second of the clock on the wall, and how often the policy node stood still for a while."""
        now = self._client.stops()
        holds = sum(now[why] - self._holds.get(why, 0) for why in now if why != "requested")
        passed = time.monotonic() - self._began
        return {"hz": (self._steps - 1) / passed if self._steps > 1 and passed > 0 else np.nan, "holds": holds}

    def describe(self) -> dict[str, Any]:
        """What the numbers depend on."""
        robot = self._robot
        sizes = {camera.name: f"{camera.width}x{camera.height}" for camera in robot.contract.cameras}
        return {"simulator": "omnistream tabletop, ROS 2 nodes", "rate": robot.contract.rate} | sizes

    def close(self) -> None:
        """End the nodes."""
        with suppress(TimeoutError, EvaluationError):  # they may be gone already
            self._client.halt()
        self._made.close()

    def _look(self) -> Observation:
        found: dict[str, Any] = {f"rgb_{name}": self._client.picture(name) for name in self._cameras}
        return found | {"state": self._client.state()}  # type: ignore[return-value]

    def _open(self) -> None:
        robot = self._robot
        self._cameras = {"static": "/static/image_raw"} | robot.cameras
        with ExitStack() as made:
            os.environ.update(loopback_environment(made.enter_context(reserved_domain_id())))
            self._nodes = made.enter_context(ProcessGroup(GRACE_S))
            for name, words in (("simulator", robot.simulator_words()), ("policy", robot.policy_words())):
                self._nodes.start(name, NODES[name].module, words, echo=sys.stdout)
            make = partial(TaskClient, cameras=self._cameras, check=self._check)
            self._client = made.enter_context(spinning(make))
            self._client.wait(self._ready, "the activation of the policy node", START_S)
            self._made = made.pop_all()

    def _ready(self) -> bool:
        said = self._client.policy
        if said is not None and self._client.faulty():
            raise EvaluationError(f"the policy node cannot start: {said.detail}")
        return self._client.ready()

    def _check(self) -> None:
        if (failed := self._nodes.failed()) is not None:
            raise EvaluationError(f"the {failed.name} node ended with {failed.returncode}:\n{failed.tail()}")
