# SPDX-License-Identifier: Apache-2.0
"""Whoever has something done: puts the simulated robot at a task's start, tells a policy node, waits for the judge.

    with spinning(TaskClient) as client:
        begun = client.begin("open_drawer", seed=1_000_000)
        client.follow(begun.instruction)
        while (status := client.moment()).state in UNDECIDED:
            ...
        client.halt()

The policy node does not know whether its task is done; the simulator does not know who commands. The demo and
`omnistream_sim.tabletop.ros.environment` bring them together by this.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rclpy.action import ActionClient
from rclpy.node import Node
from sensor_msgs.msg import Image, JointState
from std_srvs.srv import Trigger

from omnistream.errors import ConfigError
from omnistream_msgs.action import RunPolicy
from omnistream_msgs.msg import PolicyStatus, TaskStatus
from omnistream_msgs.srv import BeginTask
from omnistream_ros.images import decode, stamp_to_ns
from omnistream_ros.qos import qos_profile

UNDECIDED = (TaskStatus.STATE_WAITING, TaskStatus.STATE_RUNNING)
READY = (PolicyStatus.STATE_DISABLED, PolicyStatus.STATE_HOLDING, PolicyStatus.STATE_RUNNING)
"""The policy node is active."""
ANSWER_S = 60.0
"""So long a service may take: a busy machine builds a scene for seconds."""
POLL_S = 0.005


class TaskClient(Node):
    """See the module. Its methods wait in the caller's thread, while another spins it.

    Args:
        simulator, policy: names of the nodes.
        cameras: name to image topic, of the pictures that are kept.
        check: called while something is waited for; raises what ends the waiting.
    """

    def __init__(
        self,
        *,
        simulator: str = "/simulator",
        policy: str = "/policy",
        cameras: Mapping[str, str] | None = None,
        check: Callable[[], None] = lambda: None,
        **keywords: Any,
    ) -> None:
        super().__init__("task_client", **keywords)
        self.policy: PolicyStatus | None = None
        """What the policy node said last."""
        self.episode = -1
        self._check = check
        self._lock = threading.Lock()
        self._moments: deque[TaskStatus] = deque(maxlen=10_000)
        self._pictures: dict[str, Image] = {}
        self._state: JointState | None = None
        self._goal: Any = None
        self._result: Any = None
        self._begin = self.create_client(BeginTask, f"{simulator}/begin_task")
        self._demonstrate = self.create_client(Trigger, f"{simulator}/demonstrate")
        self._reset = self.create_client(Trigger, f"{policy}/reset")
        self._run = ActionClient(self, RunPolicy, f"{policy}/run_policy")
        many = qos_profile("reliable:1000")  # volatile: only what is said from now on
        self.create_subscription(TaskStatus, f"{simulator}/task", self._on_moment, many)
        self.create_subscription(PolicyStatus, f"{policy}/status", self._on_policy, qos_profile("latched"))
        self.create_subscription(JointState, f"{simulator}/state", self._on_state, qos_profile("reliable"))
        for name, topic in (cameras or {}).items():
            self._look(name, topic)
        self._cameras = tuple(cameras or {})

    # ------------------------------------------------------------------------------------------ a task

    def begin(self, task: str, seed: int, start: str = "") -> BeginTask.Response:
        """At the start of a task, its first moment and pictures received. ConfigError where the simulator refuses."""
        request = BeginTask.Request(task=task, seed=seed, start=start)
        answer = self._call(self._begin, request)
        if not answer.success:
            raise ConfigError(f"the simulator refuses the task {task!r}: {answer.message}")
        self.episode = answer.episode
        first = stamp_to_ns(self.moment().header.stamp)
        self.wait(lambda: self._seen(first), "pictures of the episode's start")
        return answer

    def demonstrate(self) -> None:
        """An expert in the simulator does the task that was begun. ConfigError where it refuses."""
        answer = self._call(self._demonstrate, Trigger.Request())
        if not answer.success:
            raise ConfigError(f"the simulator does not demonstrate: {answer.message}")

    def follow(self, instruction: str, timeout: float = 0.0) -> None:
        """Tell the policy to forget what it saw, and to follow this from now on; timeout in s, 0: until `halt`.

        ConfigError where it refuses.
        """
        answer = self._call(self._reset, Trigger.Request())
        if not answer.success:
            raise ConfigError(f"the policy node cannot begin an episode: {answer.message}")
        if not self._run.wait_for_server(timeout_sec=ANSWER_S):
            raise TimeoutError(f"the action run_policy did not appear within {ANSWER_S:g} s")
        goal = RunPolicy.Goal(instruction=instruction, timeout=timeout)
        handle = self._answer(self._run.send_goal_async(goal), "run_policy")
        if not handle.accepted:
            said = self.policy
            why = "" if said is None else f": it is in state {said.state}, {said.reason} {said.detail}".rstrip()
            raise ConfigError(f"the policy node refuses to follow {instruction!r}{why}")
        self._goal, self._result = handle, handle.get_result_async()

    def moment(self, limit_s: float = ANSWER_S) -> TaskStatus:
        """The next moment of the running episode, none left out. TimeoutError where none comes."""
        self.wait(self._take_older_away, "a moment of the simulator", limit_s)
        with self._lock:
            return self._moments.popleft()

    def ended(self) -> RunPolicy.Result | None:
        """How following ended by itself; None while it lasts, or when nothing is followed."""
        return None if self._result is None or not self._result.done() else self._result.result().result

    def halt(self) -> None:
        """The policy stops following, if it does follow something; returns when it has stopped."""
        goal, result, self._goal, self._result = self._goal, self._result, None, None
        if goal is not None and not result.done():
            self._answer(goal.cancel_goal_async(), "run_policy's cancellation")
            self._answer(result, "run_policy's result")

    # ------------------------------------------------------------------------------------------ what is known

    def ready(self) -> bool:
        """Whether the policy node can be told something."""
        return self.policy is not None and self.policy.state in READY

    def faulty(self) -> bool:
        """Whether the policy node says that it cannot work; `policy.detail` says why."""
        said = self.policy
        if said is None or said.detail in ("", "not configured"):
            return False
        return said.state in (PolicyStatus.STATE_ERROR, PolicyStatus.STATE_UNCONFIGURED, PolicyStatus.STATE_INACTIVE)

    def picture(self, camera: str) -> NDArray[np.uint8]:
        """The newest one, [H, W, 3]; known from `begin` on."""
        return decode(self._pictures[camera])

    def state(self) -> NDArray[np.float64]:
        """What the robot feels, [S]; empty before the first."""
        return np.zeros(0) if self._state is None else np.array(self._state.position, np.float64)

    def stops(self) -> dict[str, int]:
        """How often the policy node stopped the robot so far, by reason."""
        return {} if self.policy is None else {stop.reason: stop.count for stop in self.policy.stops}

    def wait(self, condition: Callable[[], bool], what: str, limit_s: float = ANSWER_S) -> None:
        """TimeoutError that names `what`."""
        end = time.monotonic() + limit_s
        while not condition():
            self._check()
            if time.monotonic() > end:
                raise TimeoutError(f"waited {limit_s:g} s for {what}, in vain")
            time.sleep(POLL_S)

    # ------------------------------------------------------------------------------------------ messages

    def _look(self, name: str, topic: str) -> None:
        def receive(message: Image) -> None:
            self._pictures[name] = message

        self.create_subscription(Image, topic, receive, qos_profile("reliable"))

    def _on_moment(self, message: TaskStatus) -> None:
        with self._lock:
            self._moments.append(message)

    def _on_policy(self, message: PolicyStatus) -> None:
        self.policy = message

    def _on_state(self, message: JointState) -> None:
        self._state = message

    def _take_older_away(self) -> bool:
        """Moments of earlier episodes; whether one of this is left."""
        with self._lock:
            while self._moments and self._moments[0].episode != self.episode:
                self._moments.popleft()
            return bool(self._moments)

    def _seen(self, stamp: int) -> bool:
        pictures = [self._pictures.get(name) for name in self._cameras]
        return all(one is not None and stamp_to_ns(one.header.stamp) >= stamp for one in pictures)

    def _call(self, client: Any, request: Any) -> Any:
        if not client.wait_for_service(timeout_sec=ANSWER_S):
            raise TimeoutError(f"the service {client.srv_name} did not appear within {ANSWER_S:g} s")
        return self._answer(client.call_async(request), client.srv_name)

    def _answer(self, future: Any, name: str) -> Any:
        self.wait(future.done, f"an answer of {name}")
        return future.result()
