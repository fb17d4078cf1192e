# SPDX-License-Identifier: Apache-2.0
"""The loop closed over real topics: the simulator shows pictures and joints, the policy commands, the arm moves."""

from __future__ import annotations

import signal
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("pybullet", reason='needs PyBullet: pip install "omnistream[sim]" on Python 3.11')

from geometry_msgs.msg import TwistStamped
from rclpy.parameter import Parameter
from sensor_msgs.msg import JointState
from std_srvs.srv import Trigger

from omnistream.contract import Camera, Dimension, Statistics
from omnistream_msgs.msg import PolicyStatus
from omnistream_msgs.srv import SetInstruction
from omnistream_ros.nodes import NODES
from omnistream_ros.processes import ChildProcess, ros_parameters, stop_all
from omnistream_ros.testing import Graph
from omnistream_sim.tabletop.ros.simulator import SimulatorNode
from tests.omnistream_policy.conftest import CONFIG, GIVEN, SIZE, contract, make_policy, moves
from tests.omnistream_policy.test_faults import action

pytestmark = pytest.mark.ros

JOINTS = tuple(f"panda_joint{i}" for i in range(1, 8))
FACTOR = 0.3
"""Simulated seconds per second: the machine that runs tests may be busy with ten other things."""
TIMEOUT = 1.0
"""Of the simulator's commands, s."""


@pytest.fixture
def simulator(graph: Graph) -> Iterator[SimulatorNode]:
    given = {
        "cameras": ["static"],
        "image_size": [SIZE, SIZE],
        "rate": 20,
        "real_time_factor": FACTOR,
        "publish_clock": True,
        "command_timeout": TIMEOUT,
        "ground_truth": False,
        "publish_tf": False,
    }
    overrides = [Parameter(name, value=value) for name, value in given.items()]
    node = graph.add(SimulatorNode(context=graph.context, parameter_overrides=overrides))
    yield node
    node.stop()


@pytest.fixture
def policy(graph: Graph, simulator: SimulatorNode, tmp_path: Path) -> Iterator[ChildProcess]:
    """A process of its own; it reads the arm's joints, and commands the simulated tool in the world's frame."""
    agreed = contract(
        cameras=(Camera("static", SIZE, SIZE),),
        state=tuple(Dimension(name, "rad") for name in JOINTS),
        state_statistics=Statistics(100, (-3.0,) * 7, (3.0,) * 7, (0.0,) * 7, (1.0,) * 7, (-3.0,) * 7, (3.0,) * 7),
        action=action(frame="world"),
    )
    given = GIVEN | {
        "policy": make_policy(tmp_path / "policy", agreed, CONFIG),
        "use_sim_time": True,
        "state_topic": "/joint_states",
        "max_observation_age": 2.0,
        "max_tick_gap": 3.0,
        "max_skew": 0.2,
    }
    remaps = ("-r", "~/twist:=/simulator/delta_twist_cmds", "-r", "~/gripper:=/simulator/gripper_command")
    child = ChildProcess("policy", NODES["policy"].module, [*ros_parameters(**given), *remaps])
    graph.wait(
        lambda: child.returncode is not None or graph.node.count_publishers("/policy/status"), "the process", 120
    )
    yield child
    stop_all([child])


def test_the_policy_drives_the_simulated_arm(graph: Graph, policy: ChildProcess) -> None:
    statuses: list[PolicyStatus] = graph.collect(PolicyStatus, "/policy/status", "latched")
    joints: list[JointState] = graph.collect(JointState, "/joint_states", "reliable:100")
    twists: list[TwistStamped] = graph.collect(
        TwistStamped, "/simulator/delta_twist_cmds", "reliable:100", connect=False
    )

    def angles() -> np.ndarray:
        return np.array(joints[-1].position[:7])

    def still(seconds: float) -> bool:
        """Whether the arm has come to rest, and stays there."""
        before = angles()
        time.sleep(seconds)
        return bool(np.abs(angles() - before).max() < 1e-3)

    def start() -> None:
        graph.wait(lambda: statuses and statuses[-1].observations > 0, "observations of the simulator", 60)
        begin, count = angles(), len(twists)
        assert graph.call(Trigger, "/policy/start", timeout=20).success
        graph.wait(lambda: any(map(moves, twists[count:])), "a command that moves", 30)
        graph.wait(lambda: np.abs(angles() - begin).max() > 0.02, "the arm to move", 30)

    graph.wait(lambda: statuses and statuses[-1].state == PolicyStatus.STATE_DISABLED, "the policy", 120)
    request = SetInstruction.Request(instruction="open the drawer")
    assert graph.call(SetInstruction, "/policy/set_instruction", request, timeout=20).success
    graph.wait(lambda: joints, "joints", 20)
    assert still(1.0), "nothing moves before a start"
    start()
    assert set(statuses[-1].outputs) == {"/simulator/delta_twist_cmds", "/simulator/gripper_command"}
    assert graph.call(Trigger, "/policy/stop", timeout=20).success
    graph.wait(lambda: not moves(twists[-1]), "a stop command")
    graph.wait(lambda: still(0.5), "the arm to stand still", 20)

    start()
    policy.send(signal.SIGKILL)  # no stop command: the simulator's own timeout ends the movement
    policy.wait(5.0)
    assert moves(twists[-1]), "it must not have been able to say anything"
    time.sleep(TIMEOUT)
    graph.wait(lambda: still(0.5), "the arm to stand still without having been told", 20)
