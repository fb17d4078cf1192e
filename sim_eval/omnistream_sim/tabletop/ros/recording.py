# SPDX-License-Identifier: Apache-2.0
"""Demonstrations as a robot's are recorded: the simulator node shows them, the recorder node writes bags.

OUT/mapping.yaml is the robot's mapping, OUT/bags has one bag per episode that was solved; what is there is kept, and
counts. `omnistream-data import OUT/bags --mapping OUT/mapping.yaml` makes the data set.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any

from rcl_interfaces.srv import SetParameters
from rclpy.parameter import Parameter
from std_srvs.srv import Trigger

from omnistream.errors import ConfigError
from omnistream.io.files import write_bytes
from omnistream_msgs.msg import TaskStatus
from omnistream_ros.domains import reserved_domain_id
from omnistream_ros.environment import loopback_environment
from omnistream_ros.nodes import NODES
from omnistream_ros.processes import ProcessGroup, ros_parameters
from omnistream_ros.running import spinning
from omnistream_ros.task_client import UNDECIDED, TaskClient

from ...evaluation.protocols import EvaluationError
from ..demos import ATTEMPTS, SEEDS, DemoOptions
from ..task_env import RATE, instruction
from ..tasks import TASKS, tasks_of

MAPPING = """\
# SPDX-License-Identifier: Apache-2.0
# The simulated Panda at the table, for omnistream-data record and import. Commands: what its expert wants to do.
format: omnistream-mapping
version: 1
rate: {rate}
cameras:
{cameras}
state:
- {{topic: /simulator/state, fields: [tool_x, tool_y, tool_z], unit: m, max_age: 0.04}}
- {{topic: /simulator/state, fields: [tool_roll, tool_pitch, tool_yaw], unit: rad, max_age: 0.04}}
- {{topic: /simulator/state, fields: [opening], unit: m, max_age: 0.04}}
- {{topic: /simulator/state, fields: [joint_1, joint_2, joint_3, joint_4, joint_5, joint_6, joint_7], unit: rad,
   max_age: 0.04}}
- {{topic: /simulator/state, fields: [last_gripper], unit: "1", max_age: 0.04}}
action:
  mode: delta
  frame: world
  parts:
  - {{topic: /simulator/demonstration, fields: [x, y, z], unit: m, pick: next, max_age: 0.04}}
  - {{topic: /simulator/demonstration, fields: [roll, pitch, yaw], unit: rad, pick: next, max_age: 0.04}}
  - {{topic: /simulator/demonstration, fields: [gripper], unit: "1", pick: next, max_age: 0.04,
     gripper: {{open: 1.0, closed: -1.0}}}}
instruction: {{topic: /instruction}}
episodes: {{topic: /episode, shortest: 0.25}}
"""
CAMERA = "- {{name: {name}, topic: /{topic}/image_raw, max_age: 0.04}}"
START_S = 60.0
GRACE_S = 15.0


def mapping_text(options: DemoOptions) -> str:
    """The YAML of a mapping for the simulator as it is started for these demonstrations."""
    topics = {"static": "static", "gripper": "wrist"}
    cameras = "\n".join(CAMERA.format(name=name, topic=topics[name]) for name in options.view.cameras)
    return MAPPING.format(rate=RATE, cameras=cameras)


def record_demos(out: Path, options: DemoOptions, *, speed: float, progress: Callable[[int, int], None]) -> int:
    """Record until there are `options.episodes` bags; progress(done, all). Returns how many attempts failed.

    speed: simulated seconds per second, at most; what is recorded is good if the recorder keeps up.
    ConfigError for options that recording has not (`later`, other kinds of noise), or if `out` holds recordings of
    other options; EvaluationError if a node ends, or the expert fails at an episode time and again.
    """
    if options.later or options.disturbed != DemoOptions.disturbed:
        raise ConfigError(f"later {options.later}, disturbed {options.disturbed}; recording has 0 and 0.5 only")
    kinds: dict[str, None] = {task.kind: None for task in tasks_of(options.tasks)}
    bags, mapping = out / "bags", out / "mapping.yaml"
    text = mapping_text(options)
    if mapping.exists() and mapping.read_text(encoding="utf-8") != text:
        raise ConfigError(f"{mapping} is of other recordings; choose another folder, or the same options")
    bags.mkdir(parents=True, exist_ok=True)
    write_bytes(mapping, text.encode())
    done, failed = len(list(bags.glob("episode_*"))), 0
    progress(done, options.episodes)
    with ExitStack() as made:
        os.environ.update(loopback_environment(made.enter_context(reserved_domain_id())))
        nodes = made.enter_context(ProcessGroup(GRACE_S))
        client = _open(made, nodes, options, bags, mapping, speed)
        while done < options.episodes:
            kind = list(kinds)[done % len(kinds)]
            for attempt in range(ATTEMPTS):
                if _episode(client, kind, SEEDS + (options.seed << 40) + (attempt << 32) + done):
                    break
                failed += 1
            else:
                raise EvaluationError(f"episode {done}: the expert failed {ATTEMPTS} times at {kind}")
            done += 1
            progress(done, options.episodes)
    return failed


def _open(
    made: ExitStack, nodes: ProcessGroup, options: DemoOptions, bags: Path, mapping: Path, speed: float
) -> RecordingClient:
    view = options.view
    simulator: dict[str, Any] = {
        "cameras": ["static", "wrist"] if "gripper" in view.cameras else ["static"],
        "image_size": [view.static, view.static],
        "rate": round(RATE),
        "real_time_factor": float(speed),
        "publish_clock": True,
        "disturbance": float(options.noise),
        "task_time": options.max_steps / RATE,
        "ground_truth": False,
        "publish_tf": False,
        "qos": "reliable:50",  # a recorder that is busy for a moment shall not miss a picture
    }
    if "gripper" in view.cameras:
        simulator["wrist_image_size"] = [view.gripper, view.gripper]
    recorder = {"mapping": str(mapping), "directory": str(bags), "use_sim_time": True}
    for name, given in (("simulator", simulator), ("recorder", recorder)):
        nodes.start(name, NODES[name].module, ros_parameters(**given), echo=sys.stderr)

    def check() -> None:
        if (gone := nodes.failed()) is not None:
            raise EvaluationError(f"the {gone.name} node ended with {gone.returncode}:\n{gone.tail()}")

    client = made.enter_context(spinning(partial(RecordingClient, check=check)))
    client.wait(lambda: client.count_publishers("/simulator/task") > 0, "the simulator", START_S)
    return client


def _episode(client: RecordingClient, kind: str, seed: int) -> bool:
    """Whether the expert did it. What it did not do is discarded."""
    begun = client.begin(kind, seed)
    client.record(instruction(TASKS[begun.task], "seen", seed))
    client.demonstrate()
    while (status := client.moment()).state in UNDECIDED:
        pass
    solved = bool(status.state == TaskStatus.STATE_SOLVED)
    client.end(solved)
    return solved


class RecordingClient(TaskClient):
    """Who says what is recorded. See `TaskClient`."""

    def __init__(self, **keywords: Any) -> None:
        super().__init__(**keywords)
        self._words = {
            word: self.create_client(Trigger, f"/recorder/{word}") for word in ("start", "success", "discard")
        }
        self._set = self.create_client(SetParameters, "/recorder/set_parameters")

    def record(self, instruction: str) -> None:
        """An episode begins. TimeoutError, with what the recorder says, where it does not start."""
        parameter = Parameter("instruction", value=instruction).to_parameter_msg()
        result = self._call(self._set, SetParameters.Request(parameters=[parameter])).results[0]
        if not result.successful:
            raise ConfigError(f"the recorder refuses the instruction {instruction!r}: {result.reason}")
        said = ""

        def started() -> bool:
            nonlocal said
            answer = self._call(self._words["start"], Trigger.Request())
            said = answer.message
            return bool(answer.success)

        try:
            self.wait(started, "the recorder to start")
        except TimeoutError as error:
            raise TimeoutError(f"{error}: {said}") from None

    def end(self, solved: bool) -> None:
        """It ends, and is kept if it was solved."""
        answer = self._call(self._words["success" if solved else "discard"], Trigger.Request())
        if not answer.success:
            raise ConfigError(f"the recorder cannot end the episode: {answer.message}")
