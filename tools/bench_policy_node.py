#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""How even the policy node's commands are while it thinks, and how soon it stands still when something goes wrong.

    make bench-policy-node                     # or: .venv/bin/python tools/bench_policy_node.py --check

Two processes: this one shows pictures at the control rate and hears the commands, the node is the other. Its policy has
random weights; the backbone is of the size that is asked for, so that inference takes as long as a real one's.

Jitter: how far the times between two commands that arrive here are from the control period, transport included.
Time to stop: from the fault to the arrival of the stop command, many times each:

    stop        ~/stop is called
    estop       the e-stop topic says true
    camera      the camera falls silent; counted from the end of max_observation_age, which is waited for on purpose
    stall       the process is halted for longer than max_tick_gap; counted from its first chance to act

Results go to build/bench_policy_node.json, with machine, versions and commit.
"""

from __future__ import annotations

import argparse
import dataclasses
import itertools
import os
import signal
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from geometry_msgs.msg import TwistStamped
from numpy.typing import NDArray
from rclpy.node import Node
from sensor_msgs.msg import Image
from std_msgs.msg import Bool, Header
from std_srvs.srv import Trigger

from omnistream.contract import Action, Camera, Contract, Dimension, Gripper, Statistics
from omnistream.policy.checkpoint import LoadedPolicy, save_policy
from omnistream.policy.config import PolicyShape, preset
from omnistream.policy.network import PolicyNetwork
from omnistream.policy.scaling import scaling_from
from omnistream.policy.tokens import WordTokens
from omnistream.policy.vision import feature_size, grid_of
from omnistream_msgs.msg import PolicyStatus
from omnistream_msgs.srv import SetInstruction
from omnistream_ros.domains import reserved_domain_id
from omnistream_ros.environment import loopback_environment
from omnistream_ros.images import image_message
from omnistream_ros.processes import ChildProcess, ProcessGroup, ros_parameters
from omnistream_ros.qos import qos_profile
from omnistream_ros.running import spinning
from omnistream_ros.up import NODES

RATE = 20.0
SIZE = 128
JITTER_SHARE = 0.2
"""Of the control period, at p99."""
STOP_MARGIN_MS = 50.0
"""Beyond one control period, at p99."""
MAX_AGE = 0.3
MAX_GAP = 0.2
LIMIT_S = 120.0
INSTRUCTION = "open the drawer"


def main(argv: Sequence[str] | None = None) -> int:
    """Measures; returns 1 with --check when a limit is not kept."""
    options = _parser().parse_args(argv)
    from omnistream.cli.report import environment, write_report

    with tempfile.TemporaryDirectory() as folder, _node(Path(folder), options.model) as (client, node):
        client.run()
        jitter = client.jitter(options.seconds)
        latencies = {stage.stage: stage.p50_ms for stage in client.status.latencies} if client.status else {}
        stops = {
            name: measure(client, node, options.repeats)
            for name, measure in (("stop", _stop), ("estop", _estop), ("camera", _camera), ("stall", _stall))
        }
    period = 1e3 / RATE
    limits = {"jitter_p99_ms": JITTER_SHARE * period, "stop_p99_ms": period + STOP_MARGIN_MS}
    numbers: dict[str, Any] = {
        "rate_hz": RATE, "backbone": options.model, "jitter_ms": jitter, "time_to_stop_ms": stops,
        "node_p50_ms": {name: round(value, 2) for name, value in latencies.items()}, "limits": limits,
    }  # fmt: skip
    write_report(options.out, numbers | {"load": os.getloadavg()[0], "environment": environment()})
    print(f"{RATE:g} Hz, backbone {options.model}, vision {latencies.get('vision', float('nan')):.1f} ms, load "
          f"{os.getloadavg()[0]:.1f} on {os.cpu_count()} cores")  # fmt: skip
    print(f"jitter, ms: p50 {jitter['p50']}, p99 {jitter['p99']}, max {jitter['max']} of {period:g}; {jitter['count']} "
          "commands")  # fmt: skip
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


class Client(Node):
    """The robot: pictures out of a thread of its own, commands in."""

    def __init__(self) -> None:
        super().__init__("bench")
        self.status: PolicyStatus | None = None
        self.heard: list[tuple[float, bool]] = []
        """(steady time, whether it moves) of each command."""
        self.showing = threading.Event()
        self.last_shown = 0.0
        self._news = threading.Condition()
        self._images = self.create_publisher(Image, "/front/image_raw", qos_profile("sensor"))
        self.estop = self.create_publisher(Bool, "/policy/estop", qos_profile("latched"))
        self.create_subscription(TwistStamped, "/policy/twist", self._on_twist, qos_profile("reliable:100"))
        self.create_subscription(PolicyStatus, "/policy/status", self._on_status, qos_profile("latched"))
        names = ("start", "stop", "clear_estop")
        self.services: Any  # of rclpy's Node
        self._calls: dict[str, Any] = {name: self.create_client(Trigger, f"/policy/{name}") for name in names}
        self._told = self.create_client(SetInstruction, "/policy/set_instruction")
        threading.Thread(target=self._show, daemon=True).start()

    def call(self, name: str) -> Any:
        """A Trigger service of the node."""
        return self._answer(self._calls[name].call_async(Trigger.Request()))

    def run(self) -> None:
        """Until commands that move leave."""
        self.showing.set()
        self._answer(self._told.call_async(SetInstruction.Request(instruction=INSTRUCTION)))
        answer = self.call("start")
        if not answer.success:
            raise RuntimeError(f"~/start was refused: {answer.message}")
        self.wait(lambda: bool(self.heard) and self.heard[-1][1], "a command that moves")

    def wait(self, condition: Callable[[], bool], what: str) -> None:
        """RuntimeError naming `what` after half a minute."""
        with self._news:
            if not self._news.wait_for(condition, 30.0):
                raise RuntimeError(f"waited for {what}, in vain{self.told()}")

    def told(self) -> str:
        """What the node says of itself, for an error."""
        status = self.status
        if status is None:
            return ""
        drops = ", ".join(f"{drop.count} {drop.reason}" for drop in status.drops) or "none"
        slow = ", ".join(f"{stage.stage} {stage.p99_ms:.0f} ms" for stage in status.latencies)
        return f": state {status.state}, {status.reason} {status.detail}; dropped: {drops}; p99: {slow}"

    def jitter(self, seconds: float) -> dict[str, float]:
        """Deviation from the control period between commands that arrive, ms."""
        time.sleep(1.0)
        begin = len(self.heard)
        time.sleep(seconds)
        heard = self.heard[begin:]
        pairs = [(a, b) for a, b in itertools.pairwise(heard) if a[1] and b[1]]
        off = np.array([abs(b[0] - a[0] - 1 / RATE) * 1e3 for a, b in pairs])
        return _percentiles(off) | {"count": len(heard), "stops": sum(not moved for _, moved in heard)}

    def stopped_after(self, begin: float) -> float:
        """ms from `begin` (steady time) to the arrival of the first stop."""

        def first() -> float | None:
            return next((at for at, moved in self.heard[-40:] if at >= begin - 1.0 and not moved), None)

        self.wait(lambda: first() is not None, "a stop command")
        at = first()
        assert at is not None
        return (at - begin) * 1e3

    def _show(self) -> None:
        draw = np.random.default_rng(0)
        pictures = [draw.integers(0, 256, (SIZE, SIZE, 3), np.uint8) for _ in range(8)]
        due, index = time.monotonic(), 0
        while True:
            due = max(due + 1 / RATE, time.monotonic())
            time.sleep(max(0.0, due - time.monotonic()))
            if not self.showing.is_set():
                continue
            header = Header(stamp=self.get_clock().now().to_msg(), frame_id="front")
            try:
                self._images.publish(image_message(pictures[index % 8], header))
            except Exception:  # the node was destroyed: the end of the measurement
                return
            self.last_shown, index = time.monotonic(), index + 1

    def _answer(self, future: Any) -> Any:
        end = time.monotonic() + 30.0
        while not future.done():
            if time.monotonic() > end:
                raise RuntimeError("a service of the policy node did not answer within 30 s")
            time.sleep(0.002)
        return future.result()

    def _on_twist(self, message: TwistStamped) -> None:
        now, twist = time.monotonic(), message.twist
        parts = (*_xyz(twist.linear), *_xyz(twist.angular))
        with self._news:
            self.heard.append((now, any(part != 0 for part in parts)))
            self._news.notify_all()

    def _on_status(self, message: PolicyStatus) -> None:
        with self._news:
            self.status = message
            self._news.notify_all()


def _stop(client: Client, _node: ChildProcess, repeats: int) -> dict[str, float]:
    found = []
    for _ in range(repeats):
        client.run()
        client.heard.clear()
        begin = time.monotonic()
        client.call("stop")
        found.append(client.stopped_after(begin))
    return _percentiles(np.array(found))


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
    return _percentiles(np.array(found))


def _camera(client: Client, _node: ChildProcess, repeats: int) -> dict[str, float]:
    client.run()
    found = []
    for _ in range(repeats):
        client.wait(lambda: bool(client.heard) and client.heard[-1][1], "a command that moves")
        client.heard.clear()
        client.showing.clear()
        time.sleep(1 / RATE)
        found.append(client.stopped_after(client.last_shown + MAX_AGE))
        client.showing.set()
        client.heard.clear()
    return _percentiles(np.array(found))


def _stall(client: Client, node: ChildProcess, repeats: int) -> dict[str, float]:
    found = []
    for _ in range(repeats):
        client.wait(lambda: bool(client.heard) and client.heard[-1][1], "a command that moves")
        node.send(signal.SIGSTOP)
        time.sleep(2 * MAX_GAP)
        client.heard.clear()
        begin = time.monotonic()
        node.send(signal.SIGCONT)
        found.append(client.stopped_after(begin))
        client.heard.clear()
    return _percentiles(np.array(found))


@contextmanager
def _node(folder: Path, model: str) -> Iterator[tuple[Client, ChildProcess]]:
    """A policy process, and a client connected to it."""
    parameters = {
        "policy": str(_make_policy(folder, model)),
        "weights": str(folder / "weights"),
        "image_topic": "/{camera}/image_raw",
        "action_scale": [0.02, 0.02, 0.02, 0.05, 0.05, 0.05],
        "max_observation_age": MAX_AGE,
        "max_tick_gap": MAX_GAP,
        "inference_deadline": 0.5,
        "frozen_after": 0,
        "ramp": 0.0,
        "status_rate": 10.0,
        "exit_on_failure": True,
    }
    with reserved_domain_id() as domain_id, ProcessGroup() as group:
        os.environ.update(loopback_environment(domain_id))
        node = group.start("policy", NODES["policy"].module, ros_parameters(**parameters))
        with spinning(Client) as client:
            end = time.monotonic() + LIMIT_S
            while client.status is None or client.status.state != PolicyStatus.STATE_DISABLED:
                if node.returncode is not None or time.monotonic() > end:
                    raise RuntimeError(f"the policy node did not become active; its last lines:\n{node.tail()}")
                time.sleep(0.05)
            time.sleep(0.5)  # the other direction of discovery
            yield client, node


def _make_policy(folder: Path, model: str) -> Path:
    """Random weights, and their random backbone in folder/weights."""
    from omnistream.model.config import preset as model_preset
    from omnistream.weights import model_hash, random_model, save_model

    config = preset("tabletop_tiny")
    backbone = random_model(dataclasses.replace(model_preset(model), heads=None, scale="none"), 0)
    save_model(backbone, folder / "weights")
    ones, zeros = (1.0,) * 7, (0.0,) * 7
    names = ("x", "y", "z", "roll", "pitch", "yaw", "gripper")
    contract = Contract(
        rate=RATE,
        cameras=(Camera("front", SIZE, SIZE),),
        state=(),
        action=Action(tuple(Dimension(n, "1") for n in names), "delta", "base_link", (Gripper(6, 1.0, -1.0),)),
        action_statistics=Statistics(1, (-1.0,) * 7, ones, zeros, ones, (-1.0,) * 7, ones),
        backbone=model_hash(backbone.backbone),
    )
    dim, patch = feature_size(config.vision, backbone.config)
    grid = grid_of(SIZE, SIZE, config.vision, patch)
    shape = PolicyShape(cameras=("front",), grids=(grid,), feature_dim=dim, arm=6, grippers=1)
    tokens = WordTokens.of([INSTRUCTION])
    torch.manual_seed(0)
    network = PolicyNetwork(config, shape, tokens).eval()
    return save_policy(LoadedPolicy(network, tokens, contract, scaling_from(contract, "none")), folder / "policy")


def _xyz(vector: Any) -> tuple[float, float, float]:
    return vector.x, vector.y, vector.z


def _percentiles(values: NDArray[np.float64]) -> dict[str, float]:
    if not values.size:
        return {"p50": float("nan"), "p99": float("nan"), "max": float("nan")}
    p50, p99 = np.percentile(values, (50, 99))
    return {"p50": round(float(p50), 2), "p99": round(float(p99), 2), "max": round(float(values.max()), 2)}


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
