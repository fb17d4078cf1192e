#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""How even the policy node's commands are while it thinks, and how soon it stands still when something goes wrong.

    make bench-policy-node                     # or: .venv/bin/python tools/bench_policy_node.py --check

Two processes: this one shows pictures at the control rate and hears the commands, the node is the other (with two
faults that only its inside can have, tools/bench_policy_faults.py). Its policy has random weights; the backbone is of
the size that is asked for, so that inference takes as long as a real one's.

Jitter: how far the times between two commands that arrive here are from the control period, transport included. Beside
it: how late this machine lets a thread go on that does nothing but sleep. Where that is late, so is everybody.
Time to stop: from the fault to the arrival of the stop command, many times each:

    stop        ~/stop is called
    estop       the e-stop topic says true
    camera      the camera falls silent; counted from the end of max_observation_age, which is waited for on purpose
    frozen      the camera shows one picture again and again; counted from the one that is once too often (frozen_after)
    instruction the instruction is taken back
    rival       somebody else begins to publish commands; its discovery is counted
    nan         the network's weights become NaN; the next picture and its inference are counted
    inference   one inference takes 500 ms longer; counted from the end of inference_deadline
    stall       the process is halted for longer than max_tick_gap; counted from its first chance to act

Results go to build/bench_policy_node.json, with machine, versions and commit.
"""

from __future__ import annotations

import argparse
import gc
import math
import os
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from bench_policy_faults import WORDS
from bench_policy_robot import FROZEN_AFTER, RATE, Client, make_policy, percentiles
from geometry_msgs.msg import TwistStamped
from std_msgs.msg import Bool

from omnistream_msgs.msg import PolicyStatus
from omnistream_ros.domains import reserved_domain_id
from omnistream_ros.environment import loopback_environment
from omnistream_ros.processes import ChildProcess, ProcessGroup, ros_parameters
from omnistream_ros.running import spinning

JITTER_SHARE = 0.2
"""Of the control period, at p99."""
STOP_MARGIN_MS = 50.0
"""Beyond one control period, at p99."""
MAX_AGE = 0.3
MAX_GAP = 0.2
DEADLINE = 0.25
LIMIT_S = 120.0


def main(argv: Sequence[str] | None = None) -> int:
    """Measures; returns 1 with --check when a limit is not kept."""
    options = _parser().parse_args(argv)
    from omnistream.cli.report import environment, write_report

    with tempfile.TemporaryDirectory() as folder, _node(Path(folder), options.model) as (client, node):
        client.run()
        jitter, machine = client.jitter(options.seconds)
        latencies = {stage.stage: stage.p50_ms for stage in client.status.latencies} if client.status else {}
        stops = {name: measure(client, node, options.repeats) for name, measure in FAULTS.items()}
    period = 1e3 / RATE
    limits = {"jitter_p99_ms": JITTER_SHARE * period, "stop_p99_ms": period + STOP_MARGIN_MS}
    numbers: dict[str, Any] = {
        "rate_hz": RATE, "backbone": options.model, "jitter_ms": jitter, "machine_late_ms": machine,
        "time_to_stop_ms": stops,
        "node_p50_ms": {name: round(value, 2) for name, value in latencies.items()}, "limits": limits,
    }  # fmt: skip
    write_report(options.out, numbers | {"load": os.getloadavg()[0], "environment": environment()})
    print(f"{RATE:g} Hz, backbone {options.model}, vision {latencies.get('vision', float('nan')):.1f} ms, load "
          f"{os.getloadavg()[0]:.1f} on {os.cpu_count()} cores")  # fmt: skip
    print(f"jitter, ms: p50 {jitter['p50']}, p99 {jitter['p99']}, max {jitter['max']} of {period:g}; {jitter['count']} "
          "commands")  # fmt: skip
    print(f"one who only sleeps goes on so late here, ms: p50 {machine['p50']}, p99 {machine['p99']}, max "
          f"{machine['max']}")  # fmt: skip
    for name, values in stops.items():
        print(f"time to stop, {name}, ms: p50 {values['p50']}, p99 {values['p99']}, max {values['max']}")
    print(f"wrote {options.out}")
    kept = jitter["p99"] <= limits["jitter_p99_ms"] and all(
        values["p99"] <= limits["stop_p99_ms"] for values in stops.values()
    )
    if options.check and not kept:
        allowed = ", ".join(f"{name} {value:g}" for name, value in limits.items())
        print(f"expected at most {allowed}", file=sys.stderr)
        return 1
    return 0


def _stop(client: Client, _node: ChildProcess, repeats: int) -> dict[str, float]:
    found = []
    for _ in range(repeats):
        client.run()
        client.heard.clear()
        begin = time.monotonic()
        client.call("stop")
        found.append(client.stopped_after(begin))
    return percentiles(np.array(found))


def _estop(client: Client, _node: ChildProcess, repeats: int) -> dict[str, float]:
    found = []
    for _ in range(repeats):
        client.run()
        client.heard.clear()
        begin = time.monotonic()
        client.estop.publish(Bool(data=True))
        found.append(client.stopped_after(begin))
        client.estop.publish(Bool(data=False))
        while not client.call("clear_estop").success:
            time.sleep(0.02)
    return percentiles(np.array(found))


def _camera(client: Client, _node: ChildProcess, repeats: int) -> dict[str, float]:
    client.run()
    found = []
    for _ in range(repeats):
        client.moving()
        client.showing.clear()
        time.sleep(1 / RATE)
        found.append(client.stopped_after(client.last_shown + MAX_AGE))
        client.showing.set()
        client.heard.clear()
    return percentiles(np.array(found))


def _frozen(client: Client, _node: ChildProcess, repeats: int) -> dict[str, float]:
    client.run()
    found = []
    for _ in range(repeats):
        client.moving()
        client.frozen.set()
        client.wait(lambda: client.frozen_since < math.inf, f"{FROZEN_AFTER} pictures")
        found.append(client.stopped_after(client.frozen_since))
        client.frozen.clear()
        client.heard.clear()
    return percentiles(np.array(found))


def _instruction(client: Client, _node: ChildProcess, repeats: int) -> dict[str, float]:
    found = []
    for _ in range(repeats):
        client.run()
        client.heard.clear()
        begin = time.monotonic()
        client.instruct("")
        found.append(client.stopped_after(begin))
    return percentiles(np.array(found))


def _rival(client: Client, _node: ChildProcess, repeats: int) -> dict[str, float]:
    client.run()
    found = []
    for _ in range(repeats):
        client.moving()
        begin = time.monotonic()
        rival = client.create_publisher(TwistStamped, "/policy/twist", 1)
        found.append(client.stopped_after(begin))
        client.destroy_publisher(rival)
        client.heard.clear()
        while not client.call("start").success:
            time.sleep(0.02)
    return percentiles(np.array(found))


def _nan(client: Client, node: ChildProcess, repeats: int) -> dict[str, float]:
    client.run()
    found = []
    for _ in range(repeats):
        client.moving()
        begin = time.monotonic()
        node.send(signal.SIGUSR1)
        found.append(client.stopped_after(begin))
        node.send(signal.SIGUSR1)
        time.sleep(0.2)
        client.heard.clear()
        client.call("start")
    return percentiles(np.array(found))


def _inference(client: Client, node: ChildProcess, repeats: int) -> dict[str, float]:
    client.run()
    found = []
    for _ in range(repeats):
        client.moving()
        known = len(_stalls(node))
        node.send(signal.SIGUSR2)
        client.wait(lambda: len(_stalls(node)) > known, "an inference")  # noqa: B023
        found.append(client.stopped_after(_stalls(node)[-1] + DEADLINE))
        client.heard.clear()
    return percentiles(np.array(found))


def _stalls(node: ChildProcess) -> list[float]:
    """Steady times at which an inference was held up."""
    return [float(line.removeprefix(WORDS)) for line in node.lines() if line.startswith(WORDS)]


def _stall(client: Client, node: ChildProcess, repeats: int) -> dict[str, float]:
    found = []
    for _ in range(repeats):
        client.wait_for_motion()
        node.send(signal.SIGSTOP)
        time.sleep(2 * MAX_GAP)
        client.heard.clear()
        begin = time.monotonic()
        node.send(signal.SIGCONT)
        found.append(client.stopped_after(begin))
        client.heard.clear()
    return percentiles(np.array(found))


FAULTS: dict[str, Callable[[Client, ChildProcess, int], dict[str, float]]] = {
    "stop": _stop,
    "estop": _estop,
    "camera": _camera,
    "frozen": _frozen,
    "instruction": _instruction,
    "rival": _rival,
    "nan": _nan,
    "inference": _inference,
    "stall": _stall,
}


@contextmanager
def _node(folder: Path, model: str) -> Iterator[tuple[Client, ChildProcess]]:
    """A policy process, and a client connected to it."""
    parameters = {
        "policy": str(make_policy(folder, model)),
        "weights": str(folder / "weights"),
        "image_topic": "/{camera}/image_raw",
        "action_scale": [0.02, 0.02, 0.02, 0.05, 0.05, 0.05],
        "max_observation_age": MAX_AGE,
        "max_tick_gap": MAX_GAP,
        "inference_deadline": DEADLINE,
        "frozen_after": FROZEN_AFTER,
        "ramp": 0.0,
        "status_rate": 10.0,
        "exit_on_failure": True,
    }
    with reserved_domain_id() as domain_id, ProcessGroup() as group:
        os.environ.update(loopback_environment(domain_id))
        path = os.pathsep.join(filter(None, (str(Path(__file__).parent), os.environ.get("PYTHONPATH"))))
        environment = {**os.environ, "PYTHONPATH": path}
        node = group.start("policy", "bench_policy_faults", ros_parameters(**parameters), env=environment, keep=2000)
        with spinning(Client) as client:
            end = time.monotonic() + LIMIT_S
            while client.status is None or client.status.state != PolicyStatus.STATE_DISABLED:
                if node.returncode is not None or time.monotonic() > end:
                    raise RuntimeError(f"the policy node did not become active; its last lines:\n{node.tail()}")
                time.sleep(0.05)
            time.sleep(0.5)  # the other direction of discovery
            gc.collect()  # as the node does: a full collection in this process would count as the node's delay
            gc.freeze()
            yield client, node


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="tiny", help="preset of the backbone (default: %(default)s)")
    parser.add_argument("--seconds", type=float, default=30.0, help="of commands for the jitter (default: %(default)g)")
    parser.add_argument("--repeats", type=int, default=20, metavar="N", help="of each fault (default: %(default)s)")
    parser.add_argument("--out", type=Path, default=Path("build/bench_policy_node.json"), metavar="FILE")
    parser.add_argument("--check", action="store_true", help="fail when a limit is not kept")
    return parser


if __name__ == "__main__":
    sys.exit(main())
