# SPDX-License-Identifier: Apache-2.0
"""The policy node: camera images (or perception's features) and an instruction in, safe robot commands out.

    omnistream-up policy --ros-args -p policy:=... -p weights:=... -p contract:=robot.yaml
    ros2 run omnistream_policy policy_node --ros-args --params-file policy.yaml

It starts disabled: ~/set_instruction says what to do, ~/start permits to move, ~/stop and ~/estop take that back. All
topics, services and what stops it: docs/policy_node.md and docs/reference.md. Not a certified safety function.
"""

from __future__ import annotations

import math
import os
import sys
import threading
from collections.abc import Callable, Sequence
from typing import Any

from rclpy.callback_groups import MutuallyExclusiveCallbackGroup
from rclpy.clock import Clock, ClockType, JumpThreshold, TimeJump
from rclpy.duration import Duration
from rclpy.time import Time
from std_msgs.msg import Bool, Header, String
from std_srvs.srv import Trigger

from omnistream.errors import ConfigError, OmniStreamError
from omnistream.io.run_log import RunLog
from omnistream.policy.drive import Drive
from omnistream.policy.guard import Mode, Stop
from omnistream.policy.mind import Mind, Thought
from omnistream.policy.opening import identity, open_policy, open_session
from omnistream.policy.settings import control_settings
from omnistream_msgs.msg import ActionChunk as ActionChunkMessage
from omnistream_msgs.msg import PolicyStatus
from omnistream_msgs.srv import SetInstruction
from omnistream_ros.diagnostics import Diagnostics, Level, Report
from omnistream_ros.images import seconds_to_stamp
from omnistream_ros.lifecycle import LIFECYCLE_PARAMETERS, ManagedNode, State
from omnistream_ros.parameters import help_text
from omnistream_ros.qos import qos_profile
from omnistream_ros.run_log import open_run_log
from omnistream_ros.running import run

from .goals import Goals, Situation
from .inputs import Inputs
from .loop import Loop
from .outputs import Outputs
from .parameters import NODE
from .status import STATES, fill, permission_report, timing_report
from .thinking import Thinking

STEP_TIMEOUT = 2.0
"""Seconds that a transition waits for the inference in hand; the stop command has left long before."""
SETTLE_TIMEOUT = 0.2
"""Seconds that the last stop command is waited for to arrive before the process ends."""
FORWARD_JUMP = 1.0
"""Seconds by which simulated time may go on at once."""


class PolicyNode(ManagedNode):
    """Lifecycle, services and status. What leaves is decided in `loop`, by `omnistream.policy.control`.

    Args:
        name: node name; remapped as usual.
        keywords: for rclpy's Node.
    """

    def __init__(self, name: str = "policy", **keywords: Any) -> None:
        super().__init__(name, NODE, **keywords)
        self._inputs: Inputs | None = None
        self._outputs: Outputs | None = None
        self._thinking: Thinking | None = None
        self._loop: Loop | None = None
        self._chunks: Any = None
        self._log: RunLog | None = None
        self._instruction = ""
        self._unknown: tuple[str, ...] = ()
        self._estop_held = self._leaving = False
        self._control = threading.RLock()  # between transitions and services
        self._group = MutuallyExclusiveCallbackGroup()
        self._urgent = MutuallyExclusiveCallbackGroup()
        self._make_status()
        self._make_services()
        jump = JumpThreshold(
            min_forward=Duration(nanoseconds=round(FORWARD_JUMP * 1e9)), min_backward=Duration(nanoseconds=-1)
        )
        self._jump = self.get_clock().create_jump_callback(jump, post_callback=self._on_clock_jump)

    # ---------------------------------------------------------------- lifecycle

    def configure(self) -> None:
        """Loads and checks the policy, makes the command topics, and says what will leave on them."""
        with self._control:
            p = self.parameters
            policy = open_policy(p)
            settings = control_settings(p, policy.contract)
            self._inputs = Inputs(self, p, policy.contract, policy.shape.state > 0, self._on_observation)
            topics = self._inputs.topics()
            self._outputs = Outputs(self, p, settings)
            session = open_session(policy, p)
            header = {"topics": topics, "outputs": self._outputs.topic_of} | identity(session)
            self._log = open_run_log(self, header)
            mind = Mind(session, self._log)
            thinking = Thinking(mind, self._wants_chunk, self._on_chunk, self._on_failure, p["max_failures"])
            self._thinking = thinking
            self._loop = Loop(
                self,
                Drive(settings, self._outputs.outbox, self._log),
                self._inputs,
                self._outputs,
                p["execute"],
                busy=thinking.busy,
                instructed=lambda: bool(self._instruction),
                changed=self._status_signal.trigger,
                jumped=self._on_clock_jump,
                broken=self.raise_fault,
            )
            self._chunks = self.create_lifecycle_publisher(ActionChunkMessage, "~/chunk", qos_profile("reliable"))
            if self._instruction:
                self._unknown = tuple(mind.instruct(self._instruction).unknown)
            reads = ", ".join(f"{name}: {topic}" for name, topic in topics.items())
            self.get_logger().info(f"policy {p['policy']} reads {reads}")
            for line in self._outputs.describe():
                self.get_logger().info(line)
            if p["dry_run"]:
                self.get_logger().warning("dry run: commands do not go to the robot")

    def activate(self) -> None:
        """Observes from now on; moves nothing before ~/start."""
        assert self._inputs is not None and self._thinking is not None and self._loop is not None
        self._thinking.post(self._thinking.mind.reset)  # what was seen before a pause is no memory of this episode
        self._thinking.start()
        self._inputs.subscribe()
        self._loop.begin()
        if self._estop_held:
            self._loop.estop()

    def deactivate(self) -> None:
        """A stop command first; then everything else."""
        if self._loop is not None:
            self._loop.end(Stop.DEACTIVATED)
            self._goals.end(str(Stop.DEACTIVATED))
        if self._inputs is not None:
            self._inputs.unsubscribe()
        if self._thinking is not None:
            self._thinking.outdate()
            self._thinking.stop(STEP_TIMEOUT)

    def cleanup(self) -> None:
        """Frees the policy and removes the command topics."""
        with self._control:
            if self._outputs is not None:
                self._outputs.destroy()
            if self._chunks is not None:
                self.destroy_lifecycle_publisher(self._chunks)
            if self._log is not None:
                left = (
                    {}
                    if self._loop is None
                    else {"messages": self._loop.drive.left.messages, "hash": self._loop.drive.left.hex}
                )
                self._log.close(**left)
            self._log = None
            self._inputs = self._outputs = self._thinking = self._loop = self._chunks = None

    def leaving(self) -> None:
        """The process is told to end: stands still at once, whatever a callback or the network is doing."""
        self._leaving = True
        loop, outputs = self._loop, self._outputs
        if loop is not None and outputs is not None and self.state is State.ACTIVE:
            loop.stop(Stop.DEACTIVATED, "the process ends")
            outputs.settle(SETTLE_TIMEOUT)

    def destroy_node(self) -> None:
        """See rclpy, which forgets actions."""
        self._goals.destroy()
        super().destroy_node()

    def state_changed(self) -> None:
        """Tells everybody."""
        self._publish_status()
        self._diagnostics.publish()

    # ---------------------------------------------------------------- services

    def _make_services(self) -> None:
        self.create_service(SetInstruction, "~/set_instruction", self._on_set_instruction, callback_group=self._group)
        self.create_service(Trigger, "~/start", self._on_start, callback_group=self._group)
        self.create_service(Trigger, "~/reset", self._on_reset, callback_group=self._group)
        # What stops never waits behind what may take long.
        self.create_service(Trigger, "~/stop", self._on_stop, callback_group=self._urgent)
        self.create_service(Trigger, "~/estop", self._on_estop, callback_group=self._urgent)
        self.create_service(Trigger, "~/clear_estop", self._on_clear_estop, callback_group=self._urgent)
        # A volatile best-effort reader hears every writer, a latched one what was said before it came.
        for qos in ("latched", "sensor:10"):
            profile = qos_profile(qos)
            self.create_subscription(Bool, "~/estop", self._hear_estop, profile, callback_group=self._urgent)
            self.create_subscription(String, "~/instruction", self._hear, profile, callback_group=self._group)
        self._goals = Goals(
            self,
            group=self._group,
            urgent=self._urgent,
            refusal=self._goal_problem,
            mark=lambda: 0 if self._loop is None else self._loop.halts,
            begin=self._follow,
            stop=self._end_goal,
            look=self._situation,
        )

    def _active_loop(self) -> Loop:
        if self._leaving or self.state is not State.ACTIVE or self._loop is None:
            raise ConfigError(f"the node is {'leaving' if self._leaving else self.state}; activate it first")
        return self._loop

    def _answer(self, response: Any, change: Callable[[], str]) -> Any:
        try:
            response.message = change()
            response.success = True
        except (OmniStreamError, TimeoutError) as error:
            self.get_logger().warning(f"refused: {error}")
            response.success, response.message = False, str(error) or type(error).__name__
        self._publish_status()
        return response

    def _permit(self, halts: int | None = None) -> None:
        loop = self._active_loop()
        if problem := loop.rival_problem():
            raise ConfigError(problem)
        if self._estop_held:
            raise ConfigError("the e-stop topic says true; release it and clear it first")
        loop.start(halts)

    def _on_start(self, _request: Trigger.Request, response: Trigger.Response) -> Trigger.Response:
        def change() -> str:
            with self._control:
                self._permit()
                return f"permitted to move: {self._instruction!r}" if self._instruction else "waits for an instruction"

        return self._answer(response, change)

    def _on_stop(self, _request: Trigger.Request, response: Trigger.Response) -> Trigger.Response:
        def change() -> str:
            self._active_loop().stop(Stop.REQUESTED, "")
            return "stopped"

        return self._answer(response, change)

    def _on_estop(self, _request: Trigger.Request, response: Trigger.Response) -> Trigger.Response:
        def change() -> str:
            self._active_loop().estop()
            return "stopped; ~/clear_estop unlatches"

        return self._answer(response, change)

    def _on_clear_estop(self, _request: Trigger.Request, response: Trigger.Response) -> Trigger.Response:
        def change() -> str:
            if self._estop_held:
                raise ConfigError("the e-stop topic still says true; release it first")
            self._active_loop().clear()
            return "cleared; ~/start permits to move"

        return self._answer(response, change)

    def _on_reset(self, _request: Trigger.Request, response: Trigger.Response) -> Trigger.Response:
        def change() -> str:
            with self._control:
                loop = self._active_loop()
                loop.stop(Stop.REQUESTED, "")
                self._forget(clock=False)
                return "a new episode; ~/start permits to move"

        return self._answer(response, change)

    def _on_set_instruction(
        self, request: SetInstruction.Request, response: SetInstruction.Response
    ) -> SetInstruction.Response:
        def change() -> str:
            self._goals.check_free()
            self._instruct(request.instruction)
            response.unknown_words = list(self._unknown)
            return f"from now on {request.instruction!r}" if request.instruction else "no instruction: stands still"

        return self._answer(response, change)

    def _instruct(self, text: str) -> None:
        """Applied at the next inference; what was planned for the old one is dropped at once."""
        with self._control:
            text = text.strip()
            loop, thinking = self._loop, self._thinking
            if text == self._instruction:
                return
            unknown: tuple[str, ...] = ()
            if loop is not None and thinking is not None:
                before, self._instruction = self._instruction, ""  # nothing moves in between
                thinking.outdate()
                loop.forget()
                try:
                    if text:
                        unknown = tuple(thinking.call(lambda: thinking.mind.instruct(text)).unknown)
                except (OmniStreamError, TimeoutError):
                    self._instruction = before
                    raise
            self._instruction, self._unknown = text, unknown
        self.get_logger().info(f"instruction: {text!r}" + (f"; unknown: {', '.join(unknown)}" if unknown else ""))

    def _hear(self, message: String) -> None:
        try:
            self._goals.check_free()
            self._instruct(message.data)
        except (OmniStreamError, TimeoutError) as error:
            self.get_logger().warning(f"instruction refused: {error}")
        self._publish_status()

    def _hear_estop(self, message: Bool) -> None:
        self._estop_held = message.data
        loop = self._loop
        if message.data and loop is not None and self.state is State.ACTIVE:
            loop.estop()

    # ---------------------------------------------------------------- the action

    def _goal_problem(self, text: str, timeout: float) -> str:
        if not text:
            return "the instruction is empty; expected what to do"
        if not 0 <= timeout < math.inf:
            return f"timeout is {timeout} s; expected 0 (none) or more"
        try:
            loop = self._active_loop()
        except ConfigError as error:
            return str(error)
        if self._estop_held or loop.control.guard.mode is Mode.STOPPED:
            return "the e-stop is latched; release it, then ~/clear_estop"
        return loop.rival_problem()

    def _follow(self, text: str, mark: int) -> tuple[str, ...]:
        with self._control:
            self._active_loop()
            self._instruct(text)
            self._permit(mark)
            return self._unknown

    def _end_goal(self, detail: str) -> None:
        if self._loop is not None:
            self._loop.stop(Stop.REQUESTED, detail)

    def _situation(self) -> Situation:
        state, reason, detail = self._policy_state()
        loop, age = self._loop, self._observation_age(self.get_clock().now())
        permitted = loop is not None and loop.control.guard.mode in (Mode.HOLDING, Mode.RUNNING)
        commands = 0 if loop is None else loop.control.moves
        return Situation(permitted, state, reason, detail, commands, math.nan if age is None else age)

    # ---------------------------------------------------------------- the network's thread

    def _on_observation(self, observation: Any) -> None:
        if self._thinking is not None:
            self._thinking.observe(observation)

    def _wants_chunk(self) -> int | None:
        return self._loop.wants_chunk() if self._loop is not None and self._instruction else None

    def _on_chunk(self, thought: Thought) -> None:
        loop, thinking, chunk = self._loop, self._thinking, thought.chunk
        if loop is None or thinking is None or chunk is None or chunk.stamp is None:
            return
        ticks = loop.adopt(thought)
        if ticks is None:
            return
        self._chunks.publish(
            ActionChunkMessage(
                header=Header(
                    stamp=seconds_to_stamp(chunk.stamp), frame_id=loop.control.settings.contract.action.frame
                ),
                sequence=thinking.chunks,
                start_tick=ticks[0],
                arrived_tick=ticks[1],
                rate=chunk.rate,
                instruction=self._instruction,
                names=list(chunk.names),
                rows=len(chunk.actions),
                values=chunk.actions.ravel().tolist(),
            )
        )

    def _on_failure(self, reason: str, detail: str) -> None:
        if self._loop is not None and self.state is State.ACTIVE:
            if detail != self._loop.detail:  # once, not for every picture
                self.get_logger().error(f"stopped ({reason}): {detail}")
            self._loop.stop(Stop(reason), detail)

    # ---------------------------------------------------------------- events, status and diagnostics

    def _on_clock_jump(self, _jump: TimeJump | None = None) -> None:
        """Simulated time was restarted, or a clock was set: stamps before and after do not belong together."""
        if self.state is State.ACTIVE and self._loop is not None:
            self.get_logger().warning("the clock jumped: stopped, and everything that was seen is forgotten")
            self._loop.stop(Stop.CLOCK_JUMP, "the clock jumped")
            self._forget(clock=True)

    def _forget(self, *, clock: bool) -> None:
        assert self._loop is not None and self._thinking is not None and self._inputs is not None
        self._thinking.outdate()
        self._loop.forget(clock=clock)
        self._inputs.forget()
        self._thinking.post(self._thinking.mind.reset)

    def _make_status(self) -> None:
        self._status = self.create_publisher(PolicyStatus, "~/status", qos_profile("latched"))
        self._status_signal = self.create_guard_condition(self.state_changed)
        steady = Clock(clock_type=ClockType.STEADY_TIME)
        self.create_timer(1 / self.parameters["status_rate"], self._publish_status, clock=steady)
        self._diagnostics = Diagnostics(self, hardware_id=self.get_name())
        self._diagnostics.add("permission", self._permission)
        self._diagnostics.add("timing", self._timing)

    def _publish_status(self) -> None:
        now = self.get_clock().now()
        message = PolicyStatus(instruction=self._instruction, unknown_words=list(self._unknown))
        message.header.stamp = now.to_msg()
        message.dry_run = self.parameters["dry_run"]
        message.state, message.reason, message.detail = self._policy_state()
        loop, inputs, thinking, outputs = self._loop, self._inputs, self._thinking, self._outputs
        if loop is not None and inputs is not None and thinking is not None and outputs is not None:
            message.backbone_hash = thinking.session.policy.contract.backbone or ""
            message.outputs = outputs.topics
            fill(message, loop, inputs, thinking, self._observation_age(now))
        self._status.publish(message)

    def _observation_age(self, now: Time) -> float | None:
        newest = None if self._inputs is None else self._inputs.newest
        return None if newest is None else (now.nanoseconds - newest.stamp) / 1e9

    def _policy_state(self) -> tuple[int, str, str]:
        if self.failed:
            return PolicyStatus.STATE_ERROR, str(Stop.FAULT), self.fault
        if self._loop is None:
            return PolicyStatus.STATE_UNCONFIGURED, "", self.fault or "not configured"
        if self.state is not State.ACTIVE:
            return PolicyStatus.STATE_INACTIVE, "", self.fault
        guard = self._loop.control.guard
        return STATES[Mode(guard.mode)], str(guard.reason), self._loop.detail

    def _permission(self) -> Report:
        if self.fault or self._loop is None:
            return Report(Level.ERROR if self.fault else Level.WARN, self.fault or "not configured")
        return permission_report(self._loop, self.state is State.ACTIVE)

    def _timing(self) -> Report:
        if self._loop is None or self._thinking is None:
            return Report(Level.STALE, "not configured")
        return timing_report(self._loop, self._thinking, self.parameters["latency_budget"])


def main(args: Sequence[str] | None = None) -> int:
    """The executable: ends the process with its exit code."""
    code = run(PolicyNode, args, threads=4, help_text=help_text(__doc__ or "", (*LIFECYCLE_PARAMETERS, *NODE)))
    # All is said and closed. To take torch and transformers apart again takes the interpreter up to many seconds, in
    # which whoever waits for the end of this process would think that it hangs.
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


if __name__ == "__main__":
    sys.exit(main())
