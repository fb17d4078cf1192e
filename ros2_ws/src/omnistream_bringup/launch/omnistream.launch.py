# SPDX-License-Identifier: Apache-2.0
"""Starts perception and policy, which share one stream, with one parameter file.

    ros2 launch omnistream_bringup omnistream.launch.py params_file:=robot.yaml

The policy starts disabled and says in its log what it will publish. See config/policy.yaml for a file to begin with.
"""

from __future__ import annotations

from launch import LaunchDescription
from launch.actions import DeclareLaunchArgument
from launch.substitutions import LaunchConfiguration, PathJoinSubstitution
from launch_ros.actions import Node
from launch_ros.substitutions import FindPackageShare


def generate_launch_description() -> LaunchDescription:
    """Called by launch."""
    file = PathJoinSubstitution([FindPackageShare("omnistream_bringup"), "config", "policy.yaml"])
    return LaunchDescription(
        [
            DeclareLaunchArgument("params_file", default_value=file, description="parameters of both nodes"),
            DeclareLaunchArgument("namespace", default_value="", description="of the nodes and their topics"),
            DeclareLaunchArgument("use_sim_time", default_value="false", description="time from /clock"),
            DeclareLaunchArgument("log_level", default_value="info", description="debug, info, warn, error"),
            Node(
                package="omnistream_perception",
                executable="perception_node",
                name="perception",
                namespace=LaunchConfiguration("namespace"),
                output="screen",
                parameters=[LaunchConfiguration("params_file"), {"use_sim_time": LaunchConfiguration("use_sim_time")}],
                arguments=["--ros-args", "--log-level", LaunchConfiguration("log_level")],
            ),
            Node(
                package="omnistream_policy",
                executable="policy_node",
                name="policy",
                namespace=LaunchConfiguration("namespace"),
                output="screen",
                parameters=[LaunchConfiguration("params_file"), {"use_sim_time": LaunchConfiguration("use_sim_time")}],
                arguments=["--ros-args", "--log-level", LaunchConfiguration("log_level")],
            ),
        ]
    )
