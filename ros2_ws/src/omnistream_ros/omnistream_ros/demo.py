# SPDX-License-Identifier: Apache-2.0
"""`omnistream-up demo`: the simulator (or a recording) and the perception node as two processes; this one listens, and
reports what came back against the truth. Then, with a policy, the simulated robot is told what to do (`demo_tasks`)."""

from __future__ import annotations

import argparse
import os
import signal
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack, nullcontext
from functools import partial
from pathlib import Path
from typing import Any, TextIO

from omnistream.cli.report import write_report
from omnistream.errors import InputError, OmniStreamError
from omnistream.policy.default import DEFAULT, DEFAULT_POLICY
from omnistream_ros.demo_children import DemoChildren, DemoFailed
from omnistream_ros.demo_pace import measured_rate
from omnistream_ros.demo_report import report, table, untrained
from omnistream_ros.demo_sources import SHIPPED_RECORDING, SIMULATOR, Source, missing_physics, recording, simulator
from omnistream_ros.demo_tasks import PATIENCE_S, TRIAL_FACTOR, TaskDemo
from omnistream_ros.domains import reserved_domain_id
from omnistream_ros.environment import MAX_DOMAIN_ID, loopback_environment
from omnistream_ros.nodes import NODES
from omnistream_ros.processes import ChildProcess, ros_parameters
from omnistream_ros.recorder import Recorder
from omnistream_ros.running import spinning
from omnistream_ros.tabletop_robot import TabletopRobot, open_robot

START_LIMIT_S = 120.0
"""Loading a large model from a slow disk takes a while; more than this is a fault."""
STALL_LIMIT_S = 30.0
"""The camera runs and nothing has come back for so long: something hangs."""
QUIET_S = 0.8
"""No result for so long after the last image: the node is done, and its status, sent at 2 Hz, says so."""
DRAIN_LIMIT_S = 15.0
GRACE_S = 15.0
"""Until nodes that were asked to end are made to: on a busy machine an interpreter takes seconds to go."""
RECORDING_S, SIMULATOR_S = 120.0, 25.0
"""Streaming stops after so many seconds: on a slow machine the simulator then shows fewer frames."""
NO_POLICY = "none"
LONGEST_GAP_S = 5.0
"""Between two images of the simulator, which a busy machine may slow down; a real camera's gaps mean something."""


def main(argv: Sequence[str] | None = None) -> int:
    """The command. Exit codes: 0 done; 1 something failed; 2 the input cannot be read; 130 interrupted."""
    words = list(sys.argv[1:] if argv is None else argv)
    split = words.index("--") if "--" in words else len(words)
    options = _parser().parse_args(words[:split])
    options.node_args = words[split + 1 :]
    previous = signal.signal(signal.SIGTERM, signal.default_int_handler)  # both end the children through `with`
    try:
        Demo(options, choose_source(options), choose_robot(options)).run()
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


def choose_source(options: argparse.Namespace) -> Source:
    """What the words ask for. Without any: the simulator, or where it cannot run the recording that is shipped.

    Raises:
        InputError: it cannot be read, or cannot run here.
    """
    if options.input == SIMULATOR or (options.input is None and not (missing := missing_physics())):
        return simulator(options.seed, options.scene, options.rate)
    if options.input is not None:
        return recording(options.input, options.topic, options.rate)
    print(f"demo: the simulator needs {missing}: the recording that comes with OmniStream is streamed instead")
    return recording(str(SHIPPED_RECORDING), rate=options.rate)


def choose_robot(options: argparse.Namespace) -> TabletopRobot | None:
    """Of the second part, where there is one.

    Raises:
        OmniStreamError: the policy that was asked for is not there, or is that of another robot.
        InputError: the simulator cannot run here.
    """
    if options.policy == NO_POLICY or (options.policy is None and not DEFAULT_POLICY.is_dir()):
        return None
    if missing := missing_physics():
        if options.policy is None:
            return None
        raise InputError(f"--policy: the simulated robot needs {missing}: pip install 'omnistream[sim]'")
    if options.policy is None and options.input not in (None, SIMULATOR):
        return None  # who brings a recording is asking about perception
    return open_robot(
        options.policy or DEFAULT,
        options.weights,
        sim_time=True,
        factor=TRIAL_FACTOR,
        patience=PATIENCE_S,
        task_time=options.task_time,
    )


class Demo:
    """One run, from the start of the processes to the written report."""

    def __init__(self, options: argparse.Namespace, source: Source, robot: TabletopRobot | None = None) -> None:
        self._options = options
        self._source = source
        self._robot = robot
        self._started = time.monotonic()
        self._out: Path = options.out
        self._group = DemoChildren(GRACE_S)

    def run(self) -> None:
        """Streams, reports, writes. Raises DemoFailed with the last lines of the process that failed."""
        try:
            self._out.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise InputError(f"--out is {self._out} ({error.strerror}); expected a folder, or a name for one") from None
        self._say(self._source.description)
        domain = reserved_domain_id() if self._options.domain is None else nullcontext(self._options.domain)
        with domain as domain_id, (self._out / "nodes.log").open("w") as log, ExitStack() as stack:
            stack.enter_context(self._group)
            os.environ.update(loopback_environment(domain_id))
            os.environ.setdefault("ROS_LOG_DIR", str((self._out / "ros_log").absolute()))
            echo = sys.stdout if self._options.verbose else log
            self._say(f"starting the perception node and the {self._source.name}")
            self._group.start("perception", NODES["perception"].module, self._perception_args(), echo=echo)
            source, words = self._source, self._source.arguments
            camera = self._group.start(source.name, source.module, words, echo=echo)
            make_recorder = partial(Recorder, image_topic=source.image_topic, camera=f"/{source.name}")
            with spinning(make_recorder) as recorder:
                self._wait(lambda: _is_active(recorder), "the activation of the perception node", START_LIMIT_S)
                self._say("streaming")
                recorder.watch_camera()
                self._stream(camera, recorder)
                self._wait(lambda: recorder.settled(QUIET_S), "the last results", DRAIN_LIMIT_S)
            if self._group.stop() != 0:
                raise DemoFailed(self._group.post_mortem("the end"))
            tasks = self._open_tasks(recorder, echo)
            if tasks is not None:
                stack.enter_context(tasks).start()  # they take seconds, which the pictures take, too
            recorder.finish()
            self._say("writing")
            numbers = self._write(recorder)
            if tasks is not None:
                tasks.run()
                self._write_tasks(tasks, numbers)

    def _open_tasks(self, recorder: Recorder, echo: TextIO) -> TaskDemo | None:
        """The second part; None, with a sentence, where there is none."""
        robot = self._robot
        if robot is None:
            if self._options.policy is None and self._source.name == SIMULATOR:
                self._say("no policy is shipped yet: the robot is not told to do anything (--policy DIR for yours)")
            return None
        backbone = robot.contract.backbone
        if backbone is not None and backbone != recorder.backbone and self._options.policy is None:
            self._say(
                "the shipped policy was trained on other weights than these: the robot is not told to do anything"
            )
            return None
        shared = ", on the backbone that perception runs" if backbone and backbone == recorder.backbone else ""
        self._say(f"starting the robot: simulator, perception, and the policy {robot.policy}{shared}")
        return TaskDemo(robot, self._say, echo, GRACE_S)

    def _stream(self, camera: ChildProcess, recorder: Recorder) -> None:
        """Until the camera has ended by itself, or `--duration` is over."""
        began = time.monotonic()
        recorder.last_result = began
        pace_is_set = not self._source.paced
        while camera.returncode is None:
            if not pace_is_set and (rate := measured_rate(recorder)) is not None:
                recorder.set_parameter(f"/{self._source.name}", "real_time_factor", rate / self._source.rate)
                self._say(f"this machine keeps up with {rate:.1f} Hz: that is the pace from here on")
                pace_is_set = True
            self._group.check("the end of the recording")
            now = time.monotonic()
            limit_s = self._options.duration or (SIMULATOR_S if self._source.name == SIMULATOR else RECORDING_S)
            if now - began > limit_s:
                self._say(f"stopping after {limit_s:g} s (--duration)")
                camera.send(signal.SIGINT)
                if camera.wait(5.0) is None:
                    raise DemoFailed("the camera does not stop")
            if recorder.settled(STALL_LIMIT_S):
                raise DemoFailed(
                    f"nothing came back from the perception node for {STALL_LIMIT_S:g} s" + self._group.tails()
                )
            time.sleep(0.05)
        self._group.check("the end of the recording")

    def _wait(self, condition: Callable[[], bool], what: str, limit_s: float) -> None:
        deadline = time.monotonic() + limit_s
        while not condition():
            self._group.check(what)
            if time.monotonic() > deadline:
                raise DemoFailed(f"waited {limit_s:g} s for {what}, in vain" + self._group.tails())
            time.sleep(0.05)

    def _write(self, recorder: Recorder) -> dict[str, Any]:
        numbers = report(recorder, self._source.description, time.monotonic() - self._started)
        warning = untrained(numbers["model"]["scale"])
        from omnistream_ros.demo_pictures import write_pictures  # it loads torch, which would delay the start

        files, notes = write_pictures(recorder, self._out, self._source.description)
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
        return numbers

    def _write_tasks(self, tasks: TaskDemo, numbers: dict[str, Any]) -> None:
        """Adds what the robot did to the report, and draws it."""
        from omnistream_ros.demo_task_sheet import write_task_sheet

        found = numbers["tasks"] = tasks.numbers()
        score = f"{found['solved']} of {found['told']} tasks solved"
        sheet, path = self._out / "tasks.png", self._out / "report.json"
        name = "the shipped policy" if self._options.policy in (None, DEFAULT) else f"policy {self._options.policy}"
        about = f"{name}, told in words over ROS 2, at {tasks.factor:.2g} of real time"
        write_task_sheet(sheet, tasks.attempts, score, about)
        numbers["files"].append(str(sheet))
        numbers["elapsed_s"] = round(time.monotonic() - self._started, 2)
        write_report(path, numbers)
        print(f"\n{score}: too few to be a measurement (make bench-policy-loop)\n\nwrote         {sheet}")

    def _perception_args(self) -> list[str]:
        height, width = self._source.size
        given = ros_parameters(
            weights=self._options.weights,
            image_topic=self._source.image_topic,
            expected_image_size=[width, height],
            nominal_rate=float(self._options.rate or self._source.rate),
            max_gap=LONGEST_GAP_S if self._source.name == SIMULATOR else 1.0,
            allow_relative=True,  # the report says what the scale is
        )
        return [*given, "--", *self._options.node_args]

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
        description="Streams the simulator's free camera (or a recording) through the perception node, two ROS 2 "
        "processes on loopback, and reports errors against the truth, rates, drops, latencies and memory. Then, where "
        "there is a policy, tells the simulated robot what to do, and whether it was done.",
        epilog="examples: omnistream-up demo --scene random --seed 7    "
        "omnistream-up demo drive.mcap --topic /camera/image_raw    "
        "omnistream-up demo clip.mp4 -- --ros-args -p policy:=window:8",
        allow_abbrev=False,
    )
    parser.add_argument(
        "input",
        nargs="?",
        metavar="INPUT",
        help="video, folder of images, or rosbag2; or 'simulator', which is the default where PyBullet is installed "
        "(else: the recording that comes with OmniStream)",
    )
    parser.add_argument("--topic", help="image topic of a rosbag2 that has several")
    parser.add_argument("--out", type=Path, default=Path("build/demo"), metavar="DIR", help="default: %(default)s")
    parser.add_argument(
        "--rate",
        type=_positive,
        default=0.0,
        metavar="HZ",
        help="images per second (default: the recording's own; of the simulator, what this machine keeps up with)",
    )
    parser.add_argument("--seed", type=int, metavar="N", help="of the simulator's clip (default: one never trained on)")
    parser.add_argument("--scene", choices=("shipped", "random"), default="shipped", help="of the simulator")
    parser.add_argument(
        "--duration",
        type=_positive,
        default=0.0,
        metavar="S",
        help=f"stream at most so long (default: {RECORDING_S:g}; the simulator {SIMULATOR_S:g})",
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
        "--policy",
        metavar="DIR",
        help="what the simulated robot is to act by, in the second part: a policy's folder, trained on these weights; "
        f"{DEFAULT!r}; or {NO_POLICY!r} to leave it out (default: the shipped one, where there is one)",
    )
    parser.add_argument(
        "--task-time",
        type=_positive,
        default=6.0,
        metavar="S",
        help="simulated seconds that the robot has for each task (default: %(default)g; evaluations give it 8)",
    )
    parser.add_argument(
        "--verbose", action="store_true", help="show what the nodes print (else it is in DIR/nodes.log)"
    )
    return parser


if __name__ == "__main__":
    sys.exit(main())
