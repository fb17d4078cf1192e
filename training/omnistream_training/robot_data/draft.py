# SPDX-License-Identifier: Apache-2.0
"""A mapping to start from, out of what lies in a bag."""

from __future__ import annotations

from typing import Any

import yaml

from omnistream.errors import InputError
from omnistream.io.bag import COMPRESSED, RAW
from omnistream.io.bag_reader import BagReader, Topic
from omnistream.sync.fields import TWIST_FIELDS

POSE = ["x", "y", "z", "roll", "pitch", "yaw"]
STATES = {
    "sensor_msgs/msg/JointState": None,
    "nav_msgs/msg/Odometry": POSE,
    "geometry_msgs/msg/PoseStamped": POSE,
    "geometry_msgs/msg/PoseWithCovarianceStamped": POSE,
}
COMMANDS = {
    "geometry_msgs/msg/TwistStamped": list(TWIST_FIELDS),
    "geometry_msgs/msg/Twist": list(TWIST_FIELDS),
    "trajectory_msgs/msg/JointTrajectory": None,
    "std_msgs/msg/Float64MultiArray": None,
    "control_msgs/msg/GripperCommand": ["position"],
}
NUMBERS = ("std_msgs/msg/Float64", "std_msgs/msg/Float32", "std_msgs/msg/Bool")
COMMAND_WORDS = ("command", "cmd", "target", "goal", "desired", "setpoint")
"""In the name of a topic: its joints, poses or numbers are commands."""
HEAD = """\
# Written by `omnistream-data topics`: a guess from topic names and types. Go through it:
#   keep the topics that a policy sees and commands, and give the fields names of your own;
#   mode (delta, absolute, velocity), frame and units decide what a robot does with the numbers;
#   a gripper's part wants its sign:  gripper: {open: 1.0, closed: 0.0}
"""


def draft_mapping(bag: BagReader) -> str:
    """YAML text. InputError if the bag has no pictures."""
    topics = [topic for topic in bag.topics if topic.count]
    cameras = [topic for topic in topics if topic.type in (RAW, COMPRESSED) and "depth" not in topic.name.lower()]
    if not cameras:
        raise InputError(f"{bag.path}: no image topic; a mapping needs a camera")
    states, commands = [], []
    for topic in topics:
        commanded = any(word in topic.name.lower() for word in COMMAND_WORDS)
        if topic.type in COMMANDS or (commanded and topic.type in (*STATES, *NUMBERS)):
            commands.append(_part(bag, topic))
        elif topic.type in (*STATES, *NUMBERS):
            states.append(_part(bag, topic))
    for part in commands:
        part |= {"names": [f"{name}_command" for name in part["fields"]], "pick": "next"}
    for parts in (states, commands):
        _tell_apart(parts)
    texts = [topic.name for topic in topics if topic.type == "std_msgs/msg/String"]
    instruction = next((name for name in texts if "instruction" in name or "task" in name or "prompt" in name), None)
    data: dict[str, Any] = {
        "format": "omnistream-mapping",
        "version": 1,
        "rate": 10.0,
        "clock": "header",
        "cameras": [{"name": _word(topic.name), "topic": topic.name, "max_age": 0.1} for topic in cameras],
        "state": states,
        "action": {"mode": "unspecified", "frame": "unspecified", "parts": commands},
        "instruction": {"topic": instruction, "text": ""},
        "episodes": {"topic": next((name for name in texts if "episode" in name), None), "shortest": 1.0},
    }
    if not commands:  # no commands were recorded: learn from where the robot went
        names = [name for part in states for name in part.get("names", part["fields"])]
        data["action"] = {"mode": "delta", "frame": "unspecified", "from_state": names}
    return HEAD + yaml.safe_dump(data, sort_keys=False, default_flow_style=None, width=110)


def _part(bag: BagReader, topic: Topic) -> dict[str, Any]:
    known = STATES.get(topic.type) or COMMANDS.get(topic.type)
    if topic.type in NUMBERS:
        known = ["value"]
    part: dict[str, Any] = {"topic": topic.name, "fields": known or _fields(bag, topic), "max_age": 0.2}
    if known is None:
        part["unit"] = "unspecified" if topic.type.startswith("std_msgs") else "rad"
    elif known in (["position"], ["value"]):
        part["unit"] = "unspecified"
    return part


def _tell_apart(parts: list[dict[str, Any]]) -> None:
    """Two grippers' "value" get the names of their topics."""
    names = [name for part in parts for name in part.get("names", part["fields"])]
    for part in parts:
        own = part.get("names", part["fields"])
        if any(names.count(name) > 1 for name in own):
            part["names"] = [f"{part['topic'].strip('/').replace('/', '_')}_{name}" for name in own]


def _fields(bag: BagReader, topic: Topic) -> list[str]:
    """Joint names, or positions in the array, of the first message that can be read."""
    for found, _, data in bag.raw_messages([topic.name]):
        try:
            message = bag.decode(found, data)
        except InputError:
            continue
        names = getattr(message, "name", None) or getattr(message, "joint_names", None)
        return [str(name) for name in names] if names else [str(i) for i in range(len(message.data))]
    return []


def _word(topic: str) -> str:
    """/wrist/image_raw/compressed becomes wrist."""
    plain = {"image_raw", "image", "compressed", "color", "rgb", "image_rect", "image_color"}
    return "_".join(part for part in topic.split("/") if part and part not in plain) or "camera"
