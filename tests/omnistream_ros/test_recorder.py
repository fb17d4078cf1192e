# SPDX-License-Identifier: Apache-2.0
"""The recorder brings the messages of an image together, counts all of them and keeps a bounded sample."""

from collections.abc import Iterator

import numpy as np
import pytest
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus, KeyValue
from geometry_msgs.msg import PoseStamped
from nav_msgs.msg import Odometry
from sensor_msgs.msg import CameraInfo, Image
from std_msgs.msg import Header

from omnistream.errors import InputError
from omnistream_msgs.msg import FeatureMap, StreamStatus
from omnistream_ros.images import byte_array, camera_info_message, image_message, ns_to_stamp
from omnistream_ros.recorder import KEPT_FRAMES, WINDOW, Recorder, feature_array
from omnistream_ros.testing import Graph

pytestmark = pytest.mark.ros

STEP_NS = 20_000_000
K = np.array([[8.0, 0.0, 7.5], [0.0, 8.0, 5.5], [0.0, 0.0, 1.0]])


@pytest.fixture
def graph(ros_domain: int) -> Iterator[Graph]:
    with Graph(ros_domain) as graph:
        yield graph


@pytest.fixture
def recorder(graph: Graph) -> Recorder:
    recorder = graph.add(Recorder(context=graph.context))
    recorder.watch_camera()
    return recorder


def send(graph: Graph, index: int, start_ns: int, depth: bool = True) -> None:
    """All that a camera and a perception node say of image `index`."""
    header = Header(stamp=ns_to_stamp(start_ns + index * STEP_NS), frame_id="camera")
    graph.publish(Image, "/camera/ground_truth/depth", image_message(np.full((48, 64), 2.0, np.float32), header))
    pose = PoseStamped(header=header)
    pose.pose.position.x, pose.pose.orientation.w = 0.1 * index, 1.0
    graph.publish(PoseStamped, "/camera/ground_truth/pose", pose)
    graph.publish(Image, "/camera/image_raw", image_message(np.full((48, 64, 3), index % 256, np.uint8), header))
    if not depth:
        return
    features = np.full((2, 3, 4), index, np.float16)
    graph.publish(FeatureMap, "/perception/features", feature_map(features, header))
    odometry = Odometry(header=header)
    odometry.pose.pose.position.z, odometry.pose.pose.orientation.w = 0.2 * index, 1.0
    graph.publish(Odometry, "/perception/odometry", odometry)
    graph.publish(CameraInfo, "/perception/camera_info", camera_info_message(K, 16, 12, header))
    graph.publish(Image, "/perception/depth_relative", image_message(np.full((12, 16), 1.5, np.float32), header))


def feature_map(features: np.ndarray, header: Header) -> FeatureMap:
    height, width, dim = features.shape
    return FeatureMap(
        header=header, grid_height=height, grid_width=width, dim=dim, dtype=features.dtype.name,
        layout="row_major_hwc", data=byte_array(features),
    )  # fmt: skip


def test_messages_of_an_image_come_together(graph: Graph, recorder: Recorder) -> None:
    start = graph.node.get_clock().now().nanoseconds
    sent = WINDOW + 5
    for index in range(sent):
        send(graph, index, start, depth=index != 3)
        graph.wait(lambda: recorder.counts["image"] == index + 1, "the image")  # noqa: B023
    graph.wait(lambda: recorder.counts["depth"] == sent - 1, "the last depth")
    assert len(recorder.frames) <= 5, "images within the window wait for their results"
    recorder.finish()

    assert recorder.counts == {"image": sent, "depth": sent - 1, "features": sent - 1, "odometry": sent - 1}
    frames = list(recorder.frames)
    assert len(frames) == sent - 1 and [f.stamp_ns for f in frames] == sorted(f.stamp_ns for f in frames)
    frame = frames[4]  # image 5: image 3 had no results
    assert frame.image is not None and frame.image.shape == (12, 16, 3) and frame.image[0, 0, 0] == 5
    assert frame.depth is not None and frame.depth[0, 0] == 1.5
    assert frame.true_depth is not None and frame.true_depth.shape == (12, 16) and frame.true_depth[0, 0] == 2.0
    assert frame.features is not None and frame.features.shape == (2, 3, 4) and frame.features[0, 0, 0] == 5
    np.testing.assert_allclose(frame.K, K)
    assert frame.T_odom_camera is not None and frame.T_odom_camera[2, 3] == pytest.approx(1.0)
    assert frame.T_world_camera is not None and frame.T_world_camera[0, 3] == pytest.approx(0.5)
    assert len(recorder.transport_ms) == sent and len(recorder.end_to_end_ms) == sent - 1
    assert len(recorder.poses) == sent - 1


def test_memory_is_bounded(recorder: Recorder) -> None:
    """Straight into the callback: ten thousand images through DDS would take minutes."""
    header = Header()
    depth = image_message(np.ones((12, 16), np.float32), header)
    for index in range(1, 10_000):
        header.stamp = ns_to_stamp(index * STEP_NS)
        recorder._receive("depth", Image(header=Header(stamp=header.stamp), **_fields(depth)))
    assert len(recorder._pending) == WINDOW
    assert len(recorder.frames) <= KEPT_FRAMES
    assert recorder.counts["depth"] == 9_999


def _fields(image: Image) -> dict[str, object]:
    return {name: getattr(image, name) for name in ("height", "width", "encoding", "step", "data")}


def test_status_fault_and_the_cameras_counters(graph: Graph, recorder: Recorder) -> None:
    graph.publish(StreamStatus, "/perception/status", StreamStatus(state=StreamStatus.STATE_INACTIVE), qos="latched")
    graph.wait(lambda: recorder.status, "the status")
    assert not recorder.active.is_set()
    active = StreamStatus(state=StreamStatus.STATE_ACTIVE, detail="tiny, random")
    graph.publish(StreamStatus, "/perception/status", active, qos="latched")
    assert recorder.active.wait(5.0) and recorder.description == "tiny, random"

    camera = DiagnosticStatus(name="camera: source", values=[KeyValue(key="published", value="7")])
    model = DiagnosticStatus(name="perception: model", level=DiagnosticStatus.ERROR, message="no such file")
    graph.publish(DiagnosticArray, "/diagnostics", DiagnosticArray(status=[camera, model]))
    graph.wait(lambda: recorder.camera_counters, "the counters")
    assert recorder.camera_counters == {"published": "7"} and recorder.fault == "no such file"


def test_a_feature_map_of_another_layout_or_length_is_refused() -> None:
    good = feature_map(np.zeros((2, 3, 4), np.float32), Header())
    assert feature_array(good).shape == (2, 3, 4)
    short = feature_map(np.zeros((2, 3, 4), np.float32), Header())
    short.data = short.data[:-4]
    with pytest.raises(InputError, match="92 bytes"):
        feature_array(short)
    good.layout = "chw"
    with pytest.raises(InputError, match="chw"):
        feature_array(good)
