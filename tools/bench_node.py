#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""What the perception node costs beyond the model itself, and whether it loses images at 30 Hz.

    make bench-node                     # or: .venv/bin/python tools/bench_node.py --check

Two processes: this one publishes 640x480 rgb8 images and receives the depth, the node is the other.

Added time: an image is published, its depth arrives (matched by stamp); then the same image goes through a
`StreamSession` of the same model in this process. The difference is the node's: transport both ways, decoding, checks,
messages. The two alternate, so that a machine that is busy with other things is busy for both.

Loss: images at a steady 30 Hz, best effort, to a model small enough to keep up with them.

Results go to build/bench_node.json, with machine, versions and commit.
"""

from __future__ import annotations

import argparse
import dataclasses
import os
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rclpy.node import Node
from sensor_msgs.msg import Image
from std_msgs.msg import Header

from omnistream_msgs.msg import StreamStatus
from omnistream_ros.domains import reserved_domain_id
from omnistream_ros.environment import loopback_environment
from omnistream_ros.images import image_message, stamp_to_ns
from omnistream_ros.nodes import NODES
from omnistream_ros.pacing import Timetable, wait_until
from omnistream_ros.processes import ChildProcess, ProcessGroup, ros_parameters
from omnistream_ros.qos import qos_profile
from omnistream_ros.running import spinning
from omnistream_ros.testing import SMALL_MODEL

HEIGHT, WIDTH = 480, 640
WARM_UP = 20
"""More than the slots of the default policy: all frames after it attend to equally many."""
RATE = 30.0
BUDGET_MS = 5.0
START_LIMIT_S, ANSWER_LIMIT_S = 120.0, 30.0

SMALL = dataclasses.replace(SMALL_MODEL, image_size=96)


def main(argv: Sequence[str] | None = None) -> int:
    """Runs both measurements; returns 1 with --check when a limit is not kept."""
    options = _parser().parse_args(argv)
    from omnistream.cli.report import environment, write_report
    from omnistream.weights import load_model, random_model, save_model

    with tempfile.TemporaryDirectory() as folder:
        small = Path(folder) / "small"
        save_model(random_model(SMALL, seed=0), small)
        models: dict[str, tuple[str, Any, int]] = {"small": (str(small), load_model(small), 1)}
        if options.weights:
            model = load_model(options.weights)
            models[options.weights] = (options.weights, model, options.threads)
        added = {}
        for name, (path, model, threads) in models.items():
            with _node(path, threads) as client:
                added[name] = measure_added(client, model, options.images, threads)
            print(_added_line(name, added[name]), flush=True)
        with _node(str(small), 1) as client:
            loss = measure_loss(client, options.seconds)
    print(_loss_line(loss))
    numbers = {"image": f"{WIDTH}x{HEIGHT} rgb8", "added_ms": added, "loss": loss, "budget_ms": BUDGET_MS}
    write_report(options.out, numbers | {"environment": environment()})
    print(f"wrote {options.out}")
    kept = added["small"]["added"]["p50"] <= BUDGET_MS and loss["lost"] == 0
    if options.check and not kept:
        print(f"expected at most {BUDGET_MS:g} ms added at p50, and no image lost", file=sys.stderr)
        return 1
    return 0


def measure_added(client: Client, model: Any, images: int, threads: int) -> dict[str, dict[str, float]]:
    """Per image: with the node, without it, and the difference, ms."""
    from omnistream.stream.session import StreamSession

    session = StreamSession(model, num_threads=threads or None)
    through, alone = [], []
    for index in range(WARM_UP + images):
        picture = client.pictures[index % len(client.pictures)]
        milliseconds = client.ask(picture)
        begin = time.perf_counter()
        session.step(picture, want=("depth",))
        if index >= WARM_UP:
            through.append(milliseconds)
            alone.append((time.perf_counter() - begin) * 1e3)
    a, b = np.array(through), np.array(alone)
    return {"node": _percentiles(a), "session": _percentiles(b), "added": _percentiles(a - b)}


def measure_loss(client: Client, seconds: float) -> dict[str, Any]:
    """Images sent at `RATE`, and what became of them by the node's own account and by ours."""
    for _ in range(3):
        client.ask(client.pictures[0])
    before = client.wait_for_idle()
    sent = client.stream(round(seconds * RATE))
    after = client.wait_for_idle()
    delays = np.array([client.delay_ms(stamp) for stamp in sent if stamp in client.arrived])
    return {
        "rate_hz": RATE,
        "sent": len(sent),
        "received": after.frames_received - before.frames_received,
        "processed": after.frames_processed - before.frames_processed,
        "depth_images_back": len(delays),
        "lost": len(sent) - (after.frames_received - before.frames_received),
        "dropped": {drop.reason: drop.count for drop in after.drops},
        "end_to_end_ms": _percentiles(delays),
    }


class Client(Node):
    """Publishes images and receives their depth."""

    def __init__(self) -> None:
        super().__init__("bench")
        rng = np.random.default_rng(0)
        self.pictures: list[NDArray[np.uint8]] = [rng.integers(0, 256, (HEIGHT, WIDTH, 3), np.uint8) for _ in range(8)]
        self.sent: dict[int, float] = {}
        """Stamp in ns -> when it was sent, s of the performance counter."""
        self.arrived: dict[int, float] = {}
        self.status: StreamStatus | None = None
        self._news = threading.Condition()
        self._images = self.create_publisher(Image, "/camera/image_raw", qos_profile("sensor"))
        self.create_subscription(Image, "/perception/depth", self._on_depth, qos_profile("reliable"))
        self.create_subscription(Image, "/perception/depth_relative", self._on_depth, qos_profile("reliable"))
        self.create_subscription(StreamStatus, "/perception/status", self._on_status, qos_profile("latched"))

    def ask(self, picture: NDArray[np.uint8]) -> float:
        """Publishes a picture and waits for its depth; the time between the two, ms."""
        stamp = self.send(picture)
        with self._news:
            if not self._news.wait_for(lambda: stamp in self.arrived, ANSWER_LIMIT_S):
                raise RuntimeError(f"no depth came back within {ANSWER_LIMIT_S:g} s")
        return self.delay_ms(stamp)

    def send(self, picture: NDArray[np.uint8]) -> int:
        """Publishes a picture; returns its stamp. Making the message counts: a driver has to do it too."""
        begin = time.perf_counter()
        now = self.get_clock().now()
        self._images.publish(image_message(picture, Header(stamp=now.to_msg(), frame_id="camera")))
        self.sent[now.nanoseconds] = begin
        return now.nanoseconds

    def stream(self, count: int) -> list[int]:
        """Publishes `count` pictures at `RATE`; returns their stamps."""
        timetable, never = Timetable(RATE, RATE), threading.Event()
        stamps = []
        for index in range(count):
            wait_until(timetable.next(0.0), never)
            stamps.append(self.send(self.pictures[index % len(self.pictures)]))
        return stamps

    def delay_ms(self, stamp: int) -> float:
        """From sending the image to the arrival of its depth."""
        return (self.arrived[stamp] - self.sent[stamp]) * 1e3

    def wait_until_connected(self, node: ChildProcess) -> None:
        """Until the node is active and both sides have found each other."""
        deadline = time.monotonic() + START_LIMIT_S
        active = (StreamStatus.STATE_ACTIVE, StreamStatus.STATE_STALE)
        while not (self._images.get_subscription_count() and self.status and self.status.state in active):
            if node.returncode is not None or time.monotonic() > deadline:
                raise RuntimeError(f"the perception node did not become active; its last lines:\n{node.tail()}")
            time.sleep(0.05)
        time.sleep(0.5)  # the other direction of discovery

    def wait_for_idle(self) -> StreamStatus:
        """The first status that was sent after the last result had come."""
        time.sleep(0.5)
        with self._news:
            self.status = None
            if not self._news.wait_for(lambda: self.status is not None, ANSWER_LIMIT_S):
                raise RuntimeError(f"no status came within {ANSWER_LIMIT_S:g} s")
            assert self.status is not None
            return self.status

    def _on_depth(self, depth: Image) -> None:
        now = time.perf_counter()
        with self._news:
            self.arrived[stamp_to_ns(depth.header.stamp)] = now
            self._news.notify_all()

    def _on_status(self, status: StreamStatus) -> None:
        with self._news:
            self.status = status
            self._news.notify_all()


@contextmanager
def _node(weights: str, threads: int) -> Iterator[Client]:
    """A perception process with `weights`, and a client connected to it."""
    parameters = {
        "weights": weights,
        "image_topic": "/camera/image_raw",
        "num_threads": threads,
        "exit_on_failure": True,
        "max_gap": 1000.0,  # this process is slow between two images, on purpose
    }
    with reserved_domain_id() as domain_id, ProcessGroup() as group:
        os.environ.update(loopback_environment(domain_id))
        node = group.start("perception", NODES["perception"].module, ros_parameters(**parameters))
        with spinning(Client) as client:
            client.wait_until_connected(node)
            yield client


def _percentiles(values: NDArray[np.float64]) -> dict[str, float]:
    if not values.size:
        return {}
    p50, p99 = np.percentile(values, (50, 99))
    return {"p50": round(float(p50), 2), "p99": round(float(p99), 2), "max": round(float(values.max()), 2)}


def _added_line(name: str, numbers: dict[str, dict[str, float]]) -> str:
    parts = [f"{part} {values['p50']:.1f} (p99 {values['p99']:.1f})" for part, values in numbers.items()]
    return f"{name} model, ms at p50: " + ", ".join(parts)


def _loss_line(loss: dict[str, Any]) -> str:
    delays = loss["end_to_end_ms"]
    times = f"end to end, ms: p50 {delays.get('p50')}, p99 {delays.get('p99')}"
    return (
        f"{loss['rate_hz']:g} Hz: {loss['sent']} images sent, {loss['lost']} lost, {loss['processed']} processed, "
        f"{loss['depth_images_back']} depth images back; {times}"
    )


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=150, metavar="N", help="images per model (default: %(default)s)")
    parser.add_argument(
        "--seconds", type=float, default=10.0, metavar="S", help="of streaming at 30 Hz (default: %(default)g)"
    )
    parser.add_argument("--weights", default="", metavar="PATH", help="measure this checkpoint too, or 'default'")
    parser.add_argument("--threads", type=int, default=0, metavar="N", help="of --weights (default: torch's choice)")
    parser.add_argument("--out", type=Path, default=Path("build/bench_node.json"), metavar="FILE")
    parser.add_argument(
        "--check", action="store_true", help=f"fail above {BUDGET_MS:g} ms at p50 or when an image is lost"
    )
    return parser


if __name__ == "__main__":
    # As for the node, see omnistream_perception; OpenMP reads it when it is loaded, which has happened by now.
    if "OMP_WAIT_POLICY" not in os.environ:
        os.execve(sys.executable, [sys.executable, *sys.orig_argv[1:]], os.environ | {"OMP_WAIT_POLICY": "PASSIVE"})
    sys.exit(main())
