# SPDX-License-Identifier: Apache-2.0
"""Tasks of a robot that acts by itself: which one, when it begins, when it is solved; and the same over ROS 2."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
import pytest
from numpy.typing import NDArray

pytest.importorskip("rclpy", reason="needs rclpy: pip install -e '.[ros]'")
pytest.importorskip("pybullet", reason='needs PyBullet: pip install "omnistream[sim]" on Python 3.11')

from geometry_msgs.msg import TwistStamped, Vector3
from rclpy.parameter import Parameter
from sensor_msgs.msg import Image, JointState
from std_msgs.msg import Float64, Float64MultiArray, Header
from std_srvs.srv import Trigger

from omnistream.errors import ConfigError
from omnistream_msgs.msg import TaskStatus
from omnistream_msgs.srv import BeginTask
from omnistream_ros.images import stamp_to_ns
from omnistream_ros.testing import Graph
from omnistream_sim.tabletop.benchmark import FIRST_SEED, tabletop_benchmark
from omnistream_sim.tabletop.demos import STATE
from omnistream_sim.tabletop.env import STEP, TURN
from omnistream_sim.tabletop.expert import Expert
from omnistream_sim.tabletop.judge import Judge, Verdict, assignment
from omnistream_sim.tabletop.ros.simulator import SimulatorNode
from omnistream_sim.tabletop.task_env import TaskWorld, View, instruction
from omnistream_sim.tabletop.tasks import TASKS


def test_a_kind_and_a_seed_are_the_evaluations_own_episode() -> None:
    for episode in tabletop_benchmark(episodes=3, tasks=("lift", "drawer")).episodes:
        task = TASKS[episode.tasks[0]]
        found = assignment(task.kind, episode.seed)
        assert found.task == task and found.start.plain() == episode.state["start"]
        assert found.instruction == instruction(task, "unseen", episode.seed, 1)
    one = assignment("lift_red", FIRST_SEED)
    assert one.task is TASKS["lift_red"] and one.start == assignment("lift_red", FIRST_SEED).start
    with pytest.raises(ConfigError, match="'juggle' is unknown"):
        assignment("juggle", 0)


def test_time_counts_from_the_first_command_and_the_verdict_stays() -> None:
    task = assignment("open_drawer", FIRST_SEED)
    world = TaskWorld(View(static=16, gripper=0))
    world.reset(task.start.plain(), FIRST_SEED)
    begin = world.env.state()
    judge, strict = Judge(task.task, begin, 0), Judge(task.task, begin, 5)
    for _ in range(3):
        assert judge.look(begin, False) is strict.look(begin, False) is Verdict.WAITING
    expert, periods = Expert(task.task), 0
    while judge.verdict in (Verdict.WAITING, Verdict.RUNNING):
        action = expert.action(world.env.state())
        assert action is not None
        world.step(action)
        periods += 1
        judge.look(world.env.state(), True)
        strict.look(world.env.state(), True)
    world.env.close()
    assert judge.verdict is Verdict.SOLVED and judge.periods == periods
    assert strict.verdict is Verdict.TIME_OVER and strict.periods == 5, "what comes later does not count"
    assert judge.look(begin, True) is Verdict.SOLVED and judge.periods == periods


@pytest.fixture
def graph(ros_domain: int) -> Iterator[Graph]:
    with Graph(ros_domain) as graph:
        yield graph


@pytest.fixture
def simulator(graph: Graph) -> Iterator[SimulatorNode]:
    given = {"image_size": [40, 32], "wrist_image_size": [24, 24], "ground_truth": False, "publish_tf": False}
    given |= {"task_time": 0.0}  # the machine that runs tests may be busy: then commands come late, and are few
    overrides = [Parameter(name, value=value) for name, value in given.items()]
    node = graph.add(SimulatorNode(context=graph.context, parameter_overrides=overrides))
    yield node
    node.stop()


def relative(graph: Graph, action: NDArray[np.float64]) -> None:
    message = Float64MultiArray(data=action.tolist())
    graph.publish(Float64MultiArray, "/simulator/relative_action", message, "command")


def twist(graph: Graph, action: NDArray[np.float64]) -> None:
    """As the policy node commands: velocities in SI units, and the gripper by itself."""
    message = TwistStamped(header=Header(frame_id="world"))
    linear, angular = 20 * STEP * action[:3], 20 * TURN * action[3:6]
    message.twist.linear = Vector3(x=linear[0], y=linear[1], z=linear[2])
    message.twist.angular = Vector3(x=angular[0], y=angular[1], z=angular[2])
    graph.publish(Float64, "/simulator/gripper_command", Float64(data=float(action[6])), "command")
    graph.publish(TwistStamped, "/simulator/delta_twist_cmds", message, "command")


@pytest.mark.ros
@pytest.mark.parametrize(("kind", "command"), [("drawer", relative), ("lift", twist)])
def test_an_expert_solves_a_task_over_topics_and_is_told_so(
    kind: str, command: Callable[..., None], graph: Graph, simulator: SimulatorNode
) -> None:
    tasks: list[TaskStatus] = graph.collect(TaskStatus, "/simulator/task", "reliable:1000")
    states: list[JointState] = graph.collect(JointState, "/simulator/state", "reliable:1000")
    static: list[Image] = graph.collect(Image, "/static/image_raw", "reliable:100")
    wrist: list[Image] = graph.collect(Image, "/wrist/image_raw", "reliable:100")
    graph.wait(lambda: tasks and tasks[-1].state == TaskStatus.STATE_NONE, "an episode without a task")

    def begin(**fields: object) -> BeginTask.Response:
        return graph.call(BeginTask, "/simulator/begin_task", BeginTask.Request(**fields), timeout=60)

    before = simulator.episode
    for wrong in ({"task": "juggle"}, {"task": "lift", "start": "{"}, {"task": "lift", "start": '{"drawer": 7}'}):
        answer = begin(**wrong)
        assert not answer.success and answer.message and simulator.episode == before, "refused, and nothing changed"

    answer = begin(task=kind, seed=FIRST_SEED)
    wanted = assignment(kind, FIRST_SEED)
    assert answer.success and (answer.task, answer.instruction) == (wanted.task.name, wanted.instruction)

    def latest() -> TaskStatus | None:
        return tasks[-1] if tasks and tasks[-1].episode == answer.episode else None

    status = graph.wait(lambda: latest(), "the task", 30)
    assert (status.state, status.periods, status.task) == (TaskStatus.STATE_WAITING, 0, wanted.task.name)
    expert, last = Expert(wanted.task), None
    while (status := latest()) is not None and status.state in (TaskStatus.STATE_WAITING, TaskStatus.STATE_RUNNING):
        if status is not last:  # once for every moment
            last = status
            with simulator._lock:
                state = simulator._live.state()
            action = None if state is None else expert.action(state)
            assert action is not None, "the expert gave up"
            command(graph, action)
    assert status is not None and status.state == TaskStatus.STATE_SOLVED and status.periods > 5
    graph.wait(lambda: tasks[-1].header.stamp != status.header.stamp, "the next moment")
    assert tasks[-1].state == TaskStatus.STATE_SOLVED and tasks[-1].periods == status.periods, "it stays solved"

    stamps = {stamp_to_ns(message.header.stamp) for message in tasks}
    assert stamp_to_ns(states[-20].header.stamp) in stamps, "one stamp for everything of a moment"
    assert list(states[-1].name) == [dimension.name for dimension in STATE] and np.isfinite(states[-1].position).all()
    assert (static[-1].width, static[-1].height, wrist[-1].width, wrist[-1].height) == (40, 32, 24, 24)

    assert graph.call(Trigger, "/simulator/reset", timeout=60).success
    graph.wait(lambda: tasks[-1].episode > answer.episode, "another episode", 30)
    assert (tasks[-1].state, tasks[-1].task) == (TaskStatus.STATE_NONE, "")
