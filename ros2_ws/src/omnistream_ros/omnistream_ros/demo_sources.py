# SPDX-License-Identifier: Apache-2.0
"""What the demo streams: the simulator where its physics is installed, else a recording. Each is a node with truth."""

from __future__ import annotations

import importlib.util
from dataclasses import dataclass
from pathlib import Path

import omnistream
from omnistream.errors import InputError
from omnistream.io import open_source
from omnistream_ros.nodes import NODES, is_installed
from omnistream_ros.processes import ros_parameters

SIMULATOR = "simulator"
"""The word that stands for it in place of a recording."""
SHIPPED_RECORDING = Path(omnistream.__file__).parent / "assets" / "recording_room"
SUBSCRIBERS = 2
"""The perception node and the recorder."""

FRAMES = 96
RATE = 30
"""Pictures per simulated second: as in the sets that the default weights are evaluated on."""
SEED = 161803 << 32
"""Its clip was never trained on: a test computes it."""
SIZE = (128, 128)
START_HZ = 2.0
"""On the wall, while it is measured what this machine keeps up with."""


@dataclass(frozen=True)
class Source:
    """A node that publishes images, with reference depth and poses beside them, and ends by itself."""

    name: str
    """Of its process, and of the node."""
    image_topic: str
    description: str
    size: tuple[int, int]
    """(height, width) of its first image."""
    rate: float
    """Hz of its own time."""
    arguments: tuple[str, ...]
    """Of its process."""
    paced: bool = False
    """Whether the demo sets its speed, by its parameter real_time_factor."""

    @property
    def module(self) -> str:
        return NODES[self.name].module


def recording(path: str, topic: str | None = None, rate: float = 0.0) -> Source:
    """Looks at the first image. Raises InputError when there is none, or the recording cannot be read.

    Args:
        path: video, folder or bag.
        topic: of a bag with several.
        rate: Hz; 0: its own.
    """
    source = open_source(path, topic=topic, on_error="skip")
    first = next(iter(source), None)
    if first is None:
        raise InputError(f"{source.description}: none of its images can be read")
    image_topic = "/camera/image_raw"
    return Source(
        name="camera",
        image_topic=image_topic,
        description=source.description,
        size=(first.image.shape[0], first.image.shape[1]),
        rate=rate or source.rate or 30.0,
        arguments=tuple(
            ros_parameters(
                input=path,
                bag_topic=topic or "",
                topic=image_topic,
                rate=float(rate),
                ground_truth=True,
                wait_for_subscribers=SUBSCRIBERS,
            )
        ),
    )


def simulator(seed: int | None = None, scene: str = "shipped", rate: float = 0.0) -> Source:
    """The free camera about the tabletop; `rate` Hz by the clock on the wall, 0: the demo finds out.

    Raises:
        InputError: its physics is not installed.
    """
    if missing := missing_physics():
        raise InputError(f"the simulator needs {missing}, which is not installed: pip install 'omnistream[sim]'")
    seed = SEED if seed is None else seed
    return Source(
        name="simulator",
        image_topic="/flying/image_raw",
        description=f"simulator: free camera about the {scene} tabletop, seed {seed}, {FRAMES} frames",
        size=SIZE,
        rate=float(RATE),
        arguments=tuple(
            ros_parameters(
                cameras=["flying"],
                image_size=[SIZE[1], SIZE[0]],
                rate=RATE,
                real_time_factor=(rate or START_HZ) / RATE,
                scene=scene,
                seed=seed,
                flight=["min_path=1"],
                flight_length=FRAMES / RATE,
                frames=FRAMES,
                wait_for_subscribers=SUBSCRIBERS,
            )
        ),
        paced=not rate,
    )


def missing_physics() -> str:
    """What the simulator lacks here; '' for nothing."""
    packages = {"pybullet": "PyBullet (Python 3.11 only)", "gymnasium": "Gymnasium"}
    lacking = [name for package, name in packages.items() if importlib.util.find_spec(package) is None]
    if not lacking and not is_installed(NODES["simulator"].module):
        lacking = ["omnistream_sim"]
    return " and ".join(lacking)
