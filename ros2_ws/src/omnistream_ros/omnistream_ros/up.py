# SPDX-License-Identifier: Apache-2.0
"""`omnistream-up`: starts OmniStream's nodes as processes, without `ros2 launch`."""

from __future__ import annotations

import argparse
import os
import signal
import sys
import threading
import time
from collections.abc import Sequence

from omnistream_ros.environment import loopback_environment, robot_environment
from omnistream_ros.nodes import NODES, is_installed
from omnistream_ros.processes import ProcessGroup, leave

GRACE_S = 6.0
"""Seconds that nodes get to end by themselves after SIGINT."""


EXIT_ON_FAILURE = ("--ros-args", "-p", "exit_on_failure:=true", "--")
DEMO = "demo"

DESCRIPTION = """\
Starts OmniStream's nodes, each as a process of its own, with the environment that lets images through.

nodes:
{nodes}
  demo        simulator (or a recording) and perception together, with a report

examples:
  omnistream-up camera --ros-args -p input:=clip.mp4 -p loop:=true
  omnistream-up perception --ros-args --params-file perception.yaml -r image_raw:=/camera/image_raw
  omnistream-up camera --ros-args -p input:=clip.mp4 + perception --ros-args -p weights:=model.safetensors
  omnistream-up simulator + perception --ros-args -p image_topic:=/wrist/image_raw
  omnistream-up demo
  omnistream-up demo clip.mp4
  omnistream-up camera --help          what a node takes

Everything after the name of a node goes to that node; a single + starts the next one.
After --ros-args come the usual things of ROS 2: -p name:=value, --params-file file, -r from:=to,
-r __ns:=/robot1, --log-level debug.

Output is prefixed with the name of the node. Ctrl-C ends all of them. When one fails, the others are
stopped; the exit code is the worst of all.
"""


def main(argv: Sequence[str] | None = None) -> int:
    """The command; returns its exit code."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    first_node = next((i for i in range(len(arguments)) if _starts_nodes(arguments, i)), len(arguments))
    parser = _parser()
    options = parser.parse_args(arguments[:first_node])
    words = arguments[first_node:]
    if words[:1] == [DEMO] and "+" not in words:  # it starts nodes itself, in a domain of its own
        if options.timeout or options.network not in (None, "loopback"):
            parser.error("the demo stays on loopback and ends by itself; of these options only --domain is for it")
        if options.domain is not None:
            words[1:1] = ["--domain", str(options.domain)]
        try:
            from omnistream_ros import demo
        except ModuleNotFoundError as error:  # most likely the built messages
            print(f"omnistream-up: the demo needs the module {error.name}; run `make setup`", file=sys.stderr)
            return 1
        code = demo.main(words[1:])
        if argv is None:  # this is the process's last act
            leave(code)
        return code
    try:
        commands = split_commands(words)
        environment = {**os.environ, **_variables(options.network, options.domain)}
    except ValueError as error:
        parser.error(str(error))
    if not commands:
        parser.print_help()
        return 2
    return run(commands, environment, timeout=options.timeout)


def split_commands(words: Sequence[str]) -> list[tuple[str, list[str]]]:
    """``camera a b + perception c`` -> [("camera", ["a", "b"]), ("perception", ["c"])].

    Raises:
        ValueError: a name that is not one of `NODES`, or nothing between two +.
    """
    commands: list[tuple[str, list[str]]] = []
    group: list[str] = []
    for word in [*words, "+"] if words else []:
        if word != "+":
            group.append(word)
            continue
        if not group:
            raise ValueError("nothing stands before a '+'; expected the name of a node and its arguments")
        if group[0] == DEMO:
            raise ValueError("demo starts its nodes itself; expected it alone, without a '+'")
        if group[0] not in NODES:
            raise ValueError(f"unknown node {group[0]!r}; expected one of {', '.join([*NODES, DEMO])}")
        commands.append((group[0], group[1:]))
        group = []
    return commands


def run(commands: Sequence[tuple[str, Sequence[str]]], environment: dict[str, str], timeout: float = 0.0) -> int:
    """Starts the nodes and stays until all have ended, one has failed, a signal comes or `timeout` seconds are over.

    Returns:
        The worst exit code of the nodes; 124 after a timeout.
    """
    for name, _ in commands:
        if not is_installed(NODES[name].module):
            print(f"omnistream-up: {name} is not installed (module {NODES[name].module})", file=sys.stderr)
            return 1
    stop = threading.Event()
    previous = {number: signal.signal(number, lambda *_: stop.set()) for number in (signal.SIGINT, signal.SIGTERM)}
    deadline = time.monotonic() + timeout if timeout > 0 else None
    try:
        with ProcessGroup(GRACE_S) as group:
            for label, (name, args) in zip(_labels([name for name, _ in commands]), commands, strict=True):
                words = [*EXIT_ON_FAILURE, *args] if NODES[name].managed else args
                group.start(label, NODES[name].module, words, env=environment, echo=sys.stdout)
            while not stop.wait(0.1):
                if (failed := group.failed()) is not None:
                    if len(group.children) > 1:
                        print(f"[{failed.name}] ended with exit code {failed.returncode}; stopping the others")
                    return group.stop()
                if all(child.returncode is not None for child in group.children):
                    return group.stop()
                if deadline is not None and time.monotonic() > deadline:
                    print(f"omnistream-up: {timeout:g} s are over (--timeout); stopping", file=sys.stderr)
                    return group.stop() or 124
            return group.stop()
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


def _parser() -> argparse.ArgumentParser:
    nodes = "\n".join(f"  {name:<12}{node.summary}" for name, node in NODES.items())
    parser = argparse.ArgumentParser(
        prog="omnistream-up",
        usage="omnistream-up [options] NODE [arguments] [+ NODE [arguments]]...",
        description=DESCRIPTION.format(nodes=nodes),
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument(
        "--domain", type=int, metavar="N", help="ROS_DOMAIN_ID of the nodes, 0..101 (default: unchanged)"
    )
    parser.add_argument(
        "--network",
        choices=("loopback", "robot", "keep"),
        help="loopback: nothing leaves this machine; robot: the subnet, with buffers for images; keep: leave discovery "
        "and DDS profile as they are. Default: loopback where ROS_AUTOMATIC_DISCOVERY_RANGE=LOCALHOST is set, else "
        "robot. A DDS profile of your own is always respected.",
    )
    parser.add_argument("--timeout", type=float, default=0.0, metavar="S", help="stop everything after S seconds")
    return parser


def _variables(network: str | None, domain: int | None) -> dict[str, str]:
    if network is None:
        network = "loopback" if os.environ.get("ROS_AUTOMATIC_DISCOVERY_RANGE") == "LOCALHOST" else "robot"
    if network == "loopback":
        return loopback_environment(domain)
    if network == "robot":
        return robot_environment(domain)
    return {} if domain is None else {"ROS_DOMAIN_ID": str(domain)}


def _starts_nodes(arguments: Sequence[str], index: int) -> bool:
    """Whether the word is the first that is neither an option of ours nor the value of one."""
    is_value = index > 0 and arguments[index - 1] in ("--domain", "--network", "--timeout")
    return not arguments[index].startswith("-") and not is_value


def _labels(names: Sequence[str]) -> list[str]:
    """Names made different: camera, camera -> camera, camera2."""
    seen = [names[:i].count(name) for i, name in enumerate(names)]
    return [f"{name}{before + 1}" if before else name for name, before in zip(names, seen, strict=True)]


if __name__ == "__main__":
    sys.exit(main())
