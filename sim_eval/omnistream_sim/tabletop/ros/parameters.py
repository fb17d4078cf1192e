# SPDX-License-Identifier: Apache-2.0
"""Parameters of the simulator node, and its topics and services: what --help and docs/reference.md are made from."""

from __future__ import annotations

import json
from collections.abc import Sequence
from functools import partial
from typing import Any

from omnistream.errors import ConfigError
from omnistream_ros.parameters import Effect, Parameters, ParameterSpec
from omnistream_ros.qos import qos_problem

from ..config import SCENES

CAMERA_NAMES = ("static", "wrist", "flying")
"""`omnistream_sim.tabletop.live.CAMERAS`, told here without loading PyBullet; a test compares."""
PHYSICS_RATE = 240

_start = partial(ParameterSpec, effect=Effect.START)


def _rate_problem(value: int) -> str | None:
    return None if PHYSICS_RATE % value == 0 else f"rate is {value}; expected a divisor of {PHYSICS_RATE}"


def _cameras_problem(names: Sequence[str]) -> str | None:
    names = list(names)
    if not names or len(set(names)) < len(names):
        return f"cameras is {names}; expected one or more, each once"
    if "flying" in names and len(names) > 1:
        return f"cameras is {names}; expected flying alone: the others show the robot"
    return None


def _size_problem(values: Sequence[int]) -> str | None:
    return None if len(values) == 2 else f"has {len(values)} numbers; expected 2: width, height"


def _pairs_problem(options: Sequence[str]) -> str | None:
    bad = [option for option in options if "=" not in option]
    return f"flight has {bad[0]!r}; expected NAME=VALUE" if bad else None


def _start_problem(text: str) -> str | None:
    try:
        read_start(text)
    except ConfigError as error:
        return str(error)
    return None


PARAMETERS = (
    _start(
        "cameras",
        ["static", "wrist"],
        "What is seen: the robot by static and wrist, or flying alone: a free camera about the table, the stream that "
        "geometry is trained on, in which nothing can be commanded.",
        choices=CAMERA_NAMES,
        check=_cameras_problem,
    ),
    _start(
        "image_size",
        [128, 128],
        "Width and height of every picture.",
        unit="px",
        minimum=8,
        maximum=2048,
        check=_size_problem,
    ),
    _start(
        "wrist_image_size",
        (),
        "Of the camera on the wrist. Empty: image_size.",
        unit="px",
        minimum=8,
        maximum=2048,
        item_type=int,
        check=lambda values: _size_problem(values) if values else None,
    ),
    _start(
        "rate",
        20,
        "Pictures and control periods per simulated second; a divisor of 240.",
        unit="Hz",
        minimum=1,
        maximum=240,
        check=_rate_problem,
    ),
    ParameterSpec(
        "real_time_factor",
        1.0,
        "Simulated seconds per second of the clock on the wall. Diagnostics WARN when the machine does not keep up.",
        minimum=0.001,
        maximum=1000.0,
    ),
    ParameterSpec(
        "scene",
        "shipped",
        "Of the next episode: our table as it is, or random measures, colours, textures, light and lens.",
        choices=SCENES,
    ),
    ParameterSpec(
        "seed",
        0,
        "Of the next episode: the same seed gives the same one. ~/next counts it up.",
        minimum=0,
        maximum=(1 << 62) - 1,
    ),
    ParameterSpec(
        "start",
        "",
        "Where things are when the next episode begins, as JSON: any of blocks, drawer, slider, lamp, tool, such as "
        '{"drawer": 0.1, "lamp": true} (see docs/tabletop.md). The rest is drawn from the seed.',
        check=_start_problem,
    ),
    ParameterSpec(
        "task_time",
        8.0,
        "Of the next episode with a task: simulated seconds from the first command; then its time is over. 0: never.",
        unit="s",
        minimum=0.0,
        maximum=3600.0,
    ),
    ParameterSpec(
        "disturbance",
        0.35,
        "Of the arm while an expert demonstrates: standard deviation, where 1 is 0.02 m, in every second period; what "
        "the expert wants is published undisturbed. 0: none.",
        minimum=0.0,
        maximum=1.0,
    ),
    _start(
        "flight",
        [],
        "Of the free camera: NAME=VALUE of the options in docs/tabletop.md, such as min_path=1 or speed=0.5.",
        check=_pairs_problem,
    ),
    _start(
        "flight_length",
        60.0,
        "The free camera flies so long, then the same way back, and so on: it never jumps.",
        unit="s",
        minimum=0.1,
        maximum=3600.0,
    ),
    _start("frames", 0, "End with exit code 0 after so many moments; 0: never.", minimum=0, maximum=1 << 31),
    ParameterSpec(
        "command_timeout",
        0.25,
        "A velocity that is not renewed for so long (of a steady clock) ends; the arm then holds its place.",
        unit="s",
        minimum=0.01,
        maximum=60.0,
        effect=Effect.START,
    ),
    _start("ground_truth", True, "Publish true depth, camera poses and odometry."),
    _start("publish_tf", True, "Publish the true transforms of cameras, hand and blocks."),
    _start(
        "publish_clock",
        False,
        "Publish /clock and stamp by it: simulated time, which goes on over episodes. Other nodes: use_sim_time.",
    ),
    _start("frame_prefix", "", "In front of every frame's name, for several simulators in one graph."),
    _start(
        "qos",
        "reliable",
        "Quality of service of pictures. A reliable writer also serves best-effort readers.",
        check=qos_problem,
    ),
    _start(
        "wait_for_subscribers",
        0,
        "Start once the first camera's image topic has so many subscribers.",
        minimum=0,
        maximum=100,
    ),
)

TOPICS = (
    ("<camera>/image_raw", "sensor_msgs/msg/Image", "rgb8."),
    ("<camera>/camera_info", "sensor_msgs/msg/CameraInfo", "Of an ideal lens."),
    ("<camera>/ground_truth/depth", "sensor_msgs/msg/Image", "32FC1, metres along the optical axis, NaN: nothing."),
    ("<camera>/ground_truth/pose", "geometry_msgs/msg/PoseStamped", "Of the optical frame in world."),
    ("<camera>/ground_truth/odometry", "nav_msgs/msg/Odometry", "The same with the twist in the optical frame."),
    ("joint_states", "sensor_msgs/msg/JointState", "Seven joints of the arm and two of the fingers."),
    (
        "~/state",
        "sensor_msgs/msg/JointState",
        "What demonstrations record of the robot, by the names of their contract: tool, opening, joints, last gripper "
        "command. The policy node's state_topic.",
    ),
    (
        "/tf, /tf_static",
        "tf2_msgs/msg/TFMessage",
        "world to cameras, panda_hand (panda_hand_tcp), block_red and so on.",
    ),
    (
        "~/demonstration",
        "sensor_msgs/msg/JointState",
        "What an expert wants to do, by the names and in the units of the demonstrations' contract, with the stamp of "
        "the pictures that it answers; see ~/demonstrate.",
    ),
    ("~/episode", "std_msgs/msg/String", "Latched JSON: number, seed, scene and text of the episode that began."),
    (
        "~/task",
        "omnistream_msgs/msg/TaskStatus",
        "What is judged and how it stands, at every moment, latched; see ~/begin_task.",
    ),
    ("/clock", "rosgraph_msgs/msg/Clock", "With publish_clock."),
    ("/diagnostics", "diagnostic_msgs/msg/DiagnosticArray", "Rate against what is asked, lateness, commands; 1 Hz."),
)
"""Published: name, type, what. All but /diagnostics carry one stamp per moment."""

COMMANDS = (
    (
        "~/relative_action",
        "std_msgs/msg/Float64MultiArray",
        "Seven numbers in -1 .. 1 for one control period: 0.02 m and 0.05 rad about the world's axes, gripper (above 0 "
        "opens). The newest wins.",
    ),
    (
        "~/delta_twist_cmds",
        "geometry_msgs/msg/TwistStamped",
        "Velocity of the tool in m/s and rad/s, in the frame world (panda_link0) or panda_hand_tcp; ends after "
        "command_timeout. At most 0.02 m and 0.05 rad per control period.",
    ),
    ("~/gripper_command", "std_msgs/msg/Float64", "Above 0 opens, else closes; holds until the next."),
)
"""Subscribed, where the robot is seen."""

SERVICES = (
    ("~/reset", "std_srvs/srv/Trigger", "Begins an episode with the parameters scene, seed and start."),
    ("~/next", "std_srvs/srv/Trigger", "Counts the parameter seed up and begins that episode."),
    (
        "~/begin_task",
        "omnistream_msgs/srv/BeginTask",
        "Begins an episode at a start from which a task can be done, and judges it on ~/task. Where the robot is seen, "
        "in the shipped scene.",
    ),
    (
        "~/demonstrate",
        "std_srvs/srv/Trigger",
        "An expert does the task that was begun and tells ~/demonstration, until it is solved or its time is over.",
    ),
)


def read_start(text: str) -> dict[str, Any] | None:
    """The parameter `start` as plain data; None when it is empty. Raises ConfigError when it is not a JSON object."""
    if not text.strip():
        return None
    try:
        data = json.loads(text)
    except json.JSONDecodeError as error:
        raise ConfigError(f"start is {text!r}; expected JSON ({error})") from None
    if not isinstance(data, dict):
        raise ConfigError(f"start is {text!r}; expected a JSON object")
    return data


def read_flight(parameters: Parameters) -> dict[str, object]:
    """The parameter `flight` as names and values."""
    return {name: value for name, _, value in (option.partition("=") for option in parameters["flight"])}
