# SPDX-License-Identifier: Apache-2.0
"""The base of lifecycle nodes: autostart, readable failures, bugs, faults, and an orderly end."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
from lifecycle_msgs.msg import Transition
from lifecycle_msgs.srv import ChangeState, GetState

from omnistream.errors import ConfigError
from omnistream_ros.lifecycle import ManagedNode, State
from omnistream_ros.testing import Graph


class Subject(ManagedNode):
    """Notes what is called; raises what it is told to."""

    def __init__(self, graph: Graph, **raises: Exception) -> None:
        self.called: list[str] = []
        self.states: list[State] = []
        self.raises = raises
        super().__init__("subject", (), context=graph.context)

    def _note(self, what: str) -> None:
        self.called.append(what)
        if what in self.raises:
            raise self.raises[what]

    def configure(self) -> None:
        self._note("configure")

    def activate(self) -> None:
        self._note("activate")

    def deactivate(self) -> None:
        self._note("deactivate")

    def cleanup(self) -> None:
        self._note("cleanup")

    def state_changed(self) -> None:
        self.states.append(self.state)


@pytest.fixture
def graph(ros_domain: int) -> Iterator[Graph]:
    with Graph(ros_domain) as graph:
        yield graph


@pytest.fixture
def change(graph: Graph) -> Callable[[int], bool]:
    def change(transition: int) -> bool:
        request = ChangeState.Request(transition=Transition(id=transition))
        return graph.call(ChangeState, "/subject/change_state", request).success

    return change


def label(graph: Graph) -> str:
    return graph.call(GetState, "/subject/get_state").current_state.label


def test_it_starts_by_itself(graph: Graph) -> None:
    node = graph.add(Subject(graph))
    graph.wait(lambda: State.ACTIVE in node.states, "word of the active state")  # it comes after the state itself
    assert node.state is State.ACTIVE and node.called == ["configure", "activate"]
    assert node.states == [State.INACTIVE, State.ACTIVE]
    assert label(graph) == "active"


def test_an_expected_error_leaves_it_unconfigured_with_the_reason(graph: Graph, change: Callable[[int], bool]) -> None:
    node = graph.add(Subject(graph, configure=ConfigError("the weights are missing")))
    graph.wait(lambda: node.fault, "a fault")
    assert node.fault == "the weights are missing" and not node.failed
    assert label(graph) == "unconfigured"
    assert node.called == ["configure", "cleanup"]  # half of a configure is undone
    node.raises.clear()
    assert change(Transition.TRANSITION_CONFIGURE)
    assert node.fault == ""


def test_an_error_in_activate_leaves_it_inactive(graph: Graph) -> None:
    node = graph.add(Subject(graph, activate=OSError("no such device")))
    graph.wait(lambda: node.fault, "a fault")
    graph.wait(lambda: label(graph) == "inactive", "inactive")
    assert node.called == ["configure", "activate", "deactivate"]


def test_a_bug_passes_error_processing_and_can_be_configured_again(graph: Graph, change: Callable[[int], bool]) -> None:
    node = graph.add(Subject(graph, configure=KeyError("oops")))
    graph.wait(lambda: node.failed, "error processing")
    assert "KeyError" in node.fault
    assert label(graph) == "unconfigured"
    node.raises.clear()
    assert change(Transition.TRANSITION_CONFIGURE)
    assert not node.failed


def test_a_fault_from_another_thread_ends_the_active_state(graph: Graph, change: Callable[[int], bool]) -> None:
    node = graph.add(Subject(graph))
    graph.wait(lambda: node.state is State.ACTIVE, "the active state")
    node.raise_fault("the GPU fell off the bus")
    graph.wait(lambda: node.failed, "error processing")
    assert (node.state, node.fault) == (State.UNCONFIGURED, "the GPU fell off the bus")
    assert node.called == ["configure", "activate", "deactivate", "cleanup"]
    assert change(Transition.TRANSITION_CONFIGURE) and change(Transition.TRANSITION_ACTIVATE)
    assert node.fault == "" and node.state is State.ACTIVE


def test_a_fault_that_comes_too_late_is_nothing(graph: Graph, change: Callable[[int], bool]) -> None:
    node = graph.add(Subject(graph))
    graph.wait(lambda: node.state is State.ACTIVE, "the active state")
    assert change(Transition.TRANSITION_DEACTIVATE)
    node.raise_fault("too late")
    assert change(Transition.TRANSITION_ACTIVATE)
    assert change(Transition.TRANSITION_DEACTIVATE)
    assert (node.state, node.fault, node.failed) == (State.INACTIVE, "", False)


@pytest.mark.parametrize("state", [State.UNCONFIGURED, State.INACTIVE, State.ACTIVE])
def test_stop_frees_everything_in_any_state(graph: Graph, change: Callable[[int], bool], state: State) -> None:
    node = graph.add(Subject(graph))
    graph.wait(lambda: node.state is State.ACTIVE, "the active state")
    if state is not State.ACTIVE:
        assert change(Transition.TRANSITION_DEACTIVATE)
    if state is State.UNCONFIGURED:
        assert change(Transition.TRANSITION_CLEANUP)
    node.called.clear()
    node.stop()
    node.stop()
    assert node.state is State.FINALIZED
    assert node.called == (["deactivate", "cleanup"] if state is State.ACTIVE else ["cleanup"])
