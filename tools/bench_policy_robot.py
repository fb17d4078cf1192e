# SPDX-License-Identifier: Apache-2.0
"""The robot of `bench_policy_node.py`: shows pictures at the control rate, hears commands, keeps when each arrived; and
the policy with random weights that commands it."""

from __future__ import annotations

import dataclasses
import itertools
import math
import threading
import time
from collections.abc import Callable
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
from omnistream_ros.images import image_message
from omnistream_ros.qos import qos_profile

RATE = 20.0
SIZE = 128
FROZEN_AFTER = 10
"""Pictures in a row with the same bytes."""
INSTRUCTION = "open the drawer"
POLICY = preset("tabletop_tiny")
CHUNK_MS = 1e3 * POLICY.chunk / RATE


class Client(Node):
    """The robot: pictures out of a thread of its own, commands in."""

    def __init__(self) -> None:
        super().__init__("bench")
        self.status: PolicyStatus | None = None
        self.heard: list[tuple[float, bool]] = []
        """(steady time, whether it moves) of each command."""
        self.showing = threading.Event()
        self.frozen = threading.Event()
        self.last_shown = 0.0
        self.frozen_since = math.inf
        """Steady time of the picture that was the same once too often."""
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

    def instruct(self, text: str) -> None:
        """~/set_instruction."""
        self._answer(self._told.call_async(SetInstruction.Request(instruction=text)))

    def run(self) -> None:
        """Until commands that move leave."""
        self.showing.set()
        self.instruct(INSTRUCTION)
        answer = self.call("start")
        if not answer.success:
            raise RuntimeError(f"~/start was refused: {answer.message}")
        self.wait_for_motion()

    def moving(self) -> None:
        """Until the newest command moves; what was heard so far is forgotten."""
        self.wait_for_motion()
        self.heard.clear()

    def wait_for_motion(self) -> None:
        """Until the newest command moves."""
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
        slow = ", ".join(f"{stage.stage} {stage.p50_ms:.0f} ms" for stage in status.latencies)
        hint = ""
        if status.reason == "starved":
            hint = (
                f"; a chunk ends {CHUNK_MS:.0f} ms after its picture: is this machine too busy, or the model too large?"
            )
        return f": state {status.state}, {status.reason} {status.detail}; dropped: {drops}; p50: {slow}{hint}"

    def jitter(self, seconds: float) -> tuple[dict[str, float], dict[str, float]]:
        """Deviation from the control period between commands that arrive, ms; and how late the machine lets somebody go
        on who only slept for a period, in the same seconds: less than that nobody can ask of the node."""
        time.sleep(1.0)
        begin = len(self.heard)
        late = lateness(seconds)
        heard = self.heard[begin:]
        pairs = [(a, b) for a, b in itertools.pairwise(heard) if a[1] and b[1]]
        off = np.array([abs(b[0] - a[0] - 1 / RATE) * 1e3 for a, b in pairs])
        return percentiles(off) | {"count": len(heard), "stops": sum(not moved for _, moved in heard)}, late

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
        due, index, same, shown = time.monotonic(), 0, 0, -1
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
            self.last_shown = time.monotonic()
            same, shown = (same + 1 if index == shown else 1), index
            if same == FROZEN_AFTER:
                self.frozen_since = self.last_shown
            if not self.frozen.is_set():
                index, self.frozen_since = index + 1, math.inf

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


def make_policy(folder: Path, model: str) -> Path:
    """Random weights, and their random backbone in folder/weights."""
    from omnistream.model.config import preset as model_preset
    from omnistream.weights import model_hash, random_model, save_model

    config = POLICY
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


def lateness(seconds: float) -> dict[str, float]:
    """Of one who sleeps from period to period, ms."""
    late, due = [], time.monotonic()
    for _ in range(round(seconds * RATE)):
        due += 1 / RATE
        time.sleep(max(0.0, due - time.monotonic()))
        late.append((time.monotonic() - due) * 1e3)
    return percentiles(np.array(late))


def percentiles(values: NDArray[np.float64]) -> dict[str, float]:
    if not values.size:
        return {"p50": float("nan"), "p99": float("nan"), "max": float("nan")}
    p50, p99 = np.percentile(values, (50, 99))
    return {"p50": round(float(p50), 2), "p99": round(float(p99), 2), "max": round(float(values.max()), 2)}
