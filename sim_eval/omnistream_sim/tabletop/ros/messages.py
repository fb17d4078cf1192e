# SPDX-License-Identifier: Apache-2.0
"""A moment of the tabletop as ROS 2 messages."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from builtin_interfaces.msg import Time
from geometry_msgs.msg import PoseStamped, Transform, TransformStamped, Vector3
from nav_msgs.msg import Odometry
from numpy.typing import NDArray
from sensor_msgs.msg import CameraInfo, Image, JointState
from std_msgs.msg import Header

from omnistream.geometry import rigid
from omnistream_ros.camera_messages import WORLD_FRAME, pose_message
from omnistream_ros.images import camera_info_message, image_message

from .. import arm as panda
from ..demos import STATE
from ..kinematics import rotation_vector
from ..live import Moment, Picture

BASE, HAND, TOOL = "panda_link0", "panda_hand", "panda_hand_tcp"
JOINTS = [f"panda_joint{i}" for i in range(1, 8)] + ["panda_finger_joint1", "panda_finger_joint2"]


@dataclass(frozen=True)
class Frames:
    """Names of frames."""

    prefix: str = ""

    def __call__(self, name: str) -> str:
        return self.prefix + name

    @property
    def world(self) -> str:
        return self(WORLD_FRAME)

    def camera(self, name: str) -> str:
        """The optical frame of a camera."""
        return self(f"{name}_optical_frame")


@dataclass(frozen=True)
class CameraMessages:
    """Of one camera at one moment."""

    image: Image
    info: CameraInfo
    depth: Image
    pose: PoseStamped


def camera_messages(name: str, picture: Picture, stamp: Time, frames: Frames) -> CameraMessages:
    """The picture, its calibration and its truth."""

    def header(frame: str) -> Header:  # one each: a shared header would alias in intra-process use
        return Header(stamp=stamp, frame_id=frame)

    height, width = picture.rgb.shape[:2]
    optical = frames.camera(name)
    return CameraMessages(
        image=image_message(picture.rgb, header(optical)),
        info=camera_info_message(picture.K, width, height, header(optical)),
        depth=image_message(picture.depth, header(optical)),
        pose=PoseStamped(header=header(frames.world), pose=pose_message(picture.T_world_camera)),
    )


def odometry_message(
    name: str, pose: NDArray, before: NDArray | None, seconds: float, stamp: Time, frames: Frames
) -> Odometry:
    """True T_world_camera [4, 4], and the velocity since the pose `seconds` ago in the camera's frame.

    Without a pose before, the twist is zero. Covariances are those of the truth: 1e-12 on the diagonals.
    """
    message = Odometry(header=Header(stamp=stamp, frame_id=frames.world), child_frame_id=frames.camera(name))
    message.pose.pose = pose_message(pose)
    certain = (1e-12 * np.eye(6)).ravel()
    message.pose.covariance, message.twist.covariance = certain, certain
    if before is not None and seconds > 0:
        moved = rigid.inverse(pose) @ before
        linear, angular = -moved[:3, 3] / seconds, -rotation_vector(moved[:3, :3]) / seconds
        message.twist.twist.linear = Vector3(x=linear[0], y=linear[1], z=linear[2])
        message.twist.twist.angular = Vector3(x=angular[0], y=angular[1], z=angular[2])
    return message


def joint_message(moment: Moment, stamp: Time) -> JointState | None:
    """Angles of the arm and places of the fingers; None where there is no arm."""
    if moment.joints is None:
        return None
    fingers = [moment.opening / 2] * 2
    return JointState(header=Header(stamp=stamp), name=JOINTS, position=[*moment.joints.tolist(), *fingers])


def state_message(moment: Moment, stamp: Time) -> JointState | None:
    """What a policy may feel, under the names of the demonstrations' contract; None where there is no arm."""
    if moment.feeling is None:
        return None
    names = [dimension.name for dimension in STATE]
    return JointState(header=Header(stamp=stamp), name=names, position=moment.feeling.tolist())


def static_transforms(moment: Moment, stamp: Time, frames: Frames) -> list[TransformStamped]:
    """What stays during an episode."""
    still = [_transform(np.eye(4), frames.world, frames(BASE), stamp)]
    if moment.T_hand_tool is not None:
        still.append(_transform(moment.T_hand_tool, frames(HAND), frames(TOOL), stamp))
    if "wrist" in moment.pictures:
        still.append(_transform(panda.T_HAND_CAMERA, frames(HAND), frames.camera("wrist"), stamp))
    if "static" in moment.pictures:
        pose = moment.pictures["static"].T_world_camera
        still.append(_transform(pose, frames.world, frames.camera("static"), stamp))
    return still


def moving_transforms(moment: Moment, stamp: Time, frames: Frames) -> list[TransformStamped]:
    """What moves: hand, free camera, blocks."""
    moving = []
    if moment.T_world_hand is not None:  # the base is the world's origin
        moving.append(_transform(moment.T_world_hand, frames(BASE), frames(HAND), stamp))
    if "flying" in moment.pictures:
        pose = moment.pictures["flying"].T_world_camera
        moving.append(_transform(pose, frames.world, frames.camera("flying"), stamp))
    for name, block in moment.blocks.items():
        pose = rigid.from_translation_quaternion([*block.position, *block.quaternion])
        moving.append(_transform(pose, frames.world, frames(f"block_{name}"), stamp))
    return moving


def _transform(T_parent_child: NDArray, parent: str, child: str, stamp: Time) -> TransformStamped:
    pose = pose_message(T_parent_child)
    p = pose.position
    transform = Transform(translation=Vector3(x=p.x, y=p.y, z=p.z), rotation=pose.orientation)
    return TransformStamped(header=Header(stamp=stamp, frame_id=parent), child_frame_id=child, transform=transform)
