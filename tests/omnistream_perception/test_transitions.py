# SPDX-License-Identifier: Apache-2.0
"""Namespaces and lifecycle transitions: rows of the event table."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from lifecycle_msgs.msg import State as LifecycleState
from lifecycle_msgs.msg import Transition
from lifecycle_msgs.srv import GetState

from omnistream_ros.lifecycle import State
from omnistream_ros.testing import Graph
from tests.omnistream_perception.asking import change_state

Make = Callable[..., Any]


def test_two_nodes_in_two_namespaces_do_not_hear_each_other(graph: Graph, start: Make, camera: Make) -> None:
    for name in ("left", "right"):
        start(namespace=name, image_topic="image")  # a relative topic, as everything of ours
    left, right = (camera(topic=f"/{name}/image", node=f"/{name}/perception") for name in ("left", "right"))
    for _ in range(3):
        left.served()
    right.served()
    assert (len(left.features), len(right.features)) == (3, 1)
    for namespace in ("left", "right"):
        found = graph.node.get_publisher_names_and_types_by_node("perception", f"/{namespace}")
        names = {name for name, _ in found} - {"/rosout", "/parameter_events", "/diagnostics"}
        assert {name for name in names if not name.startswith(f"/{namespace}/perception/")} == set()
        assert f"/{namespace}/perception/depth" in names


def test_transitions_asked_for_twice_do_no_harm(graph: Graph, start: Make, camera: Make) -> None:
    start()
    source = camera()
    source.served()
    for transition, after in (
        (Transition.TRANSITION_ACTIVATE, LifecycleState.PRIMARY_STATE_ACTIVE),  # active already
        (Transition.TRANSITION_DEACTIVATE, LifecycleState.PRIMARY_STATE_INACTIVE),
        (Transition.TRANSITION_DEACTIVATE, LifecycleState.PRIMARY_STATE_INACTIVE),
        (Transition.TRANSITION_CLEANUP, LifecycleState.PRIMARY_STATE_UNCONFIGURED),
        (Transition.TRANSITION_CLEANUP, LifecycleState.PRIMARY_STATE_UNCONFIGURED),
        (Transition.TRANSITION_CONFIGURE, LifecycleState.PRIMARY_STATE_INACTIVE),
        (Transition.TRANSITION_CONFIGURE, LifecycleState.PRIMARY_STATE_INACTIVE),
        (Transition.TRANSITION_ACTIVATE, LifecycleState.PRIMARY_STATE_ACTIVE),
        (Transition.TRANSITION_ACTIVATE, LifecycleState.PRIMARY_STATE_ACTIVE),
    ):
        change_state(graph, transition)
        assert graph.call(GetState, "/perception/get_state").current_state.id == after
    source.features.clear()
    graph.wait(lambda: graph.node.count_publishers("/perception/features") == 1, "the new publisher")
    graph.wait(lambda: graph.node.count_subscribers("/image") == 1, "the new subscription")
    source.served()


def test_an_external_manager_starts_it_when_autostart_is_off(graph: Graph, start: Make, camera: Make) -> None:
    node = start(autostart=False, wait=False)
    state = graph.call(GetState, "/perception/get_state").current_state.id
    assert state == LifecycleState.PRIMARY_STATE_UNCONFIGURED
    assert graph.node.count_publishers("/perception/features") == 0
    assert change_state(graph, Transition.TRANSITION_CONFIGURE)
    assert graph.node.count_subscribers("/image") == 0  # inactive: no traffic
    assert change_state(graph, Transition.TRANSITION_ACTIVATE)
    assert node.state is State.ACTIVE
    camera().served()


def test_the_state_survives_a_pause(graph: Graph, start: Make, camera: Make) -> None:
    start(max_gap=100.0)
    source = camera()
    source.served()
    assert change_state(graph, Transition.TRANSITION_DEACTIVATE)
    assert change_state(graph, Transition.TRANSITION_ACTIVATE)
    graph.wait(lambda: graph.node.count_subscribers("/image") == 1, "the new subscription")
    source.served()
    assert source.status(lambda s: s.frames_seen == 2, "2 frames").segment == 0
