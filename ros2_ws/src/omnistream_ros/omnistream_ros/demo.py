# SPDX-License-Identifier: Apache-2.0
"""`omnistream-up demo`: a camera process and a perception process stream a recording; this one listens and reports."""

from __future__ import annotations

import argparse
import os
import signal
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import omnistream
from omnistream.cli.report import write_report
from omnistream.errors import InputError, OmniStreamError
from omnistream.io import open_source
from omnistream_ros.demo_report import report, table, untrained
from omnistream_ros.domains import reserved_domain_id
from omnistream_ros.environment import MAX_DOMAIN_ID, loopback_environment
from omnistream_ros.processes import ChildProcess, ProcessGroup, ros_parameters
from omnistream_ros.recorder import Recorder
from omnistream_ros.running import spinning
from omnistream_ros.up import NODES

SHIPPED_RECORDING = Path(omnistream.__file__).parent / "assets" / "recording_room"
IMAGE_TOPIC = "/camera/image_raw"

START_LIMIT_S = 120.0
"""Loading a large model from a slow disk takes a while; more than this is a fault."""
STALL_LIMIT_S = 30.0
"""The camera runs and nothing has come back for so long: something hangs."""
QUIET_S = 0.8
"""No result for so long after the last image: the node is done, and its status, sent at 2 Hz, says so."""
DRAIN_LIMIT_S = 15.0


class DemoFailed(RuntimeError):
    """The demo cannot go on; the message is for the user."""


@dataclass(frozen=True)
class Recording:
    """What is going to be streamed."""

    path: str
    description: str
    size: tuple[int, int]
    """(height, width) of its first image."""
    rate: float

    @staticmethod
    def open(path: str, topic: str | None) -> Recording:
        """Looks at the first image. Raises InputError when there is none, or the recording cannot be read."""
        source = open_source(path, topic=topic, on_error="skip")
        first = next(iter(source), None)
        if first is None:
            raise InputError(f"{source.description}: none of its images can be read")
        return Recording(path, source.description, (first.image.shape[0], first.image.shape[1]), source.rate or 30.0)


def main(argv: Sequence[str] | None = None) -> int:
    """The command. Exit codes: 0 done; 1 something failed; 2 the input cannot be read; 130 interrupted."""
    words = list(sys.argv[1:] if argv is None else argv)
    split = words.index("--") if "--" in words else len(words)
    options = _parser().parse_args(words[:split])
    options.node_args = words[split + 1 :]
    previous = signal.signal(signal.SIGTERM, signal.default_int_handler)  # both end the children through `with`
    try:
        Demo(options, Recording.open(options.input, options.topic)).run()
    except OmniStreamError as error:
        print(f"demo: {error}", file=sys.stderr)
        return 2
    except DemoFailed as error:
        print(f"demo: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("demo: interrupted", file=sys.stderr)
        return 130
    finally:
        signal.signal(signal.SIGTERM, previous)
    return 0


class Demo:
    """One run, from the start of the processes to the written report."""

    def __init__(self, options: argparse.Namespace, recording: Recording) -> None:
        self._options = options
        self._recording = recording
        self._started = time.monotonic()
        self._out: Path = options.out
        self._group = ProcessGroup()

    def run(self) -> None:
        """Streams, reports, writes. Raises DemoFailed with the last lines of the process that failed."""
        try:
            self._out.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise InputError(f"--out is {self._out} ({error.strerror}); expected a folder, or a name for one") from None
        self._say(self._recording.description)
        domain = reserved_domain_id() if self._options.domain is None else nullcontext(self._options.domain)
        with domain as domain_id, (self._out / "nodes.log").open("w") as log, self._group:
            os.environ.update(loopback_environment(domain_id))
            os.environ.setdefault("ROS_LOG_DIR", str((self._out / "ros_log").absolute()))
            echo = sys.stdout if self._options.verbose else log
            self._say("starting the perception node and the camera")
            self._group.start("perception", NODES["perception"].module, self._perception_args(), echo=echo)
            camera = self._group.start("camera", NODES["camera"].module, self._camera_args(), echo=echo)
            with spinning(partial(Recorder, image_topic=IMAGE_TOPIC)) as recorder:
                self._wait(lambda: _is_active(recorder), "the activation of the perception node", START_LIMIT_S)
                self._say("streaming")
                recorder.watch_camera()
                self._stream(camera, recorder)
                self._wait(lambda: recorder.settled(QUIET_S), "the last results", DRAIN_LIMIT_S)
            if self._group.stop() != 0:
                raise DemoFailed(self._post_mortem("the end"))
        recorder.finish()
        self._say("writing")
        self._write(recorder)

    def _stream(self, camera: ChildProcess, recorder: Recorder) -> None:
        """Until the camera has ended by itself, or `--duration` is over."""
        began = time.monotonic()
        recorder.last_result = began
        while camera.returncode is None:
            self._check_children("the end of the recording")
            now = time.monotonic()
            if now - began > self._options.duration:
                self._say(f"stopping after {self._options.duration:g} s (--duration)")
                camera.send(signal.SIGINT)
                if camera.wait(5.0) is None:
                    raise DemoFailed("the camera does not stop")
            if recorder.settled(STALL_LIMIT_S):
                raise DemoFailed(f"nothing came back from the perception node for {STALL_LIMIT_S:g} s" + self._tails())
            time.sleep(0.05)
        self._check_children("the end of the recording")

    def _wait(self, condition: Callable[[], bool], what: str, limit_s: float) -> None:
        deadline = time.monotonic() + limit_s
        while not condition():
            self._check_children(what)
            if time.monotonic() > deadline:
                raise DemoFailed(f"waited {limit_s:g} s for {what}, in vain" + self._tails())
            time.sleep(0.05)

    def _check_children(self, what: str) -> None:
        if self._group.failed() is not None:
            raise DemoFailed(self._post_mortem(what))

    def _post_mortem(self, what: str) -> str:
        failed = self._group.failed()
        if failed is None:
            return f"a node ended badly before {what}" + self._tails()
        return (
            f"the {failed.name} process ended with exit code {failed.returncode} before {what}. "
            f"Its last lines:\n{failed.tail()}"
        )

    def _tails(self) -> str:
        return "".join(f"\nlast lines of {child.name}:\n{child.tail()}" for child in self._group.children)

    def _write(self, recorder: Recorder) -> None:
        numbers = report(recorder, self._recording.description, time.monotonic() - self._started)
        warning = untrained(numbers["model"]["scale"])
        from omnistream_ros.demo_pictures import write_pictures  # it loads torch, which would delay the start

        files, notes = write_pictures(recorder, self._out, self._recording.description)
        path = self._out / "report.json"
        numbers["note"] = warning
        numbers["files"] = [str(file) for file in (path, *files)]
        write_report(path, numbers)
        print(f"\n{table(numbers)}\n")
        if warning:
            print(f"{warning}\n")
        print("wrote         " + "\n              ".join(numbers["files"]))
        for note in notes:
            print(f"              {note}")

    def _perception_args(self) -> list[str]:
        height, width = self._recording.size
        rate = self._options.rate or self._recording.rate
        given = ros_parameters(
            weights=self._options.weights,
            image_topic=IMAGE_TOPIC,
            expected_image_size=[width, height],
            nominal_rate=float(rate),
            allow_relative=True,  # the report says what the scale is
        )
        return [*given, "--", *self._options.node_args]

    def _camera_args(self) -> list[str]:
        return ros_parameters(
            input=self._recording.path,
            bag_topic=self._options.topic or "",
            topic=IMAGE_TOPIC,
            rate=float(self._options.rate),
            ground_truth=True,
            wait_for_subscribers=2,  # the perception node and this process
        )

    def _say(self, sentence: str) -> None:
        print(f"[{time.monotonic() - self._started:5.1f} s] {sentence}", flush=True)


def _is_active(recorder: Recorder) -> bool:
    if recorder.fault:
        raise DemoFailed(f"the perception node cannot start: {recorder.fault}")
    return recorder.active.is_set()


def _positive(text: str) -> float:
    value = float(text)
    if not 0 < value < float("inf"):
        raise argparse.ArgumentTypeError(f"{text!r} is not a positive number")
    return value


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="omnistream-up demo",
        usage="omnistream-up demo [INPUT] [options] [-- arguments of the perception node]",
        description="Streams a recording through a camera node and the perception node, two ROS 2 processes on "
        "loopback, and reports rates, drops, latencies and memory.",
        epilog="examples: omnistream-up demo drive.mcap --topic /camera/image_raw    "
        "omnistream-up demo clip.mp4 -- --ros-args -p policy:=window:8",
        allow_abbrev=False,
    )
    parser.add_argument(
        "input",
        nargs="?",
        default=str(SHIPPED_RECORDING),
        metavar="INPUT",
        help="video, folder of images, or rosbag2 (default: the recording that comes with OmniStream)",
    )
    parser.add_argument("--topic", help="image topic of a rosbag2 that has several")
    parser.add_argument("--out", type=Path, default=Path("build/demo"), metavar="DIR", help="default: %(default)s")
    parser.add_argument("--rate", type=_positive, default=0.0, metavar="HZ", help="default: the recording's own")
    parser.add_argument(
        "--duration", type=_positive, default=120.0, metavar="S", help="stream at most so long (default: %(default)g)"
    )
    parser.add_argument(
        "--domain",
        type=int,
        choices=range(MAX_DOMAIN_ID + 1),
        metavar="N",
        help=f"ROS_DOMAIN_ID, 0..{MAX_DOMAIN_ID} (default: a free one)",
    )
    parser.add_argument("--weights", default="default", metavar="PATH", help="checkpoint (default: %(default)s)")
    parser.add_argument(
        "--verbose", action="store_true", help="show what the nodes print (else it is in DIR/nodes.log)"
    )
    return parser


if __name__ == "__main__":
    sys.exit(main())
