# SPDX-License-Identifier: Apache-2.0
"""Small parts of a replay: parameter files, which of a bag's pictures is meant, commands read back from messages."""

from __future__ import annotations

import re
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from omnistream.errors import ConfigError, InputError
from omnistream.io.bag_reader import MORE_TYPES
from omnistream.io.bag_writer import message_types
from omnistream.policy.intake import checksum
from omnistream.replay.commands import recorded_commands
from omnistream.replay.parameters import complete, read_parameter_file
from omnistream.replay.pictures import BagPictures
from omnistream.replay.track import Sent
from tests.omnistream.io.conftest import BagMaker

MESSAGE = Path(__file__).resolve().parents[3] / "ros2_ws" / "src" / "omnistream_msgs" / "msg" / "FeatureMap.msg"


@pytest.mark.parametrize(
    ("section", "applies"),
    [
        ("/**", True),
        ("/**/policy", True),
        ("/arm/policy", True),
        ("arm/policy", True),
        ("/*/policy", True),
        ("/policy", False),
        ("/*", False),
        ("/arm/policy2", False),
    ],
)
def test_sections_of_a_parameter_file(tmp_path: Path, section: str, applies: bool) -> None:
    path = tmp_path / "robot.yaml"
    path.write_text(f"{section}:\n  ros__parameters:\n    ramp: 2\n    qos: {{input: reliable}}\n")
    if applies:
        found = read_parameter_file(path, "/arm/policy")
        assert found == {"ramp": 2, "qos.input": "reliable"} and complete(found)["ramp"] == 2.0
    else:
        with pytest.raises(ConfigError, match=re.escape(section)):
            read_parameter_file(path, "/arm/policy")


def test_parameters_that_are_none(tmp_path: Path) -> None:
    path = tmp_path / "robot.yaml"
    for text in ("", "- 1", "policy: {ramp: 1.0}", "{"):
        path.write_text(text)
        with pytest.raises(InputError, match="parameter file"):
            read_parameter_file(path, "/policy")
    with pytest.raises(ConfigError, match="ramp is 'fast'; expected float"):
        complete({"ramp": "fast"})
    assert complete({"outputs": None}, {"ramp": 3.0})["ramp"] == 3.0


def test_the_feature_map_is_that_of_the_message_package() -> None:
    lines = (line.partition("#")[0].split() for line in MESSAGE.read_text().splitlines())
    theirs = [tuple(words) for words in lines if words]
    ours = [tuple(line.split()) for line in MORE_TYPES["omnistream_msgs/msg/FeatureMap"].splitlines()]
    assert ours == theirs and "omnistream_msgs/msg/FeatureMap" in message_types().fielddefs


def test_pictures_out_of_order_twice_and_with_equal_stamps(tmp_path: Path) -> None:
    maker = BagMaker(tmp_path / "bag", "mcap")
    stamps = [10.1, 10.0, 10.2, 10.2, 10.3]
    for number, stamp in enumerate(stamps):
        maker.image("/a", np.full((4, 4, 3), number, np.uint8), stamp, number)
    path = maker.close()
    crcs = [checksum(SimpleNamespace(data=bytes([number]) * 48)) for number in range(5)]
    ns = [round(stamp * 1e9) for stamp in stamps]
    keys = [("/a", ns[1]), ("/a", ns[0]), ("/a", ns[0]), ("/a", ns[3]), ("/a", 99), ("/a", ns[4])]
    with BagPictures(path, ["/a"], keys) as pictures:
        assert pictures.missing == [("/a", 99)] and pictures.counts == {"/a": 5} and not pictures.lost
        assert pictures.find("/a", ns[1], crcs[1]).data[0] == 1
        assert pictures.find("/a", ns[0], crcs[0]).data[0] == 0
        assert pictures.find("/a", ns[0], crcs[0]).data[0] == 0
        assert pictures.find("/a", ns[3], crcs[3]).data[0] == 3, "the second of that stamp"
        assert pictures.find("/a", 99, 0) is None
        assert pictures.find("/a", ns[4], 0) is None, "other bytes"


def test_a_picture_with_other_bytes_is_not_looked_for_in_the_rest_of_the_bag(tmp_path: Path) -> None:
    """Else all that follows would be in memory at once."""
    maker = BagMaker(tmp_path / "bag", "mcap")
    for number in range(9):
        maker.image("/a", np.full((4, 4, 3), number, np.uint8), 10.0 + number, number)
    keys = [("/a", (10 + number) * 10**9) for number in range(9)]
    with BagPictures(maker.close(), ["/a"], keys) as pictures:
        assert pictures.find(*keys[1], 0) is None
        assert len(pictures._buffer) == 2
        assert pictures.find(*keys[8], checksum(SimpleNamespace(data=bytes([8]) * 48))).data[0] == 8


def test_recorded_commands_are_compared_bit_by_bit(tmp_path: Path) -> None:
    maker = BagMaker(tmp_path / "bag", "sqlite3")
    number = maker.type("std_msgs/msg/Float64")
    for value in (1.0, -1.0, 0.5):
        maker.write("/gripper", number(data=value), 0)
    vector, twist = maker.type("geometry_msgs/msg/Vector3"), maker.type("geometry_msgs/msg/Twist")
    values = np.array([0.1, 0, 0, 0, 0, 1 / 3])
    for stamp, x in ((1.0, 0.1), (2.0, np.nextafter(0.1, 1))):
        message = twist(linear=vector(x=x, y=0.0, z=0.0), angular=vector(x=0.0, y=0.0, z=1 / 3))
        maker.write("/twist", maker.type("geometry_msgs/msg/TwistStamped")(maker.header(stamp), message), 0)
    path = maker.close()
    sent = [
        Sent(int(s * 1e9), 0, "move", {"twist": values, "gripper/g": np.array([g])}) for s, g in ((1, 1.0), (2, -1.0))
    ]
    found = recorded_commands(path, {"twist": "/twist", "gripper/g": "/gripper", "action": "/none"}, sent)
    assert found == {"twist": {"in_bag": 2, "equal": 1}, "gripper/g": {"in_bag": 3, "equal": 2}}


def test_a_trajectory_of_uneven_points_is_nobodys_but_is_counted(tmp_path: Path) -> None:
    """A planner may publish on the same topic: two positions with velocities, then a point of positions alone."""
    maker = BagMaker(tmp_path / "bag", "mcap")
    duration, point = (
        maker.type("builtin_interfaces/msg/Duration"),
        maker.type("trajectory_msgs/msg/JointTrajectoryPoint"),
    )
    trajectory = maker.type("trajectory_msgs/msg/JointTrajectory")
    none = np.zeros(0)

    def row(positions: list[float], velocities: list[float]) -> Any:
        values = {"positions": np.array(positions), "velocities": np.array(velocities)}
        return point(**values, accelerations=none, effort=none, time_from_start=duration(sec=0, nanosec=10**8))

    even = [row([1.0, 2.0], [0.5, 0.5])]
    for points in ([*even, row([1.0, 2.0], [])], even):
        maker.write("/joints", trajectory(maker.header(1.0), ["a", "b"], points), 0)
    sent = [Sent(10**9, 0, "move", {"joint_trajectory": np.array([[1.0, 2.0, 0.5, 0.5, 0.1]])})]
    found = recorded_commands(maker.close(), {"joint_trajectory": "/joints"}, sent)
    assert found == {"joint_trajectory": {"in_bag": 2, "equal": 1}}
