# SPDX-License-Identifier: Apache-2.0
"""A bag of two cameras and an arm, a policy that reads them, and a run that is logged as a live one is."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from omnistream.contract import Action, Camera, Contract, Dimension, Gripper
from omnistream.io.run_log import RunLog
from omnistream.policy.checkpoint import save_policy
from omnistream.policy.control import ControlSettings
from omnistream.policy.drive import Drive
from omnistream.policy.intake import Intake
from omnistream.policy.mind import Mind
from omnistream.policy.opening import identity, open_policy, open_session
from omnistream.policy.outbox import Outbox
from omnistream.policy.settings import control_settings, output_names
from omnistream.replay.ideal import Ideal, sources
from omnistream.replay.parameters import complete
from omnistream.weights import random_model, save_model
from tests.omnistream.io.conftest import BagMaker
from tests.omnistream.policy.conftest import CONFIG, MODEL, make_policy, one_thread, statistics  # noqa: F401

BEGIN = 1000
"""s; small, so that stamps are whole milliseconds."""
SECONDS = 1.0
CONTRACT = Contract(
    rate=10.0,
    cameras=(Camera("static", 64, 64), Camera("wrist", 48, 64)),
    state=tuple(Dimension(name, "m") for name in ("px", "py", "pz")),
    action=Action(
        (*(Dimension(name, "m") for name in "xyz"), Dimension("gripper", "1")),
        mode="delta",
        frame="base",
        grippers=(Gripper(3, 1.0, -1.0),),
    ),
    state_statistics=statistics(3),
    action_statistics=statistics(4),
)
NODE = "/arm/policy"


@dataclass(frozen=True)
class Robot:
    """What a run needs on disk."""

    bag: Path
    parameters: dict[str, Any]
    folder: Path

    @property
    def file(self) -> Path:
        """The parameters as a ROS 2 parameter file."""
        path = self.folder / "robot.yaml"
        lines = [f"    {name}: {value!r}" for name, value in self.parameters.items()]
        path.write_text("\n".join(["arm:", "  policy:", "   ros__parameters:", *lines]))
        return path


def write_bag(maker: BagMaker, instruction: str | None = "open the drawer") -> Path:
    """Pictures at 30 and 10 Hz, the arm at 50 Hz, what to do after 0.2 s, in the order in which they came."""
    draw = np.random.default_rng(0)
    events: list[tuple[float, str]] = []
    for topic, rate in (("/arm/static/image_raw", 30), ("/arm/wrist/image_raw", 10), ("/arm/joint_states", 50)):
        events += [(i / rate, topic) for i in range(round(SECONDS * rate))]
    if instruction is not None:
        events.append((0.205, f"{NODE}/instruction"))
    for second, topic in sorted(events):
        stamp, log_time = BEGIN + second, round((BEGIN + second + 0.004) * 1e9)
        if topic.endswith("image_raw"):
            size = (64, 64) if "static" in topic else (48, 64)
            maker.image(topic, draw.integers(0, 256, (*size, 3), np.uint8), stamp, log_time)
        elif topic.endswith("joint_states"):
            values = 0.01 * np.arange(3) + 0.001 * second
            kind = maker.type("sensor_msgs/msg/JointState")
            message = kind(
                header=maker.header(stamp),
                name=["pz", "px", "py"],
                position=values,
                velocity=np.zeros(0),
                effort=np.zeros(0),
            )
            maker.write(topic, message, log_time)
        else:
            maker.write(topic, maker.type("std_msgs/msg/String")(data=instruction), log_time)
    return maker.close()


@pytest.fixture(scope="session")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with weights and policy."""
    folder = tmp_path_factory.mktemp("models")
    backbone = random_model(MODEL, 0)
    save_model(backbone, folder / "weights")
    save_policy(make_policy(CONTRACT, CONFIG, backbone), folder / "policy")
    return folder


@pytest.fixture
def storage() -> str:
    """Of the bag; parametrize it for the other."""
    return "mcap"


@pytest.fixture
def robot(tmp_path: Path, models: Path, storage: str) -> Robot:
    given = {
        "policy": str(models / "policy"),
        "weights": str(models / "weights"),
        "engine": "torch",
        "ramp": 0.3,
        "max_skew": 0.1,
        "frozen_after": 0,
        "velocity_limit": [0.1],
        "acceleration_limit": [0.5],
        "outputs": ["twist", "action", "gripper"],
    }
    return Robot(write_bag(BagMaker(tmp_path / "bag", storage)), given, tmp_path)


def parts(robot: Robot, log: RunLog | None = None) -> tuple[dict[str, Any], ControlSettings, Intake, Mind, Drive]:
    """As a node's configure makes them."""
    parameters = complete(robot.parameters)
    loaded = open_policy(parameters)
    settings = control_settings(parameters, loaded.contract)
    outbox = Outbox(settings, output_names(parameters, settings), parameters["trajectory_velocities"])
    intake = Intake(parameters, loaded.contract, loaded.shape.state > 0)
    return parameters, settings, intake, Mind(open_session(loaded, parameters), log), Drive(settings, outbox, log)


@pytest.fixture
def logged(robot: Robot) -> tuple[Path, str]:
    """A run log, and the hash of what left: the bag through the node's parts, which write it as they do live."""
    parameters, _, _, mind, _ = parts(robot)
    topics = {"static": "/arm/static/image_raw", "wrist": "/arm/wrist/image_raw", "state": "/arm/joint_states"}
    header = {"node": NODE, "parameters": parameters, "topics": topics, "outputs": {}} | identity(mind.session)
    log = RunLog(robot.folder / "logs", "policy", header)
    _, _, intake, mind, drive = parts(robot, log)
    where = sources(parameters, intake, NODE)
    Ideal(robot.bag, where, intake, mind, drive, execute=1, latency=0.07, instruction=None).run()
    log.close(messages=drive.left.messages, hash=drive.left.hex)
    return log.path, drive.left.hex
