# SPDX-License-Identifier: Apache-2.0
"""The parameter file of both nodes names only what they declare; `omnistream-up policy` knows the node."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from omnistream_perception.parameters import NODE as PERCEPTION
from omnistream_perception.parameters import camera_specs
from omnistream_policy.parameters import LISTENS, NODE, SERVICES
from omnistream_ros.lifecycle import LIFECYCLE_PARAMETERS
from omnistream_ros.up import NODES
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


def test_what_the_reference_lists_is_what_the_node_offers(start_node: Start) -> None:
    node = start_node(wait=False, autostart=False)
    offered = {service.srv_name.rpartition("/")[2] for service in node.services}
    assert {name.removeprefix("~/") for name, *_ in SERVICES} <= offered
    heard = {subscription.topic_name.rpartition("/")[2] for subscription in node.subscriptions}
    assert {name.removeprefix("~/") for name, *_ in LISTENS} <= heard
    assert NODES["policy"].managed
