# SPDX-License-Identifier: Apache-2.0
"""The demo's second part: the simulated robot is told in words what to do, and a policy does it or not.

Three processes over ROS 2 topics: the simulator shows pictures and judges, the policy node reads them and commands, the
perception node looks on, as it would on a robot. All are on simulated time, so that a slow machine shows a slow robot.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, TextIO

import numpy as np
from diagnostic_msgs.msg import DiagnosticArray
from numpy.typing import NDArray
from rcl_interfaces.srv import SetParameters
from rclpy.parameter import Parameter
from sensor_msgs.msg import Image
from std_srvs.srv import Trigger

from omnistream_msgs.msg import PolicyStatus, StreamStatus, TaskStatus
from omnistream_msgs.srv import BeginTask
from omnistream_ros.demo_children import DemoChildren, DemoFailed
from omnistream_ros.demo_pace import measured_factor
from omnistream_ros.even_sample import EvenSample
from omnistream_ros.images import decode_depth_image
from omnistream_ros.nodes import NODES
from omnistream_ros.processes import ros_parameters
from omnistream_ros.qos import qos_profile
from omnistream_ros.running import spinning
from omnistream_ros.tabletop_robot import TabletopRobot
from omnistream_ros.task_client import UNDECIDED, TaskClient

FIRST_SEED = 1_000_000
"""Of evaluations: no demonstration begins like that. A test compares."""
KINDS = ("drawer", "button", "lift", "slider", "push", "stack")
AT_LEAST = 3
BUDGET_S = 16.0
"""When so much has passed no more tasks are begun."""
START_S = 120.0
TRIAL_S = 60.0
TRIAL_FACTOR = 0.25
"""Simulated seconds per second, while it is measured what this machine keeps up with."""
PATIENCE_S = 1.0
"""The demo runs beside whatever else the machine does; a robot's file asks for more."""
LOOKS_HZ = 4.0
"""Of perception, beside a policy that needs the cores."""
PICTURES = 5


@dataclass
class Attempt:
    """One task, as it went."""

    task: str
    instruction: str
    seed: int
    solved: bool = False
    seconds: float = 0.0
    """Simulated, from the first command to the end."""
    stopped: str = ""
    """Why the policy node ended it, if it did."""
    holds: dict[str, int] = field(default_factory=dict)
    """How often it stood still for a while, by reason."""
    pictures: list[NDArray[np.uint8]] = field(default_factory=list)
    """Of the static camera, from the start to the end."""
    depth: NDArray[np.float32] | None = None
    """What perception made of the static camera's last pictures."""

    def verdict(self) -> str:
        """In words."""
        if self.solved:
            return f"solved in {self.seconds:.1f} s"
        return f"not solved: {self.stopped}" if self.stopped else f"not solved in {self.seconds:.1f} s"

    def numbers(self) -> dict[str, Any]:
        """For the report."""
        names = ("task", "instruction", "seed", "solved", "seconds", "stopped", "holds")
        return {name: getattr(self, name) for name in names}


class Onlooker(TaskClient):
    """A task client that also hears how fast the simulator can be, and what perception sees."""

    def __init__(self, **keywords: Any) -> None:
        super().__init__(**keywords)
        self.busy_ms = math.nan
        self.sees = self.knows_depth = False
        """Whether perception is active; whether its depth means anything."""
        self.depth: Image | None = None
        self._parameters = self.create_client(SetParameters, "/simulator/set_parameters")
        self._forget = self.create_client(Trigger, "/perception/reset")
        self.create_subscription(DiagnosticArray, "/diagnostics", self._on_diagnostics, qos_profile("reliable"))
        self.create_subscription(StreamStatus, "/perception/status", self._on_perception, qos_profile("latched"))
        for topic in ("depth", "depth_relative"):  # a checkpoint has one of the two
            self.create_subscription(Image, f"/perception/{topic}", self._on_depth, qos_profile("sensor:1"))

    def begin(self, task: str, seed: int, start: str = "") -> BeginTask.Response:
        """See `TaskClient`; perception forgets what was there before, too."""
        begun = super().begin(task, seed, start)
        self._call(self._forget, Trigger.Request())
        return begun

    def set_factor(self, factor: float) -> None:
        """Simulated seconds per second, from a moment later on."""
        parameter = Parameter("real_time_factor", value=float(factor)).to_parameter_msg()
        self._parameters.call_async(SetParameters.Request(parameters=[parameter]))

    def _on_diagnostics(self, array: DiagnosticArray) -> None:
        for status in array.status:
            if status.name == "simulator: source":
                self.busy_ms = next((float(v.value) for v in status.values if v.key == "busy_ms"), self.busy_ms)

    def _on_perception(self, status: StreamStatus) -> None:
        self.sees = status.state in (StreamStatus.STATE_ACTIVE, StreamStatus.STATE_STALE)
        self.knows_depth = status.scale in ("metric", "relative")

    def _on_depth(self, message: Image) -> None:
        self.depth = message


class TaskDemo:
    """See the module. `start`, then `run`, then `stop`, in a `with` block.

    Args:
        robot: with its policy.
        say: tells the user a sentence.
        echo: where the processes' lines go.
    """

    def __init__(self, robot: TabletopRobot, say: Callable[[str], None], echo: TextIO | None, grace_s: float) -> None:
        self.factor = 1.0
        self.attempts: list[Attempt] = []
        self._robot, self._say, self._echo = robot, say, echo
        self._children = DemoChildren(grace_s)

    def __enter__(self) -> TaskDemo:
        self._children.__enter__()
        return self

    def __exit__(self, *error: Any) -> None:
        self._children.__exit__(*error)

    def start(self) -> None:
        """The three processes; `run` waits for them."""
        words = {
            "policy": self._robot.policy_words(),
            "perception": self._perception_words(),
            "simulator": self._robot.simulator_words(),
        }
        for name, arguments in words.items():
            self._children.start(name, NODES[name].module, arguments, echo=self._echo)

    def run(self) -> None:
        """One task after the other, while the time lasts. DemoFailed where a node cannot start, ends or hangs."""
        cameras = {"static": "/static/image_raw"}
        try:
            with spinning(lambda: Onlooker(cameras=cameras, check=self._check)) as client:
                client.wait(lambda: self._active(client), "the activation of the policy node", START_S)
                client.wait(lambda: client.sees, "the activation of the perception node", START_S)
                self._find_pace(client)
                self._say(f"telling the robot what to do, at {self.factor:.2g} of real time")
                began = time.monotonic()
                for number, kind in enumerate(KINDS):
                    if number >= AT_LEAST and time.monotonic() - began > BUDGET_S:
                        break
                    attempt = self._attempt(client, kind, FIRST_SEED + number)
                    self.attempts.append(attempt)
                    self._say(f"{attempt.instruction!r}: {attempt.verdict()}")
        except (TimeoutError, ValueError) as error:  # a node that hangs or refuses
            raise DemoFailed(f"{error}{self._children.tails()}") from None
        if self._children.stop() != 0:
            raise DemoFailed(self._children.post_mortem("the end"))

    def numbers(self) -> dict[str, Any]:
        """For the report."""
        return {
            "policy": str(self._robot.policy),
            "solved": sum(attempt.solved for attempt in self.attempts),
            "told": len(self.attempts),
            "real_time_factor": self.factor,
            "attempts": [attempt.numbers() for attempt in self.attempts],
        }

    def _find_pace(self, client: Onlooker) -> None:
        """At first slowly: only a policy that acts tells how long it takes."""
        begun = client.begin(KINDS[0], FIRST_SEED)
        client.follow(begun.instruction)

        def known() -> bool:
            return measured_factor(client.policy, client.busy_ms, self._robot.contract.rate) is not None

        try:
            client.wait(known, "the first actions of the policy", TRIAL_S)
        except TimeoutError:
            said = client.policy or PolicyStatus()
            why = f"{said.reason} {said.detail}{self._children.tails()}"
            raise DemoFailed(f"the policy node gave no actions for {TRIAL_S:g} s: {why}") from None
        client.halt()
        self.factor = measured_factor(client.policy, client.busy_ms, self._robot.contract.rate) or 1.0
        client.set_factor(self.factor)

    def _attempt(self, client: Onlooker, kind: str, seed: int) -> Attempt:
        begun = client.begin(kind, seed)
        attempt = Attempt(begun.task, begun.instruction, seed)
        sample: EvenSample[NDArray[np.uint8]] = EvenSample(2 * PICTURES)
        before = client.stops()
        client.follow(begun.instruction)
        status = TaskStatus(state=TaskStatus.STATE_WAITING)
        while status.state in UNDECIDED and not attempt.stopped:
            status = client.moment()
            sample.offer(lambda: client.picture("static"))
            if (ended := client.ended()) is not None:
                attempt.stopped = f"{ended.reason} {ended.message}".strip()
        client.halt()
        attempt.solved = status.state == TaskStatus.STATE_SOLVED
        attempt.seconds = status.periods / self._robot.contract.rate
        later = client.stops()
        attempt.holds = {why: later[why] - before.get(why, 0) for why in later if later[why] > before.get(why, 0)}
        attempt.holds.pop("requested", None)  # by us, at the end
        pictures = list(sample)
        places = np.linspace(0, len(pictures) - 1, PICTURES - 1).round().astype(int)
        attempt.pictures = [*(pictures[place] for place in places), client.picture("static")]
        if client.depth is not None and client.knows_depth:
            attempt.depth = decode_depth_image(client.depth)
        return attempt

    def _active(self, client: Onlooker) -> bool:
        if client.policy is not None and client.faulty():
            raise DemoFailed(f"the policy node cannot start: {client.policy.detail}")
        return client.ready()

    def _check(self) -> None:
        self._children.check("the end of the tasks")

    def _perception_words(self) -> list[str]:
        sizes = {camera.name: [camera.width, camera.height] for camera in self._robot.contract.cameras}
        given: dict[str, Any] = {"expected_image_size": sizes["static"]} if "static" in sizes else {}
        return ros_parameters(
            weights=self._robot.weights,
            image_topic="/static/image_raw",
            nominal_rate=float(self._robot.contract.rate),
            max_rate=LOOKS_HZ,
            max_gap=60.0,  # of simulated time that a busy machine may leave out
            num_threads=1,
            use_sim_time=True,
            **given,
        )
