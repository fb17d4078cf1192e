# SPDX-License-Identifier: Apache-2.0
"""Starts the perception node.

    ros2 launch omnistream_bringup perception.launch.py image_topic:=/camera/image_raw weights:=/path/to/checkpoint

Arguments that are not given leave the parameter file's value as it is.
"""

from __future__ import annotations

from typing import Any

from launch import LaunchContext, LaunchDescription
from launch.actions import DeclareLaunchArgument, OpaqueFunction
from launch.substitutions import LaunchConfiguration, PathJoinSubstitution
from launch_ros.actions import Node
from launch_ros.parameter_descriptions import ParameterValue
from launch_ros.substitutions import FindPackageShare

# Launch argument (it is the parameter's name as well) -> type and description.
PARAMETERS: dict[str, tuple[type, str]] = {
    "image_topic": (str, "images, e.g. /camera/image_raw"),
    "camera_info_topic": (str, "calibration; default: camera_info beside the image topic"),
    "weights": (str, "checkpoint directory, .safetensors file, or default"),
    "policy": (str, "frames in memory: full:N, window:W or sink_window:S,W"),
    "engine": (str, "what runs the model: auto, torch, ..."),
    "use_sim_time": (bool, "time from /clock"),
    "autostart": (bool, "configure and activate by itself; false where a lifecycle manager does"),
}
UNSET = ""


def generate_launch_description() -> LaunchDescription:
    """Called by launch."""
    file = PathJoinSubstitution([FindPackageShare("omnistream_bringup"), "config", "perception.yaml"])
    return LaunchDescription(
        [
            *(
                DeclareLaunchArgument(name, default_value=UNSET, description=description)
                for name, (_, description) in PARAMETERS.items()
            ),
            DeclareLaunchArgument("namespace", default_value=UNSET, description="of the node and its topics"),
            DeclareLaunchArgument("params_file", default_value=file, description="parameter file"),
            DeclareLaunchArgument("log_level", default_value="info", description="debug, info, warn, error"),
            OpaqueFunction(function=_node),
        ]
    )


def _node(context: LaunchContext) -> list[Any]:
    """The node, with the arguments that were given; only known once launch has read the command line."""
    given = {
        name: ParameterValue(LaunchConfiguration(name), value_type=kind)
        for name, (kind, _) in PARAMETERS.items()
        if LaunchConfiguration(name).perform(context) != UNSET
    }
    return [
        Node(
            package="omnistream_perception",
            executable="perception_node",
            name="perception",
            namespace=LaunchConfiguration("namespace"),
            output="screen",
            parameters=[LaunchConfiguration("params_file"), given],
            arguments=["--ros-args", "--log-level", LaunchConfiguration("log_level")],
        )
    ]
