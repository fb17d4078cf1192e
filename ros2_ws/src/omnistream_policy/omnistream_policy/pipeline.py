# SPDX-License-Identifier: Apache-2.0
"""What a configured node is made of: inputs, the network's thread, the control loop and outputs, wired together."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from typing import Any

from std_msgs.msg import Header

from omnistream.io.run_log import RunLog
from omnistream.policy.drive import Drive
from omnistream.policy.guard import Mode, Stop
from omnistream.policy.mind import Mind, Thought
from omnistream.policy.opening import identity, open_policy, open_session
from omnistream.policy.settings import control_settings
from omnistream.sync.aligner import Observation
from omnistream_msgs.msg import ActionChunk
from omnistream_ros.images import seconds_to_stamp
from omnistream_ros.lifecycle import ManagedNode, State
from omnistream_ros.qos import qos_profile
from omnistream_ros.run_log import open_run_log

from .inputs import Inputs
from .loop import Loop
from .outputs import Outputs
from .thinking import Thinking


class Pipeline:
    """From configure to cleanup. Observations go to the network, its chunks to the loop, and what the loop sends out.

    Args:
        node: whose parameters, clock and topics these are.
        instruction: what to follow now; "" for nothing.
        changed: see `Loop`, as for the next two.
        jumped: the clock was set.
        broken: the loop failed.

    Raises:
        OmniStreamError, OSError: policy, contract, parameters or run log cannot be used. Nothing is left behind.
    """

    def __init__(
        self,
        node: ManagedNode,
        *,
        instruction: Callable[[], str],
        changed: Callable[[], Any],
        jumped: Callable[[], None],
        broken: Callable[[str], None],
    ) -> None:
        self._node, self._instruction = node, instruction
        p = node.parameters
        policy = open_policy(p)
        settings = control_settings(p, policy.contract)
        with ExitStack() as made:
            self.inputs = Inputs(node, p, policy.contract, policy.shape.state > 0, self._on_observation)
            topics = self.inputs.topics()
            self.outputs = Outputs(node, p, settings)
            made.callback(self.outputs.destroy)
            session = open_session(policy, p)
            header = {"topics": topics, "outputs": self.outputs.topic_of} | identity(session)
            log = open_run_log(node, header)
            drive = Drive(settings, self.outputs.outbox, log)
            if log is not None:
                made.callback(_end_log, log, drive)
            mind = Mind(session, log)
            self.thinking = Thinking(mind, self._wants_chunk, self._on_chunk, self._on_failure, p["max_failures"])
            self.loop = Loop(
                node,
                drive,
                self.inputs,
                self.outputs,
                p["execute"],
                p["realtime_priority"],
                p["tick_phase"],
                busy=self.thinking.busy,
                instructed=lambda: bool(instruction()),
                changed=changed,
                jumped=jumped,
                broken=broken,
            )
            self._chunks = node.create_lifecycle_publisher(ActionChunk, "~/chunk", qos_profile("reliable"))
            made.callback(node.destroy_lifecycle_publisher, self._chunks)
            self._made = made.pop_all()

    def begin(self) -> None:
        """Observes from now on; nothing leaves before a start."""
        self.thinking.post(self.thinking.mind.reset)  # what was seen before a pause is no memory of this episode
        self.thinking.start()
        self.inputs.subscribe()
        self.loop.begin()

    def rest(self, timeout: float) -> None:
        """No more observations, after `loop.end`; waits so many seconds for the inference in hand."""
        self.inputs.unsubscribe()
        self.thinking.outdate()
        self.thinking.stop(timeout)

    def forget(self, *, clock: bool) -> None:
        """Everything that was seen and planned; with `clock` the count of ticks too."""
        self.thinking.outdate()
        self.loop.forget(clock=clock)
        self.inputs.forget()
        self.thinking.post(self.thinking.mind.reset)

    def close(self) -> None:
        """Removes the topics and ends the run log."""
        self._made.close()

    def say(self) -> None:
        """Logs what is read, and what will leave."""
        logger, p = self._node.get_logger(), self._node.parameters
        reads = ", ".join(f"{name}: {topic}" for name, topic in self.inputs.topics().items())
        logger.info(f"policy {p['policy']} reads {reads}")
        for line in self.outputs.describe():
            logger.info(line)
        if p["dry_run"]:
            logger.warning("dry run: commands do not go to the robot")

    # ---------------------------------------------------------------- the network's thread

    def _on_observation(self, observation: Observation) -> None:
        self.thinking.observe(observation)
        self.loop.heard(observation.stamp / 1e9)

    def _wants_chunk(self) -> int | None:
        return self.loop.wants_chunk() if self._instruction() else None

    def _on_chunk(self, thought: Thought) -> None:
        chunk = thought.chunk
        if chunk is None or chunk.stamp is None:
            return
        ticks = self.loop.adopt(thought)
        if ticks is None:
            return
        frame = self.loop.control.settings.contract.action.frame
        self._chunks.publish(
            ActionChunk(
                header=Header(stamp=seconds_to_stamp(chunk.stamp), frame_id=frame),
                sequence=self.thinking.chunks,
                start_tick=ticks[0],
                arrived_tick=ticks[1],
                rate=chunk.rate,
                instruction=self._instruction(),
                names=list(chunk.names),
                rows=len(chunk.actions),
                values=chunk.actions.ravel().tolist(),
            )
        )

    def _on_failure(self, reason: str, detail: str) -> None:
        if self._node.state is not State.ACTIVE:
            return
        stands = self.loop.control.guard.mode in (Mode.DISABLED, Mode.STOPPED)
        if stands and detail == self.loop.detail:  # once, not for every picture: somebody else may command the arm now
            return
        self._node.get_logger().error(f"stopped ({reason}): {detail}")
        self.loop.stop(Stop(reason), detail)


def _end_log(log: RunLog, drive: Drive) -> None:
    log.close(messages=drive.left.messages, hash=drive.left.hex)
