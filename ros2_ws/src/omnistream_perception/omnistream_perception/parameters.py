# SPDX-License-Identifier: Apache-2.0
"""The perception node's parameters: the one table that declaration, validation, launch checks and docs come from."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from omnistream.engines.select import ENGINES, FROM_GRAPHS, NUMBER_FORMATS
from omnistream.errors import OmniStreamError
from omnistream.geometry import rigid
from omnistream.stream.policy import parse_policy
from omnistream_ros.parameters import Effect, Parameters, ParameterSpec
from omnistream_ros.qos import QOS_NAMES, qos_problem
from omnistream_ros.run_log import RUN_LOG

CONFIGURE, START = Effect.CONFIGURE, Effect.START


def _policy_problem(text: str) -> str | None:
    try:
        parse_policy(text).slots  # noqa: B018  a policy without a bound is refused here
    except OmniStreamError as error:
        return str(error)
    return None


def _engine_problem(text: str) -> str | None:
    name, _, folder = text.partition(":")
    if name in ENGINES and (not folder or name in FROM_GRAPHS):
        return None
    return f"is {text!r}; expected one of {', '.join([*ENGINES, *(f'{each}:DIR' for each in FROM_GRAPHS)])}"


def _camera_names_problem(names: list[str]) -> str | None:
    for name in names:
        if not re.fullmatch(r"[a-zA-Z][a-zA-Z0-9_]*", name):
            return f"camera name {name!r} cannot be part of a topic name; expected letters, digits and _"
    return "camera names must differ" if len(set(names)) != len(names) else None


def _pose_problem(values: list[float]) -> str | None:
    if len(values) not in (0, 7):
        return f"has {len(values)} numbers; expected none, or 7: x y z qx qy qz qw"
    if values and not 0.99 < float(np.linalg.norm(values[3:])) < 1.01:
        return f"has a quaternion of length {np.linalg.norm(values[3:]):.4g}; expected 1"
    return None


def _size_problem(values: list[int]) -> str | None:
    return None if len(values) == 2 else f"has {len(values)} numbers; expected 2: width, height"


MODEL = (
    ParameterSpec(
        "weights",
        "default",
        "Checkpoint: a directory or a .safetensors file, or 'default' for the weights that come with the package.",
        effect=CONFIGURE,
    ),
    ParameterSpec(
        "engine",
        "auto",
        f"What runs the model: {', '.join(ENGINES)}, or onnxruntime:DIR (tensorrt:DIR) for graphs elsewhere than "
        "beside the weights.",
        check=_engine_problem,
        effect=CONFIGURE,
    ),
    ParameterSpec("device", "auto", "auto, cpu, cuda or cuda:N.", effect=CONFIGURE),
    ParameterSpec("dtype", "auto", "Number format of backbone and cache.", choices=NUMBER_FORMATS, effect=CONFIGURE),
    ParameterSpec(
        "policy",
        "sink_window:1,15",
        "What stays in memory: full:N, window:W or sink_window:S,W frames. ~/set_window changes it at run time.",
        check=_policy_problem,
        effect=CONFIGURE,
    ),
    ParameterSpec(
        "image_size",
        0,
        "Pixel budget as the side of a square; images are resized to about that many pixels in their own aspect ratio. "
        "0: the checkpoint's.",
        unit="px",
        minimum=0,
        maximum=4096,
        effect=CONFIGURE,
    ),
    ParameterSpec(
        "enlarge",
        True,
        "Whether smaller images are enlarged to image_size. A policy says what it was trained with (vision.enlarge).",
        effect=CONFIGURE,
    ),
    ParameterSpec(
        "expected_image_size",
        [640, 480],
        "Width and height for which memory is checked and allocated, and the model warmed up, at configure. Images of "
        "another size work too; their first one then takes longer.",
        unit="px",
        minimum=1,
        check=_size_problem,
        effect=CONFIGURE,
    ),
    ParameterSpec(
        "memory_limit",
        0,
        "Refuse to configure when model and caches need more. 0: what the machine (or its container) has free.",
        unit="MiB",
        minimum=0,
        maximum=1 << 24,
        effect=CONFIGURE,
    ),
    ParameterSpec(
        "num_threads",
        0,
        "CPU threads of the model. 0: the library's choice.",
        minimum=0,
        maximum=1024,
        effect=CONFIGURE,
    ),
)

TIME = (
    ParameterSpec(
        "time_base",
        "index",
        "index: time is the number of frames; stamps: time stamps times nominal_rate, so that lost frames are felt.",
        choices=("index", "stamps"),
        effect=CONFIGURE,
    ),
    ParameterSpec(
        "nominal_rate",
        30.0,
        "Rate of the camera: the unit of time under time_base stamps, and what diagnostics expect.",
        unit="Hz",
        minimum=0.01,
        maximum=1000.0,
        effect=CONFIGURE,
    ),
    ParameterSpec(
        "max_gap",
        1.0,
        "No image for longer resets the stream under time_base index; under stamps it is kept. Images that came and "
        "were not used (max_rate, a slow model) are no pause.",
        unit="s",
        minimum=0.001,
        maximum=1e6,
        effect=CONFIGURE,
    ),
    ParameterSpec(
        "max_rate",
        0.0,
        "Images per second to process at most, by their stamps; others are dropped. 0: all.",
        unit="Hz",
        minimum=0.0,
        maximum=1000.0,
    ),
)

OUTPUT = (
    ParameterSpec(
        "depth_resolution",
        "network",
        "Resolution of ~/depth, ~/confidence and ~/camera_info: the network's, or the image's (interpolated).",
        choices=("network", "full"),
    ),
    ParameterSpec(
        "min_confidence",
        0.0,
        "Depth of lower confidence becomes NaN. Confidence starts at 1.",
        minimum=0.0,
        maximum=1e6,
    ),
    ParameterSpec(
        "allow_relative",
        False,
        "Publish ~/points and ~/odometry also when the checkpoint's scale is not metric.",
        effect=CONFIGURE,
    ),
    ParameterSpec(
        "allow_predicted_intrinsics",
        False,
        "Use the K that the model predicts for ~/points and ~/camera_info while there is no CameraInfo.",
    ),
    ParameterSpec(
        "feature_taps",
        (),
        "Blocks whose patches ~/features carries beside the last, by the order of the checkpoint's taps (0: the "
        "shallowest), for a policy that reads them (vision.taps).",
        item_type=int,
        effect=CONFIGURE,
    ),
    ParameterSpec("features_dtype", "float16", "Number format of ~/features.", choices=("float16", "float32")),
    ParameterSpec(
        "odom_frame",
        "odom",
        "Frame of ~/odometry. With several cameras, each of which starts somewhere else: <camera>_<odom_frame>.",
        effect=CONFIGURE,
    ),
    ParameterSpec(
        "publish_tf",
        False,
        "Also publish odometry as a transform. Switch it on only where nobody else publishes it. Refused at configure "
        "where cameras share a base_frame, which would get several parents; switched on later, theirs stay out.",
    ),
    ParameterSpec(
        "position_sigma",
        0.05,
        "Standard deviation of ~/odometry's position, per axis.",
        unit="m",
        minimum=1e-6,
        maximum=1e6,
    ),
    ParameterSpec(
        "rotation_sigma",
        0.02,
        "Standard deviation of ~/odometry's rotation, per axis.",
        unit="rad",
        minimum=1e-6,
        maximum=10.0,
    ),
    ParameterSpec(
        "rectify",
        "off",
        "What to do with images whose CameraInfo has distortion: off: use them as they are and warn once; "
        "auto: undistort them (not on topics whose name says that they are rectified).",
        choices=("off", "auto"),
        effect=CONFIGURE,
    ),
)

HEALTH = (
    ParameterSpec(
        "stale_after",
        1.0,
        "Without an image for so long the status is STALE and diagnostics say ERROR.",
        unit="s",
        minimum=0.05,
        maximum=3600.0,
    ),
    ParameterSpec(
        "frozen_after",
        10,
        "So many images in a row with the same bytes make diagnostics WARN.",
        minimum=2,
        maximum=100000,
    ),
    ParameterSpec(
        "latency_budget",
        250.0,
        "From an image's arrival to its last result: diagnostics WARN when the 99th percentile is above, ERROR when "
        "the median is.",
        unit="ms",
        minimum=0.1,
        maximum=1e6,
    ),
    ParameterSpec(
        "max_failures",
        3,
        "So many images in a row on which processing failed end the active state.",
        minimum=1,
        maximum=1000,
    ),
    ParameterSpec(
        "status_rate",
        2.0,
        "Rate of ~/status; changes are published at once besides.",
        unit="Hz",
        minimum=0.1,
        maximum=100.0,
        effect=START,
    ),
)


def _qos(topic: str, default: str) -> ParameterSpec:
    return ParameterSpec(
        f"qos.{topic}",
        default,
        f"Quality of service of {topic}: {', '.join(QOS_NAMES)}; with :depth for another queue depth.",
        check=qos_problem,
        effect=CONFIGURE,
    )


QOS = (
    _qos("image", "sensor"),
    _qos("camera_info", "sensor"),
    _qos("depth", "reliable:5"),
    _qos("points", "reliable:5"),
    _qos("odometry", "reliable"),
    _qos("features", "reliable:5"),
)

CAMERA = (
    ParameterSpec("image_topic", "image_raw", "Images. With several cameras: <camera>/image_raw.", effect=CONFIGURE),
    ParameterSpec(
        "camera_info_topic",
        "",
        "Calibration. Empty: camera_info beside the image topic.",
        effect=CONFIGURE,
    ),
    ParameterSpec(
        "image_transport",
        "raw",
        "raw: sensor_msgs/Image; compressed: sensor_msgs/CompressedImage (jpeg, png) on <image_topic>/compressed.",
        choices=("raw", "compressed"),
        effect=CONFIGURE,
    ),
    ParameterSpec(
        "base_frame",
        "",
        "Frame whose motion ~/odometry tells, such as base_link. Empty: the camera's optical frame.",
        effect=CONFIGURE,
    ),
    ParameterSpec(
        "base_to_camera",
        (),
        "Pose of the camera's optical frame in base_frame: x y z qx qy qz qw. Empty: from /tf_static, by the images' "
        "frame_id; until that tells it there is no odometry.",
        unit="m",
        item_type=float,
        check=_pose_problem,
        effect=CONFIGURE,
    ),
)
"""Of one camera. With several, each is called ``cameras.<name>.<parameter>``."""

CAMERAS = ParameterSpec(
    "cameras",
    (),
    "Names of several cameras, whose parameters are then cameras.<name>.image_topic and so on, and their topics "
    "~/<name>/depth and so on. Empty: one camera, without a name.",
    check=_camera_names_problem,
    effect=START,
)

NODE = (*MODEL, CAMERAS, *TIME, *OUTPUT, *HEALTH, RUN_LOG, *QOS)
"""Of the node."""


def camera_specs(name: str) -> tuple[ParameterSpec, ...]:
    """The parameters of the camera called `name` ('' for the only one)."""
    if not name:
        return CAMERA
    return tuple(
        spec.renamed(
            f"cameras.{name}.{spec.name}", default=f"{name}/image_raw" if spec.name == "image_topic" else spec.default
        )
        for spec in CAMERA
    )


def shared_bases(cameras: Iterable[CameraSettings]) -> set[str]:
    """The base frames that more than one camera tells the motion of."""
    counts = Counter(camera.base_frame for camera in cameras if camera.base_frame)
    return {base for base, count in counts.items() if count > 1}


@dataclass(frozen=True)
class CameraSettings:
    """What one camera was configured with."""

    name: str
    image_topic: str
    camera_info_topic: str
    compressed: bool
    base_frame: str
    odom_frame: str
    T_base_camera: NDArray[np.float64] | None

    @property
    def prefix(self) -> str:
        """Of its topics."""
        return f"~/{self.name}/" if self.name else "~/"

    @staticmethod
    def read(parameters: Parameters, name: str) -> CameraSettings:
        """From the declared parameters."""

        def value(key: str) -> Any:
            return parameters[f"cameras.{name}.{key}" if name else key]

        compressed = value("image_transport") == "compressed"
        topic = value("image_topic").rstrip("/")
        pose = value("base_to_camera")
        return CameraSettings(
            name=name,
            image_topic=f"{topic}/compressed" if compressed else topic,
            camera_info_topic=value("camera_info_topic") or "/".join([*topic.split("/")[:-1], "camera_info"]),
            compressed=compressed,
            base_frame=value("base_frame"),
            odom_frame=f"{name}_{parameters['odom_frame']}" if name else parameters["odom_frame"],
            T_base_camera=rigid.from_translation_quaternion(pose) if pose else None,
        )
