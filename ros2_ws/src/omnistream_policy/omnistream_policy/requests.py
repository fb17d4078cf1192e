# SPDX-License-Identifier: Apache-2.0
"""What people and other nodes ask for: the instruction, permission to move and taking it back, the e-stop.

By service (~/set_instruction, ~/start, ~/stop, ~/reset, ~/estop, ~/clear_estop), by topic (~/instruction, ~/estop) and
by the action ~/run_policy, whose goals are in `goals`.
"""

from __future__ import annotations

import math
import threading
from collections import deque
from collections.abc import Callable
from typing import Any

from rclpy.callback_groups import MutuallyExclusiveCallbackGroup
from std_msgs.msg import Bool, String
from std_srvs.srv import Trigger

from omnistream.errors import ConfigError, OmniStreamError
from omnistream.policy.guard import Mode, Stop
from omnistream_msgs.srv import SetInstruction
from omnistream_ros.lifecycle import ManagedNode, State
from omnistream_ros.qos import qos_profile

from .goals import Goals, Situation
from .pipeline import Pipeline


class Once:
    """Lets each message pass once, that several readers of one topic get. Their callbacks are in one callback group."""

    def __init__(self) -> None:
        self._heard: deque[tuple[int, Any]] = deque(maxlen=256)

    def filter(self, hear: Callable[[Any], None]) -> Callable[[Any, Any], None]:
        """A callback with rclpy's message info."""

        def first(message: Any, info: Any) -> None:
            # The time at which it was published tells one message from the next, where the middleware says it; with
            # its content, lest an e-stop be taken for what another publisher said in the same nanosecond.
            key = (info["source_timestamp"], message.data)
            if key[0] and key in self._heard:
                return
            self._heard.append(key)
            hear(message)

        return first


class Requests:
    """See the module. They live as long as the node; outside the active state all but the instruction are refused.

    Args:
        node: whose services they are.
        control: held while something changes that a transition changes too.
        pipeline: what is configured now; None for nothing.
        answered: called after each answer.
        look: the situation now, for goals.
    """

    def __init__(
        self,
        node: ManagedNode,
        control: threading.RLock,
        pipeline: Callable[[], Pipeline | None],
        answered: Callable[[], None],
        look: Callable[[], Situation],
    ) -> None:
        self.instruction = ""
        """What to follow; "" for nothing."""
        self.unknown: tuple[str, ...] = ()
        """Its words that the policy never learnt."""
        self.estop_held = False
        """What the topic ~/estop said last."""
        self.latched = False
        """Whether ~/clear_estop is needed; also after the policy was loaded anew."""
        self.leaving = False
        """Whether the process ends: nothing is permitted any more."""
        self._node, self._control, self._pipeline, self._answered = node, control, pipeline, answered
        group, urgent = MutuallyExclusiveCallbackGroup(), MutuallyExclusiveCallbackGroup()
        node.create_service(SetInstruction, "~/set_instruction", self._on_set_instruction, callback_group=group)
        node.create_service(Trigger, "~/start", self._on_start, callback_group=group)
        node.create_service(Trigger, "~/reset", self._on_reset, callback_group=group)
        # What stops never waits behind what may take long.
        node.create_service(Trigger, "~/stop", self._on_stop, callback_group=urgent)
        node.create_service(Trigger, "~/estop", self._on_estop, callback_group=urgent)
        node.create_service(Trigger, "~/clear_estop", self._on_clear_estop, callback_group=urgent)
        # A latched reader hears what was said before it came, a reliable one loses nothing of a reliable writer, and a
        # best-effort one hears every writer. What several of them get counts once: an e-stop that was released and
        # cleared meanwhile must not come again.
        once, once_stop = Once(), Once()
        for qos in ("latched", "reliable:10", "sensor:10"):
            profile = qos_profile(qos)
            stop, hear = once_stop.filter(self._hear_estop), once.filter(self._hear)
            node.create_subscription(Bool, "~/estop", stop, profile, callback_group=urgent)
            node.create_subscription(String, "~/instruction", hear, profile, callback_group=group)
        self.goals = Goals(
            node,
            group=group,
            urgent=urgent,
            refusal=self._goal_problem,
            mark=self._halts,
            begin=self._follow,
            stop=self._end_goal,
            look=look,
        )

    def active(self) -> Pipeline:
        """What is at work. ConfigError where nothing is."""
        pipeline = self._pipeline()
        if self.leaving or self._node.state is not State.ACTIVE or pipeline is None:
            raise ConfigError(f"the node is {'leaving' if self.leaving else self._node.state}; activate it first")
        return pipeline

    def instruct(self, text: str) -> None:
        """Applied at the next inference; what was planned for the old one is dropped at once.

        Raises OmniStreamError or TimeoutError where the policy cannot take it; the old one then stays.
        """
        with self._control:
            text = text.strip()
            if text == self.instruction:
                return
            unknown: tuple[str, ...] = ()
            if (pipeline := self._pipeline()) is not None:
                thinking = pipeline.thinking
                before, self.instruction = self.instruction, ""  # nothing moves in between
                thinking.outdate()
                pipeline.loop.forget()
                try:
                    if text:
                        unknown = tuple(thinking.call(lambda: thinking.mind.instruct(text)).unknown)
                except (OmniStreamError, TimeoutError):
                    self.instruction = before
                    raise
                pipeline.loop.forget()  # and what an inference that was just ending has added since
            self.instruction, self.unknown = text, unknown
        self._node.get_logger().info(f"instruction: {text!r}" + (f"; unknown: {', '.join(unknown)}" if unknown else ""))

    # ---------------------------------------------------------------- services and topics

    def _answer(self, response: Any, change: Callable[[], str]) -> Any:
        try:
            response.message = change()
            response.success = True
        except (OmniStreamError, TimeoutError) as error:
            self._node.get_logger().warning(f"refused: {error}")
            response.success, response.message = False, str(error) or type(error).__name__
        self._answered()
        return response

    def _permit(self, halts: int | None = None) -> None:
        loop = self.active().loop
        if problem := loop.rival_problem():
            raise ConfigError(problem)
        if self.estop_held:
            raise ConfigError("the e-stop topic says true; release it and clear it first")
        loop.start(halts)

    def _on_start(self, _request: Trigger.Request, response: Trigger.Response) -> Trigger.Response:
        def change() -> str:
            with self._control:
                self._permit()
                return f"permitted to move: {self.instruction!r}" if self.instruction else "waits for an instruction"

        return self._answer(response, change)

    def _on_stop(self, _request: Trigger.Request, response: Trigger.Response) -> Trigger.Response:
        def change() -> str:
            self.active().loop.stop(Stop.REQUESTED, "")
            return "stopped"

        return self._answer(response, change)

    def _on_estop(self, _request: Trigger.Request, response: Trigger.Response) -> Trigger.Response:
        def change() -> str:
            loop = self.active().loop
            self.latched = True
            loop.estop()
            return "stopped; ~/clear_estop unlatches"

        return self._answer(response, change)

    def _on_clear_estop(self, _request: Trigger.Request, response: Trigger.Response) -> Trigger.Response:
        def change() -> str:
            if self.estop_held:
                raise ConfigError("the e-stop topic still says true; release it first")
            loop = self.active().loop
            self.latched = False
            loop.clear()
            return "cleared; ~/start permits to move"

        return self._answer(response, change)

    def _on_reset(self, _request: Trigger.Request, response: Trigger.Response) -> Trigger.Response:
        def change() -> str:
            with self._control:
                pipeline = self.active()
                pipeline.loop.stop(Stop.REQUESTED, "")
                pipeline.forget(clock=False)
                return "a new episode; ~/start permits to move"

        return self._answer(response, change)

    def _on_set_instruction(
        self, request: SetInstruction.Request, response: SetInstruction.Response
    ) -> SetInstruction.Response:
        def change() -> str:
            self.goals.check_free()
            self.instruct(request.instruction)
            response.unknown_words = list(self.unknown)
            return f"from now on {request.instruction!r}" if request.instruction else "no instruction: stands still"

        return self._answer(response, change)

    def _hear(self, message: String) -> None:
        try:
            self.goals.check_free()
            self.instruct(message.data)
        except (OmniStreamError, TimeoutError) as error:
            self._node.get_logger().warning(f"instruction refused: {error}")
        self._answered()

    def _hear_estop(self, message: Bool) -> None:
        self.estop_held = message.data
        pipeline = self._pipeline()
        if message.data and pipeline is not None and self._node.state is State.ACTIVE:
            self.latched = True
            pipeline.loop.estop()

    # ---------------------------------------------------------------- the action

    def _goal_problem(self, text: str, timeout: float) -> str:
        if not text:
            return "the instruction is empty; expected what to do"
        if not 0 <= timeout < math.inf:
            return f"timeout is {timeout} s; expected 0 (none) or more"
        try:
            loop = self.active().loop
        except ConfigError as error:
            return str(error)
        if self.estop_held or loop.control.guard.mode is Mode.STOPPED:
            return "the e-stop is latched; release it, then ~/clear_estop"
        return loop.rival_problem()

    def _halts(self) -> int:
        pipeline = self._pipeline()
        return 0 if pipeline is None else pipeline.loop.halts

    def _follow(self, text: str, mark: int) -> tuple[str, ...]:
        with self._control:
            self.active()
            self.instruct(text)
            self._permit(mark)
            return self.unknown

    def _end_goal(self, detail: str) -> None:
        if (pipeline := self._pipeline()) is not None:
            pipeline.loop.stop(Stop.REQUESTED, detail)
