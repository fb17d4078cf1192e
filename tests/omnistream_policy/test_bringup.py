# SPDX-License-Identifier: Apache-2.0
"""The parameter file of both nodes names only what they declare; `omnistream-up policy` knows the node."""

from __future__ import annotations

import gc
from pathlib import Path

import pytest
import yaml
from lifecycle_msgs.msg import Transition
from lifecycle_msgs.srv import ChangeState
from rcl_interfaces.msg import Log
from rclpy.action import get_action_server_names_and_types_by_node

from omnistream.policy.settings import DEFAULTS
from omnistream.replay.parameters import complete, read_parameter_file
from omnistream.weights import model_hash, random_model, save_model
from omnistream_msgs.msg import PolicyStatus
from omnistream_perception.node import PerceptionNode
from omnistream_perception.parameters import NODE as PERCEPTION
from omnistream_perception.parameters import camera_specs
from omnistream_policy.node import PolicyNode
from omnistream_policy.parameters import ACTIONS, LISTENS, NODE, SERVICES
from omnistream_ros.lifecycle import LIFECYCLE_PARAMETERS, State
from omnistream_ros.nodes import NODES
from omnistream_ros.testing import Graph
from tests.omnistream_policy.conftest import MODEL, SEEING, SIZE, Robot, contract, make_policy
from tests.omnistream_policy.test_faults import Start

FILE = Path(__file__).resolve().parents[2] / "ros2_ws" / "src" / "omnistream_bringup" / "config" / "policy.yaml"
SPECS = {
    "/**/policy": {spec.name: spec for spec in (*LIFECYCLE_PARAMETERS, *NODE)},
    "/**/perception": {spec.name: spec for spec in (*LIFECYCLE_PARAMETERS, *PERCEPTION, *camera_specs(""))},
}


@pytest.mark.parametrize("node", SPECS)
def test_the_parameter_file_fits(node: str) -> None:
    data = yaml.safe_load(FILE.read_text())
    assert set(data) == set(SPECS)
    for name, value in data[node]["ros__parameters"].items():
        spec = SPECS[node][name]
        assert type(value) is (list if isinstance(spec.default, (list, tuple)) else type(spec.default)), name
        assert spec.problem(value) is None


def test_the_file_begins_in_a_dry_run() -> None:
    assert yaml.safe_load(FILE.read_text())["/**/policy"]["ros__parameters"]["dry_run"] is True


def test_replay_has_the_nodes_defaults_and_reads_its_file() -> None:
    specs = SPECS["/**/policy"]
    for name, default in DEFAULTS.items():
        theirs = specs[name].default
        assert default == (list(theirs) if isinstance(theirs, (list, tuple)) else theirs), name
    for node in ("/policy", "/robot/left/policy"):
        found = read_parameter_file(FILE, node)
        assert found == yaml.safe_load(FILE.read_text())["/**/policy"]["ros__parameters"]
        assert complete(found)["dry_run"] is True


def test_one_file_brings_up_both_nodes_and_says_first_what_will_leave(ros_domain: int, tmp_path: Path) -> None:
    """The shipped file with this robot's names: perception sees, the policy acts on its features, in a dry run."""
    backbone = random_model(MODEL, 0)
    save_model(backbone, tmp_path / "weights")
    made = make_policy(tmp_path / "policy", contract(), SEEING, (model_hash(backbone.backbone), backbone.config))
    data = yaml.safe_load(FILE.read_text())
    data["/**/policy"]["ros__parameters"] |= {"policy": made, "action_scale": [0.02, 0.02, 0.02, 0.05, 0.05, 0.05]}
    data["/**/policy"]["ros__parameters"] |= {
        "max_observation_age": 1.5,
        "inference_deadline": 1.0,
        "max_tick_gap": 1.5,
    }
    data["/**/perception"]["ros__parameters"] |= {
        "weights": str(tmp_path / "weights"), "image_topic": "/front/image_raw", "image_size": SIZE,
        "policy": SEEING.vision.stream, "engine": "torch",
    }  # fmt: skip
    (tmp_path / "robot.yaml").write_text(yaml.safe_dump(data))
    with Graph(ros_domain, ["--ros-args", "--params-file", str(tmp_path / "robot.yaml")]) as graph:
        said: list[Log] = graph.collect(Log, "/rosout", "reliable:1000", connect=False)
        nodes = [
            graph.add(PerceptionNode("perception", context=graph.context)),
            graph.add(PolicyNode("policy", context=graph.context)),
        ]
        for node in nodes:
            graph.wait(lambda: node.state is State.ACTIVE or node.fault, "both nodes", 60)  # noqa: B023
            assert node.state is State.ACTIVE, node.fault
        lines = [log.msg for log in said if log.name == "policy"]
        topics = "/policy/dry_run/twist (TwistStamped), /policy/dry_run/gripper (Float64)"
        assert f"commands (delta, frame base_link, 20 Hz): {topics}" in lines
        assert any("x: at most 0.1" in line for line in lines) and any("open 1, closed -1" in line for line in lines)
        one = Robot(graph, prefix="/policy/dry_run/")
        try:
            one.showing.set()
            graph.wait(lambda: one.statuses and one.statuses[-1].observations > 3, "features", 30)
            assert one.statuses[-1].state == PolicyStatus.STATE_DISABLED and not one.twists
            one.run()
            assert one.statuses[-1].dry_run and not graph.node.count_publishers("/policy/twist")
        finally:
            one.close()
            for node in reversed(nodes):
                node.stop()


def test_what_the_reference_lists_is_what_the_node_offers(start_node: Start) -> None:
    node = start_node(wait=False, autostart=False)
    offered = {service.srv_name.rpartition("/")[2] for service in node.services}
    assert {name.removeprefix("~/") for name, *_ in SERVICES} <= offered
    heard = {subscription.topic_name.rpartition("/")[2] for subscription in node.subscriptions}
    assert {name.removeprefix("~/") for name, *_ in LISTENS} <= heard
    actions = dict(get_action_server_names_and_types_by_node(node, "policy", "/"))
    assert actions == {name.replace("~", "/policy"): [kind] for name, kind, _ in ACTIONS}
    assert NODES["policy"].managed


def test_in_a_process_of_its_own_the_collector_leaves_alone_what_is_loaded_until_cleanup(
    graph: Graph, start_node: Start
) -> None:
    def change(transition: int) -> bool:
        # The service waits its turn behind the transition that autostart is still in when the state says active.
        request = ChangeState.Request(transition=Transition(id=transition))
        return graph.call(ChangeState, "/policy/change_state", request, timeout=20).success

    start_node(own_process=True)
    try:
        assert gc.get_freeze_count() > 10_000
        assert change(Transition.TRANSITION_DEACTIVATE)
    finally:
        assert change(Transition.TRANSITION_CLEANUP)
    assert gc.get_freeze_count() == 0
