# SPDX-License-Identifier: Apache-2.0
"""The policy node: camera images (or perception's features) and an instruction in, safe robot commands out.

    omnistream-up policy --ros-args -p policy:=... -p weights:=... -p contract:=robot.yaml
    ros2 run omnistream_policy policy_node --ros-args --params-file policy.yaml

It starts disabled: ~/set_instruction says what to do, ~/start permits to move, ~/stop and ~/estop take that back. All
topics, services and what stops it: docs/policy_node.md and docs/reference.md. Not a certified safety function.
"""

from __future__ import annotations

import gc
import os
import sys
import threading
from collections.abc import Sequence
from functools import partial
from typing import Any

from rclpy.clock import JumpThreshold, TimeJump
from rclpy.duration import Duration

from omnistream.policy.guard import Stop
from omnistream_ros.lifecycle import LIFECYCLE_PARAMETERS, ManagedNode, State
from omnistream_ros.parameters import help_text
from omnistream_ros.running import run

from .parameters import NODE
from .pipeline import Pipeline
from .reporting import Reporting
from .requests import Requests

STEP_TIMEOUT = 2.0
"""Seconds that a transition waits for the inference in hand; the stop command has left long before."""
SETTLE_TIMEOUT = 0.2
"""Seconds that the last stop command is waited for to arrive before the process ends."""
SWITCH_S = 0.0005
"""How long the control tick waits for the interpreter while an inference holds it; Python's own 0.005 s may be waited
for several times in a tick."""
FORWARD_JUMP = 1.0
"""Seconds by which simulated time may go on at once."""


class PolicyNode(ManagedNode):
    """The lifecycle. What is asked of the node is in `requests`, what works while it is configured in `pipeline`.

    Args:
        name: node name; remapped as usual.
        own_process: whether the process is this node's alone. Python's garbage collector then leaves alone what is
            there when the node becomes active, until cleanup: torch and transformers are a third of a million objects,
            and one collection over them holds the interpreter, and with it the control tick, for 0.2 s.
        keywords: for rclpy's Node.
    """

    def __init__(self, name: str = "policy", *, own_process: bool = False, **keywords: Any) -> None:
        super().__init__(name, NODE, **keywords)
        self._own_process = own_process
        sys.setswitchinterval(SWITCH_S)  # of the whole process
        self._pipeline: Pipeline | None = None
        self._control = threading.RLock()  # between transitions and services
        self._requests = Requests(
            self,
            self._control,
            lambda: self._pipeline,
            answered=lambda: self._reporting.publish(),
            look=lambda: self._reporting.situation(),
        )
        self._reporting = Reporting(self, lambda: self._pipeline, self._requests)
        jump = JumpThreshold(
            min_forward=Duration(nanoseconds=round(FORWARD_JUMP * 1e9)), min_backward=Duration(nanoseconds=-1)
        )
        self._jump = self.get_clock().create_jump_callback(jump, post_callback=self._on_clock_jump)

    def configure(self) -> None:
        """Loads and checks the policy, makes the command topics, and says what will leave on them."""
        with self._control:
            requests = self._requests
            self._pipeline = Pipeline(
                self,
                instruction=lambda: requests.instruction,
                changed=self._reporting.signal.trigger,
                jumped=self._on_clock_jump,
                broken=self.raise_fault,
            )
            if requests.instruction:
                requests.unknown = tuple(self._pipeline.thinking.mind.instruct(requests.instruction).unknown)
            self._pipeline.say()

    def activate(self) -> None:
        """Observes from now on; moves nothing before ~/start."""
        assert self._pipeline is not None
        if self._own_process:
            gc.collect()
            gc.freeze()
        self._pipeline.begin()
        if self._requests.estop_held or self._requests.latched:
            self._pipeline.loop.estop()

    def deactivate(self) -> None:
        """A stop command first; then everything else."""
        if self._pipeline is not None:
            self._pipeline.loop.end(Stop.DEACTIVATED)
            self._requests.goals.end(str(Stop.DEACTIVATED))
            self._pipeline.rest(STEP_TIMEOUT)

    def cleanup(self) -> None:
        """Frees the policy and removes the command topics."""
        with self._control:
            pipeline, self._pipeline = self._pipeline, None
            if pipeline is not None:
                pipeline.close()
        if self._own_process:
            gc.unfreeze()  # else a policy that was let go of would never be freed

    def leaving(self) -> None:
        """The process is told to end: stands still at once, whatever a callback or the network is doing."""
        self._requests.leaving = True
        pipeline = self._pipeline
        if pipeline is not None and self.state is State.ACTIVE:
            pipeline.loop.stop(Stop.DEACTIVATED, "the process ends")
            pipeline.outputs.settle(SETTLE_TIMEOUT)

    def destroy_node(self) -> None:
        """See rclpy, which forgets actions."""
        self._requests.goals.destroy()
        super().destroy_node()

    def state_changed(self) -> None:
        """Tells everybody."""
        self._reporting.tell_all()

    def _on_clock_jump(self, _jump: TimeJump | None = None) -> None:
        """Simulated time was restarted, or a clock was set: stamps before and after do not belong together."""
        pipeline = self._pipeline
        if self.state is State.ACTIVE and pipeline is not None:
            self.get_logger().warning("the clock jumped: stopped, and everything that was seen is forgotten")
            pipeline.loop.stop(Stop.CLOCK_JUMP, "the clock jumped")
            pipeline.forget(clock=True)


def main(args: Sequence[str] | None = None) -> int:
    """The executable: ends the process with its exit code."""
    words = help_text(__doc__ or "", (*LIFECYCLE_PARAMETERS, *NODE))
    code = run(partial(PolicyNode, own_process=True), args, threads=4, help_text=words)
    # All is said and closed. To take torch and transformers apart again takes the interpreter up to many seconds, in
    # which whoever waits for the end of this process would think that it hangs.
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


if __name__ == "__main__":
    sys.exit(main())
