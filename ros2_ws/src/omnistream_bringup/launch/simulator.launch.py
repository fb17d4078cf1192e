# SPDX-License-Identifier: Apache-2.0
"""Starts the tabletop simulator, and the perception node on one of its cameras.

    ros2 launch omnistream_bringup simulator.launch.py
    ros2 launch omnistream_bringup simulator.launch.py cameras:="[flying]" camera:=flying rate:=30 seed:=7

The simulator is no ROS package: it is the Python package omnistream[sim], in the environment that runs this launch.
Arguments that are not given leave the node's default as it is.
"""

from __future__ import annotations

import sys
from typing import Any

from launch import LaunchContext, LaunchDescription
from launch.actions import DeclareLaunchArgument, ExecuteProcess, IncludeLaunchDescription, OpaqueFunction
from launch.launch_description_sources import PythonLaunchDescriptionSource
from launch.substitutions import LaunchConfiguration, PathJoinSubstitution
from launch_ros.substitutions import FindPackageShare

# Launch argument (it is the simulator's parameter of that name as well) -> description.
PARAMETERS: dict[str, str] = {
    "cameras": "what is seen: [static, wrist], or [flying] alone",
    "image_size": "width and height of every picture, e.g. [128, 128]",
    "rate": "pictures and control periods per simulated second",
    "real_time_factor": "simulated seconds per second",
    "scene": "shipped or random",
    "seed": "of the first episode",
}
PERCEPTION = ("weights", "policy", "engine")
"""Arguments that go to the perception node."""
UNSET = ""


def generate_launch_description() -> LaunchDescription:
    """Called by launch."""
    return LaunchDescription(
        [
            *(
                DeclareLaunchArgument(name, default_value=UNSET, description=description)
                for name, description in PARAMETERS.items()
            ),
            *(DeclareLaunchArgument(name, default_value=UNSET, description="of perception") for name in PERCEPTION),
            DeclareLaunchArgument("camera", default_value="static", description="the one that perception looks at"),
            DeclareLaunchArgument("namespace", default_value=UNSET, description="of both nodes and their topics"),
            DeclareLaunchArgument("use_sim_time", default_value="false", description="simulated time on /clock"),
            OpaqueFunction(function=_nodes),
        ]
    )


def _nodes(context: LaunchContext) -> list[Any]:
    """Both, with the arguments that were given; only known once launch has read the command line."""

    def value(name: str) -> str:
        return str(LaunchConfiguration(name).perform(context))

    sim_time, namespace = value("use_sim_time"), value("namespace").strip("/")
    given = {name: value(name) for name in PARAMETERS if value(name) != UNSET}
    words = [word for name, text in {**given, "publish_clock": sim_time}.items() for word in ("-p", f"{name}:={text}")]
    names = ["-r", f"__ns:=/{namespace}"] if namespace else []
    file = PathJoinSubstitution([FindPackageShare("omnistream_bringup"), "launch", "perception.launch.py"])
    arguments = {name: value(name) for name in PERCEPTION if value(name) != UNSET}
    arguments |= {
        "image_topic": f"{value('camera')}/image_raw",
        "namespace": namespace,
        "use_sim_time": sim_time,
    }
    return [
        ExecuteProcess(
            name="simulator",
            cmd=[sys.executable, "-m", "omnistream_sim.tabletop.ros.node", "--ros-args", *words, *names],
            output="screen",
        ),
        IncludeLaunchDescription(PythonLaunchDescriptionSource(file), launch_arguments=arguments.items()),
    ]
