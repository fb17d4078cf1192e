# SPDX-License-Identifier: Apache-2.0
"""The camera source over real DDS: a small recording goes in, and comes out whole, in order, stamped and paced."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from diagnostic_msgs.msg import DiagnosticArray
from geometry_msgs.msg import PoseStamped
from PIL import Image as Picture
from rosbags.rosbag2 import StoragePlugin, Writer
from rosbags.typesys import Stores, get_typestore
from rosgraph_msgs.msg import Clock
from sensor_msgs.msg import CameraInfo, CompressedImage, Image

from omnistream.errors import OmniStreamError
from omnistream.io.recording_writer import RecordingWriter
from omnistream_ros.camera_source import CameraSource, main
from omnistream_ros.images import decode, decode_depth_image, stamp_to_ns, stamp_to_seconds
from omnistream_ros.qos import qos_profile
from omnistream_ros.testing import Graph

pytestmark = pytest.mark.ros

FRAMES, RATE, SIZE = 12, 50.0, (24, 32)
K = np.array([[30.0, 0.0, 15.5], [0.0, 31.0, 11.5], [0.0, 0.0, 1.0]])
D = (0.1, -0.05, 0.0, 0.0, 0.0)
TOPIC = "/camera/image_raw"


def picture(index: int, size: tuple[int, int] = SIZE) -> np.ndarray:
    """A picture that tells its index."""
    image = np.zeros((*size, 3), np.uint8)
    image[...] = (index * 17 % 256, 255 - index, 7)
    return image


@pytest.fixture
def recording(tmp_path: Path) -> Path:
    folder = tmp_path / "recording"
    with RecordingWriter(folder, rate=RATE, size=SIZE, K=K, D=D, frame_id="cam_optical", jpeg_quality=None) as writer:
        for index in range(FRAMES):
            pose = np.eye(4)
            pose[0, 3] = 0.01 * index
            depth = np.full(SIZE, 1.0 + 0.1 * index, np.float32)
            depth[0, 0] = np.nan
            writer.add(picture(index), stamp=100.0 + index / RATE, depth=depth, T_world_camera=pose)
    return folder


class Camera:
    """The node under test and a test's subscriptions, in one process."""

    def __init__(self, ros_domain: int, **parameters: object) -> None:
        parameters = {"wait_for_subscribers": 1, **parameters}
        args = ["--ros-args"]
        for name, value in parameters.items():
            args += ["-p", f"{name}:={str(value).lower() if isinstance(value, bool) else value}"]
        self.graph = Graph(ros_domain, args)
        self.node: CameraSource | None = None

    def start(self) -> CameraSource:
        self.node = self.graph.add(CameraSource(context=self.graph.context))
        return self.node

    def run(self, timeout: float = 10.0) -> CameraSource:
        node = self.start()
        assert node.finished.wait(timeout), f"the recording did not end within {timeout} s"
        time.sleep(0.2)  # the executor of the test's node delivers what has arrived
        return node


@pytest.fixture
def camera(ros_domain: int) -> Iterator[Callable[..., Camera]]:
    made: list[Camera] = []

    def make(**parameters: object) -> Camera:
        made.append(Camera(ros_domain, **parameters))
        return made[-1]

    yield make
    for one in made:
        if one.node is not None:
            one.node.stop()
        one.graph.close()


def test_every_frame_in_order_with_calibration_and_pace(recording: Path, camera: Callable[..., Camera]) -> None:
    cam = camera(input=recording)
    arrivals: list[float] = []
    images = cam.graph.collect(Image, TOPIC, connect=False)
    infos = cam.graph.collect(CameraInfo, "/camera/camera_info", connect=False)
    cam.graph.node.create_subscription(Image, TOPIC, lambda _: arrivals.append(time.monotonic()), 10)
    before = time.time()
    node = cam.run()
    after = time.time()

    assert [int(decode(image)[0, 0, 0]) for image in images] == [index * 17 % 256 for index in range(FRAMES)]
    np.testing.assert_array_equal(decode(images[3]), picture(3))
    assert images[0].encoding == "rgb8" and images[0].step == 3 * SIZE[1]
    assert {image.header.frame_id for image in images} == {"cam_optical"}
    stamps = [stamp_to_seconds(image.header.stamp) for image in images]
    assert before < stamps[0] and stamps == sorted(stamps) and stamps[-1] < after, "stamp:=now is the moment of sending"
    # 11 periods of 20 ms; a loaded machine delays single frames but not the timetable
    assert stamps[-1] - stamps[0] == pytest.approx((FRAMES - 1) / RATE, abs=0.1)

    assert [info.header.stamp for info in infos] == [image.header.stamp for image in images]
    info = infos[0]
    assert (info.width, info.height, info.distortion_model, info.header.frame_id) == (
        32,
        24,
        "plumb_bob",
        "cam_optical",
    )
    np.testing.assert_allclose(np.reshape(info.k, (3, 3)), K)
    np.testing.assert_allclose(np.reshape(info.p, (3, 4))[:, :3], K)
    np.testing.assert_allclose(info.d, D)
    assert node.error is None and node.published == FRAMES


def test_recorded_stamps_drive_the_clock(recording: Path, camera: Callable[..., Camera]) -> None:
    cam = camera(input=recording, stamp="recorded", publish_clock=True, rate=100.0)
    images = cam.graph.collect(Image, TOPIC, connect=False)
    ticks = cam.graph.collect(Clock, "/clock", qos="sensor:100", connect=False)
    cam.run()
    expected = [100_000_000_000 + round(index / RATE * 1e9) for index in range(FRAMES)]
    assert [stamp_to_ns(image.header.stamp) for image in images] == expected
    assert [stamp_to_ns(tick.clock) for tick in ticks] == expected


def test_loop_goes_on_and_time_with_it(recording: Path, camera: Callable[..., Camera]) -> None:
    cam = camera(input=recording, loop=True, stamp="recorded", rate=200.0)
    images = cam.graph.collect(Image, TOPIC, connect=False)
    node = cam.start()
    cam.graph.wait(lambda: len(images) > 2 * FRAMES + 2, "a third pass")
    assert not node.finished.is_set()
    stamps = [stamp_to_seconds(image.header.stamp) for image in images]
    np.testing.assert_allclose(np.diff(stamps), 1 / RATE, atol=1e-6)
    assert int(decode(images[FRAMES])[0, 0, 0]) == 0, "the second pass begins with the first frame"


def test_ground_truth_beside_the_image(recording: Path, camera: Callable[..., Camera]) -> None:
    cam = camera(input=recording, ground_truth=True, topic="front/rgb/image")
    images = cam.graph.collect(Image, "/front/rgb/image", connect=False)
    depths = cam.graph.collect(Image, "/front/rgb/ground_truth/depth", connect=False)
    poses = cam.graph.collect(PoseStamped, "/front/rgb/ground_truth/pose", connect=False)
    cam.run()
    assert len(images) == len(depths) == len(poses) == FRAMES
    depth = decode_depth_image(depths[5])
    assert np.isnan(depth[0, 0]) and depth[1, 1] == pytest.approx(1.5)
    assert poses[5].header.frame_id == "world" and poses[5].header.stamp == images[5].header.stamp
    assert poses[5].pose.position.x == pytest.approx(0.05) and poses[5].pose.orientation.w == pytest.approx(1.0)


def test_compressed_transport(recording: Path, camera: Callable[..., Camera]) -> None:
    cam = camera(input=recording, transport="compressed", jpeg_quality=95, frame_id="other")
    images = cam.graph.collect(CompressedImage, f"{TOPIC}/compressed", connect=False)
    cam.run()
    assert len(images) == FRAMES and images[0].header.frame_id == "other"
    np.testing.assert_allclose(decode(images[4]).astype(int), picture(4).astype(int), atol=4)


def test_an_unreadable_file_is_left_out_and_reported(recording: Path, camera: Callable[..., Camera]) -> None:
    broken = recording / "rgb" / "000005.png"
    broken.write_bytes(broken.read_bytes()[:40])
    cam = camera(input=recording)
    images = cam.graph.collect(Image, TOPIC, connect=False)
    reports = cam.graph.collect(DiagnosticArray, "/diagnostics", connect=False)
    cam.run()
    assert [int(decode(image)[0, 0, 0]) // 17 for image in images] == [i for i in range(FRAMES) if i != 5]
    last = reports[-1].status[0]
    assert last.name == "camera: source" and "1 images cannot be read" in last.message
    assert {value.key: value.value for value in last.values}["published"] == str(FRAMES - 1)


@pytest.mark.parametrize("storage", ["SQLITE3", "MCAP"])
def test_one_topic_of_a_bag_with_its_stamps(storage: str, tmp_path: Path, camera: Callable[..., Camera]) -> None:
    bag = write_bag(tmp_path / "bag", storage, ["/left/image_raw", "/right/image_raw"])
    with pytest.raises(OmniStreamError, match="/right/image_raw"):
        camera(input=bag).start()  # two topics: the user has to say which
    cam = camera(input=bag, bag_topic="/right/image_raw", stamp="recorded", rate=50.0)
    images = cam.graph.collect(Image, TOPIC, connect=False)
    cam.run()
    assert [int(decode(image)[0, 0, 0]) for image in images] == [17 * index + 1 for index in range(5)]
    assert [stamp_to_ns(image.header.stamp) for image in images] == [10**18 + index * 10**8 for index in range(5)]
    assert images[0].header.frame_id == "/right/image_raw"


def write_bag(path: Path, storage: str, topics: list[str]) -> Path:
    """Five images at 10 Hz on each topic; the first pixel tells number and topic."""
    store = get_typestore(Stores.ROS2_JAZZY)
    header, image, time_type = (
        store.types[name] for name in ("std_msgs/msg/Header", "sensor_msgs/msg/Image", "builtin_interfaces/msg/Time")
    )
    with Writer(path, version=9, storage_plugin=StoragePlugin[storage]) as writer:
        for number, topic in enumerate(topics):
            connection = writer.add_connection(topic, image.__msgtype__, typestore=store)
            for index in range(5):
                stamp = 10**18 + index * 10**8
                data = np.full(24 * 32 * 3, 17 * index + number, np.uint8)
                head = header(time_type(*divmod(stamp, 10**9)), topic)
                message = image(head, 24, 32, "rgb8", 0, 32 * 3, data)
                writer.write(connection, stamp, bytes(store.serialize_cdr(message, image.__msgtype__)))
    return path


def test_calibration_for_a_recording_without_one(tmp_path: Path, camera: Callable[..., Camera]) -> None:
    for index in range(3):
        Picture.fromarray(picture(index)).save(tmp_path / f"{index}.png")
    cam = camera(input=tmp_path, intrinsics="[30.0, 31.0, 15.5, 11.5]", rate=50.0)
    infos = cam.graph.collect(CameraInfo, "/camera/camera_info", connect=False)
    images = cam.graph.collect(Image, TOPIC, connect=False)
    cam.run()
    assert len(images) == len(infos) == 3
    np.testing.assert_allclose(np.reshape(infos[0].k, (3, 3)), K)
    assert list(infos[0].d) == []


@pytest.mark.parametrize(
    ("parameters", "says"),
    [
        ({}, "input"),
        ({"input": "/nonexistent.mp4"}, "does not exist"),
        ({"input": ".", "publish_clock": True}, "stamp:=recorded"),
        ({"input": ".", "intrinsics": "[1.0, 2.0]"}, "fx, fy, cx, cy"),
        ({"input": ".", "qos": "best"}, "best"),
    ],
)
def test_what_cannot_work_is_refused_at_once(
    parameters: dict[str, object], says: str, camera: Callable[..., Camera]
) -> None:
    cam = camera(**parameters)
    with pytest.raises(OmniStreamError, match=says):
        cam.start()


def test_help_names_every_parameter(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["camera", "--help"]) == 0
    text = capsys.readouterr().out
    assert "publish_clock" in text and "wait_for_subscribers" in text and "omnistream-up camera" in text


def process(*parameters: str) -> "subprocess.Popen[str]":
    args = [word for parameter in parameters for word in ("-p", parameter)]
    return subprocess.Popen(
        [sys.executable, "-m", "omnistream_ros.camera_source", "--ros-args", *args],
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=dict(os.environ),
    )  # fmt: skip


def test_the_process_ends_by_itself_with_0(recording: Path, ros_domain: int) -> None:
    child = process(f"input:={recording}")
    output, _ = child.communicate(timeout=30)
    assert child.returncode == 0, output
    assert f"end of the recording: {FRAMES} images" in output


def test_a_folder_without_one_readable_image_is_an_error(recording: Path, ros_domain: int) -> None:
    for path in (recording / "rgb").iterdir():
        path.write_bytes(b"not a picture")
    child = process(f"input:={recording}")
    output, _ = child.communicate(timeout=30)
    assert child.returncode == 1 and "none of its images can be read" in output, output


def test_sigint_ends_a_loop_with_0(recording: Path, ros_domain: int) -> None:
    child = process(f"input:={recording}", "loop:=true")
    with Graph(ros_domain) as graph:
        images = graph.collect(Image, TOPIC, connect=False)
        graph.wait(lambda: len(images) > 3, "images of the other process", 20.0)
    child.send_signal(signal.SIGINT)
    started = time.monotonic()
    output, _ = child.communicate(timeout=10)
    assert child.returncode == 0, output
    assert time.monotonic() - started < 4.0


@pytest.mark.slow
def test_no_image_is_lost_between_two_processes_at_30_hz(tmp_path: Path, ros_domain: int) -> None:
    """640x480 rgb8, best effort, Fast DDS with our profile: all of 180 arrive, within milliseconds."""
    folder = tmp_path / "vga"
    with RecordingWriter(folder, rate=30.0, size=(480, 640)) as writer:
        for index in range(10):
            writer.add(picture(index, (480, 640)))
    wanted, delays = 180, []
    with Graph(ros_domain) as graph:

        def receive(image: Image) -> None:
            delays.append(time.time() - stamp_to_seconds(image.header.stamp))
            if len(delays) == wanted:
                child.send_signal(signal.SIGINT)

        graph.node.create_subscription(Image, TOPIC, receive, qos_profile("sensor"))
        child = process(f"input:={folder}", "loop:=true", "qos:=sensor", "wait_for_subscribers:=1")
        output, _ = child.communicate(timeout=30)
    sent = int(output.split("stopped: ")[1].split(" images")[0])
    assert len(delays) >= sent - 1, f"{len(delays)} of {sent} arrived"  # one may be under way when it stops
    assert np.median(delays) < 0.03
