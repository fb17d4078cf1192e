# SPDX-License-Identifier: Apache-2.0
"""One test per service, and one per way in which it refuses."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from rcl_interfaces.srv import GetParameters
from rosgraph_msgs.msg import Clock
from sensor_msgs.msg import Image
from std_srvs.srv import Trigger

from omnistream.weights.checkpoint import Checkpoint
from omnistream_msgs.msg import StreamStatus
from omnistream_msgs.srv import LoadWeights, SetWindow
from omnistream_ros import images
from omnistream_ros.running import Spinner
from omnistream_ros.testing import Graph

Make = Callable[..., Any]


def parameter(graph: Graph, name: str) -> str:
    request = GetParameters.Request(names=[name])
    return graph.call(GetParameters, "/perception/get_parameters", request).values[0].string_value


def test_reset(graph: Graph, start: Make, camera: Make) -> None:
    start()
    source = camera()
    source.served()
    source.served()
    response = graph.call(Trigger, "/perception/reset")
    assert response.success, response.message
    status = source.status(lambda s: s.segment == 1, "segment 1")
    assert (status.frames_seen, status.cache_filled) == (0, 0)
    assert status.last_reset_reason == StreamStatus.RESET_REQUESTED
    source.served(stamp=5.0)  # whatever comes next is frame 0: going back in time is no second reset
    assert source.status(lambda s: s.frames_seen == 1, "frame 0").segment == 1


def test_reset_waits_for_the_step_in_hand(graph: Graph, start: Make, camera: Make) -> None:
    """A stream is not forgotten under the feet of a step: it would go on with half of its frames."""
    node = start()
    source = camera()
    source.served()
    stepping, go_on = threading.Event(), threading.Event()

    def hold(*_: Any) -> None:
        stepping.set()
        assert go_on.wait(10)

    session = node._cameras[""].session
    hook = session.engine._model.backbone.blocks[2].register_forward_pre_hook(hold)
    source.send()
    assert stepping.wait(5)
    client = graph.node.create_client(Trigger, "/perception/reset")
    assert client.wait_for_service(5)
    future = client.call_async(Trigger.Request())
    time.sleep(0.3)
    assert not future.done() and session.frames_seen >= 1
    hook.remove()
    go_on.set()
    graph.wait(future.done, "the answer")
    assert future.result().success and session.frames_seen == 0


def test_services_say_when_the_node_is_not_configured(graph: Graph, start: Make) -> None:
    start(wait=False, autostart=False)
    for kind, name in ((Trigger, "reset"), (SetWindow, "set_window"), (LoadWeights, "load_weights")):
        response = graph.call(kind, f"/perception/{name}")
        assert not response.success and "unconfigured" in response.message


def test_set_window(graph: Graph, start: Make, camera: Make) -> None:
    start()
    source = camera()
    source.served()
    response = graph.call(SetWindow, "/perception/set_window", SetWindow.Request(policy="window:4"))
    assert response.success, response.message
    status = source.status(lambda s: s.policy == "window:4", "the new policy")
    assert (status.cache_slots, status.segment) == (4, 1)
    assert status.last_reset_reason == StreamStatus.RESET_WINDOW_CHANGED
    assert parameter(graph, "policy") == "window:4"  # what `ros2 param dump` writes starts the node as it runs now
    source.served()


@pytest.mark.parametrize("policy", ["sometimes", "window:0", "full", "window:9999999"])
def test_set_window_refuses_and_the_stream_goes_on(graph: Graph, start: Make, camera: Make, policy: str) -> None:
    start(memory_limit=1000)
    source = camera()
    source.served()
    response = graph.call(SetWindow, "/perception/set_window", SetWindow.Request(policy=policy))
    assert not response.success and (policy in response.message or "not enough memory" in response.message)
    source.served()
    status = source.status(lambda s: s.frames_seen == 2, "2 frames in one segment")
    assert (status.policy, status.segment) == ("sink_window:1,15", 0)


def test_load_weights(graph: Graph, start: Make, camera: Make, weights: dict[str, str]) -> None:
    """From a backbone without heads to a model with heads: the topics appear."""
    start(weights=weights["backbone"])
    source = camera()
    source.served()
    before = source.status(lambda s: s.model_hash, "the first model").model_hash
    response = graph.call(LoadWeights, "/perception/load_weights", LoadWeights.Request(path=weights["metric"]))
    assert response.success, response.message
    status = source.status(lambda s: s.model_hash == response.model_hash, "the second model")
    assert response.model_hash != before
    assert (status.segment, status.last_reset_reason) == (1, StreamStatus.RESET_MODEL_LOADED)
    assert parameter(graph, "weights") == weights["metric"]
    depth = graph.collect(Image, "/perception/depth")
    graph.wait(lambda: graph.node.count_publishers("/perception/features") == 1, "the new publisher")
    message = source.send()
    graph.wait(lambda: depth, "depth")
    assert depth[0].header == message.header


@pytest.mark.parametrize("path", ["/nowhere", ""])
def test_load_weights_refused_keeps_serving(graph: Graph, start: Make, camera: Make, path: str) -> None:
    start()
    source = camera()
    source.served()
    before = source.status(lambda s: s.model_hash, "the model").model_hash
    response = graph.call(LoadWeights, "/perception/load_weights", LoadWeights.Request(path=path))
    assert not response.success and response.model_hash == before
    assert ("/nowhere" if path else "weights is empty") in response.message
    source.served()
    status = source.status(lambda s: s.frames_seen == 2, "2 frames in one segment")
    assert (status.model_hash, status.segment) == (before, 0)


@pytest.mark.parametrize("case", ["no such user", "no memory"])
def test_load_weights_answers_whatever_loading_raises(
    graph: Graph, start: Make, camera: Make, monkeypatch: pytest.MonkeyPatch, case: str
) -> None:
    """`~nosuchuser` cannot be expanded, which is a RuntimeError; so is torch's way to say that memory is out."""
    start()
    source = camera()
    source.served()
    if case == "no memory":
        monkeypatch.setattr(Checkpoint, "model", lambda self: torch.empty(1 << 60))
        path = graph.call(GetParameters, "/perception/get_parameters", GetParameters.Request(names=["weights"]))
        request = LoadWeights.Request(path=path.values[0].string_value)
    else:
        request = LoadWeights.Request(path="~nosuchuser/w")
    response = graph.call(LoadWeights, "/perception/load_weights", request)
    assert not response.success and response.message
    source.served()
    assert source.status(lambda s: s.frames_seen == 2, "2 frames in one segment").segment == 0


def test_images_are_served_while_weights_load(
    graph: Graph, start: Make, camera: Make, weights: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With the two executor threads of the executable, that is; and a checkpoint that takes its time."""
    from omnistream_perception import model as models

    node = start()
    spinner = next(spinner for spinner in graph.running if spinner.node is node)
    assert spinner.end(5)  # else its last round may take the image that the new one waits for
    graph.running[graph.running.index(spinner)] = Spinner(node, threads=2)

    reading, go_on = threading.Event(), threading.Event()
    load = models.load

    def slow(*args: Any) -> Any:
        reading.set()
        assert go_on.wait(10)
        return load(*args)

    monkeypatch.setattr(models, "load", slow)
    source = camera()
    source.served()
    client = graph.node.create_client(LoadWeights, "/perception/load_weights")
    assert client.wait_for_service(5)
    future = client.call_async(LoadWeights.Request(path=weights["relative"]))
    assert reading.wait(5)
    source.served()
    source.served()
    assert not future.done()
    go_on.set()
    graph.wait(future.done, "the response")
    assert future.result().success, future.result().message


def test_clock_that_jumps_back_resets(graph: Graph, start: Make, camera: Make) -> None:
    node = start(use_sim_time=True)
    source = camera()

    def set_clock(seconds: int) -> None:
        graph.publish(Clock, "/clock", Clock(clock=images.seconds_to_stamp(seconds)), "reliable:100")
        graph.wait(lambda: node.get_clock().now().nanoseconds == seconds * 10**9, "the clock")

    set_clock(100)
    source.served(stamp=100.0)
    set_clock(3)
    status = source.status(lambda s: s.segment == 1, "segment 1")
    assert status.last_reset_reason == StreamStatus.RESET_CLOCK_JUMP
    source.served(stamp=3.0)
    assert source.status(lambda s: s.frames_seen == 1, "frame 0").segment == 1  # not a second time
