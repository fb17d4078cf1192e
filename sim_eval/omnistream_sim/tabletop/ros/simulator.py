# SPDX-License-Identifier: Apache-2.0
"""The simulator node's class; the executable is `omnistream_sim.tabletop.ros.node`, which loads this one late."""

from __future__ import annotations

import json
import threading
import time
import traceback
from typing import Any

import numpy as np
from builtin_interfaces.msg import Time
from geometry_msgs.msg import PoseStamped
from nav_msgs.msg import Odometry
from numpy.typing import NDArray
from rclpy.duration import Duration
from rclpy.node import Node
from rclpy.parameter import Parameter
from rclpy.publisher import Publisher
from rclpy.qos import ReliabilityPolicy
from rosgraph_msgs.msg import Clock
from sensor_msgs.msg import CameraInfo, Image, JointState
from std_msgs.msg import String
from std_srvs.srv import Trigger

from omnistream.errors import ConfigError, OmniStreamError
from omnistream_msgs.msg import TaskStatus
from omnistream_msgs.srv import BeginTask
from omnistream_ros.diagnostics import Diagnostics, Level, Report
from omnistream_ros.images import ns_to_stamp
from omnistream_ros.pacing import Timetable, wait_until
from omnistream_ros.parameters import Parameters
from omnistream_ros.qos import qos_profile

from ..commander import Commander
from ..judge import Assignment, assignment
from ..live import LiveConfig, Moment, open_live
from ..state import Start
from .command_topics import CommandTopics
from .demonstration import Demonstration, demonstration_message
from .judging import Judging
from .messages import (
    Frames,
    camera_messages,
    joint_message,
    moving_transforms,
    odometry_message,
    state_message,
    static_transforms,
)
from .pace import Pace
from .parameters import PARAMETERS, read_flight, read_start
from .transforms import Transforms

SETTLE_S = 0.3
"""A writer sees a new reader a little before the reader sees the writer; what is sent in between is lost."""
LAST_MESSAGE_S = 2.0
TASK_QOS = "latched:20"
"""Somebody who counts moments shall not miss one for a hiccup."""


class SimulatorNode(Node):
    """Simulates in a thread of its own that keeps the time.

    Attributes:
        finished: set after the last of `frames` moments, after `stop`, or after an error.
        exit_code: 1 after an error, else 0.
        published: moments sent so far.

    Raises:
        OmniStreamError: a parameter is refused, or PyBullet is missing.
    """

    def __init__(self, **keywords: Any) -> None:
        super().__init__("simulator", **keywords)
        self.finished = threading.Event()
        self.exit_code = self.published = self.episode = 0
        self._stopping = threading.Event()
        p = self.parameters = Parameters(self, PARAMETERS)
        for sentence in p.undeclared():
            self.get_logger().warn(sentence)
        width, height = p["image_size"]
        self._config = LiveConfig(
            cameras=tuple(p["cameras"]),
            size=(height, width),
            wrist_size=(p["wrist_image_size"][1], p["wrist_image_size"][0]) if p["wrist_image_size"] else None,
            rate=p["rate"],
            flight_length=p["flight_length"],
            flight=read_flight(p),
        )
        self._period = 1.0 / p["rate"]
        self._frames = Frames(p["frame_prefix"])
        self._lock = threading.RLock()
        """Of the simulation: services begin episodes between two moments."""
        self._live = open_live(self._config)
        self._commander = Commander(p["rate"], p["command_timeout"])
        self._simulated_ns = 0
        self._before: dict[str, NDArray[np.float64]] = {}
        self._pace = Pace()
        self._judging = Judging(0)
        self._task: Assignment | None = None
        self._demonstration: Demonstration | None = None
        self._with_robot = "flying" not in p["cameras"]
        self._make_publishers()
        self._begin(p["seed"], read_start(p["start"]))
        self.create_service(Trigger, "~/reset", self._on_reset)
        self.create_service(Trigger, "~/next", self._on_next)
        commands = CommandTopics(self, self._commander, self._frames)
        if self._with_robot:
            commands.listen()
            self.create_service(BeginTask, "~/begin_task", self._on_begin_task)
            self.create_service(Trigger, "~/demonstrate", self._on_demonstrate)
        self._diagnostics = Diagnostics(self, hardware_id="tabletop")
        self._diagnostics.add("source", self.report)
        self._diagnostics.add("commands", commands.report)
        self._thread = threading.Thread(target=self._run, name="simulate", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Ends the simulation, and waits until it has ended."""
        self._stopping.set()
        self._thread.join(timeout=LAST_MESSAGE_S)

    # ------------------------------------------------------------------------------------------ topics and services

    def _make_publishers(self) -> None:
        p = self.parameters
        qos = qos_profile(p["qos"])
        self._acknowledged = qos.reliability is ReliabilityPolicy.RELIABLE
        kinds: dict[str, Any] = {"image_raw": Image, "camera_info": CameraInfo}
        if p["ground_truth"]:
            kinds |= {
                "ground_truth/depth": Image,
                "ground_truth/pose": PoseStamped,
                "ground_truth/odometry": Odometry,
            }
        self._cameras: dict[str, dict[str, Publisher]] = {
            camera: {topic: self.create_publisher(kind, f"{camera}/{topic}", qos) for topic, kind in kinds.items()}
            for camera in p["cameras"]
        }
        self._first_image = self._cameras[p["cameras"][0]]["image_raw"]
        self._joints = self.create_publisher(JointState, "joint_states", qos_profile("reliable"))
        self._state = self._tasks = self._demonstrations = None
        if self._with_robot:
            self._demonstrations = self.create_publisher(JointState, "~/demonstration", qos_profile("reliable"))
            self._state = self.create_publisher(JointState, "~/state", qos_profile("reliable"))
            self._tasks = self.create_publisher(TaskStatus, "~/task", qos_profile(TASK_QOS))
        self._episodes = self.create_publisher(String, "~/episode", qos_profile("latched"))
        self._clock_topic = (
            self.create_publisher(Clock, "/clock", qos_profile("sensor:1")) if p["publish_clock"] else None
        )
        self._transforms = Transforms(self) if p["publish_tf"] else None

    def _on_reset(self, _request: Trigger.Request, response: Trigger.Response) -> Trigger.Response:
        try:
            p = self.parameters
            response.message, response.success = self._begin(p["seed"], read_start(p["start"])), True
        except OmniStreamError as error:  # of `start`, most likely; what ran goes on
            response.message, response.success = str(error), False
        return response

    def _on_next(self, request: Trigger.Request, response: Trigger.Response) -> Trigger.Response:
        self.set_parameters([Parameter("seed", value=self.parameters["seed"] + 1)])
        return self._on_reset(request, response)

    def _on_begin_task(self, request: BeginTask.Request, response: BeginTask.Response) -> BeginTask.Response:
        try:
            if self.parameters["scene"] != "shipped":
                raise ConfigError(f"scene is {self.parameters['scene']!r}; expected 'shipped', which tasks are for")
            given = read_start(request.start)
            task = assignment(request.task, request.seed, None if given is None else Start.from_plain(given))
            with self._lock:
                response.message = self._begin(request.seed, task.start.plain(), task)
                response.episode = self.episode
            response.task, response.instruction, response.success = task.task.name, task.instruction, True
        except (OmniStreamError, TypeError, KeyError) as error:  # the last two: of a start's inner parts
            response.message, response.success = str(error) or repr(error), False
        return response

    def _on_demonstrate(self, _request: Trigger.Request, response: Trigger.Response) -> Trigger.Response:
        with self._lock:
            if self._task is None or not self._judging.wanted:
                response.message = "no task is waiting to be done; begin one with ~/begin_task"
                return response
            noise = self.parameters["disturbance"]
            self._demonstration = Demonstration(self._task.task, self._seed, noise)
            response.message, response.success = f"an expert does {self._task.task.name}", True
        return response

    def _begin(self, seed: int, start: dict[str, Any] | None, task: Assignment | None = None) -> str:
        """A new episode; returns what it is. OmniStreamError when these do not make one."""
        scene = self.parameters["scene"]
        with self._lock:
            self._live.begin(seed, scene, start)
            self._commander.forget()
            self._before = {}
            self._task, self._seed, self._demonstration = task, seed, None
            self.episode += 1
            self._new_episode = True
            limit = round(self.parameters["task_time"] / self._period)
            self._judging = Judging(self.episode, task, self._live.state() if task else None, limit)
            facts = {"number": self.episode, "seed": seed, "scene": scene, "text": self._live.text}
        self._episodes.publish(String(data=json.dumps(facts)))
        what = self._live.text if task is None else f"{self._live.text} Task {task.task.name}: {task.instruction!r}"
        self.get_logger().info(f"episode {facts['number']}: {what}")
        return f"episode {facts['number']}: seed {seed}, {what}"

    # ------------------------------------------------------------------------------------------ diagnostics

    def report(self) -> Report:
        """Whether the machine keeps up, for /diagnostics."""
        asked = self._wall_rate()
        numbers = {"published": self.published, "late": self._pace.late, "skipped": 0, "asked_hz": asked}
        rate, busy = self._pace.rate(), self._pace.busy()
        if rate is None or busy is None:
            return Report.ok(f"{self.published} moments published", **numbers)
        findings = []
        if self._pace.lags():
            best = self.parameters["real_time_factor"] / (asked * busy)
            findings.append(
                (
                    Level.WARN,
                    f"{rate:.1f} Hz of the {asked:.1f} Hz asked: a moment takes {1e3 * busy:.0f} ms here; expected "
                    f"real_time_factor {0.9 * best:.2g} at most, or smaller pictures",
                )
            )
        return Report.worst(findings, f"{rate:.1f} Hz", **numbers, rate_hz=rate, busy_ms=1e3 * busy)

    def _wall_rate(self) -> float:
        return float(self.parameters["rate"] * self.parameters["real_time_factor"])

    # ------------------------------------------------------------------------------------------ the simulation

    def _run(self) -> None:
        try:
            self._simulate()
        except Exception as error:  # of this thread; main turns it into the exit code
            self.exit_code = 1
            self.get_logger().fatal(str(error) if isinstance(error, OmniStreamError) else traceback.format_exc())
        finally:
            self.finished.set()

    def _simulate(self) -> None:
        log, limit = self.get_logger(), self.parameters["frames"]
        log.info(f"publishing {', '.join(self._cameras)} at {self._wall_rate():g} Hz")
        self._wait_for_subscribers()
        timetable = Timetable(self._wall_rate(), self._wall_rate())
        while not (limit and self.published >= limit):
            timetable.period = 1.0 / self._wall_rate()  # it can be changed while it runs
            if not wait_until(timetable.next(0.0), self._stopping):
                break
            began = time.monotonic()
            self._publish(*self._next_moment())
            self._pace.add(began, time.monotonic(), timetable.period, timetable.late)
        self._diagnostics.publish()
        if self._acknowledged and not self._stopping.is_set():
            self._first_image.wait_for_all_acked(Duration(seconds=LAST_MESSAGE_S))
            time.sleep(0.1)
        with self._lock:
            self._live.close()
        late = f", {self._pace.late} of them late" if self._pace.late else ""
        log.info(f"{'stopped' if self._stopping.is_set() else 'done'}: {self.published} moments{late}")

    def _next_moment(self) -> tuple[Moment, bool, TaskStatus, NDArray[np.float64] | None]:
        """What is to be shown, whether an episode begins with it, how its task stands, not stamped yet, and what an
        expert wants to do about it."""
        with self._lock:
            first, self._new_episode = self._new_episode, False
            if not first:
                self._live.step(self._commander.next(self._live.state))
                if self._judging.wanted and (state := self._live.state()) is not None:
                    self._judging.look(state, self._commander.commanded)
            return self._live.look(), first, self._judging.message(Time()), self._demonstrate()

    def _demonstrate(self) -> NDArray[np.float64] | None:
        """The action [7] that an expert wants, where one was asked to show its task; the arm is told already."""
        if self._demonstration is None or not self._judging.wanted or (state := self._live.state()) is None:
            return None
        found = self._demonstration.next(state)
        if found is None:
            self._demonstration = None
            self.get_logger().warning("the expert gives up")
            return None
        wanted, done = found
        self._commander.act(done)
        return wanted

    def _publish(self, moment: Moment, first: bool, task: TaskStatus, wanted: NDArray[np.float64] | None) -> None:
        self._simulated_ns += round(1e9 * self._period)
        if self._clock_topic is not None:
            stamp = ns_to_stamp(self._simulated_ns)
            self._clock_topic.publish(Clock(clock=stamp))
        else:
            stamp = self.get_clock().now().to_msg()
        if self._transforms is not None:
            if first:
                self._transforms.publish_static(static_transforms(moment, stamp, self._frames))
            self._transforms.publish(moving_transforms(moment, stamp, self._frames))
        if (joints := joint_message(moment, stamp)) is not None:
            self._joints.publish(joints)
        if self._state is not None and (felt := state_message(moment, stamp)) is not None:
            self._state.publish(felt)
        for camera, topics in self._cameras.items():
            picture = moment.pictures[camera]
            messages = camera_messages(camera, picture, stamp, self._frames)
            topics["camera_info"].publish(messages.info)
            if "ground_truth/pose" in topics:
                pose, before = picture.T_world_camera, self._before.get(camera)
                self._before[camera] = pose
                topics["ground_truth/depth"].publish(messages.depth)
                topics["ground_truth/pose"].publish(messages.pose)
                topics["ground_truth/odometry"].publish(
                    odometry_message(camera, pose, before, self._period, stamp, self._frames)
                )
            topics["image_raw"].publish(messages.image)  # last: who has it finds the rest already there
        if self._demonstrations is not None and wanted is not None:
            self._demonstrations.publish(demonstration_message(wanted, stamp))
        if self._tasks is not None:  # after the pictures: who hears that it is solved has seen it
            task.header.stamp = stamp
            self._tasks.publish(task)
        self.published += 1

    def _wait_for_subscribers(self) -> None:
        wanted = self.parameters["wait_for_subscribers"]
        if wanted == 0:
            return
        self.get_logger().info(f"waiting for {wanted} subscribers of {self._first_image.topic_name}")
        while self._first_image.get_subscription_count() < wanted and not self._stopping.wait(0.02):
            pass
        self._stopping.wait(SETTLE_S)
