# SPDX-License-Identifier: Apache-2.0
"""omnistream_msgs/StreamStatus of one camera."""

from __future__ import annotations

import math

from builtin_interfaces.msg import Time
from std_msgs.msg import Header

from omnistream.stream.gate import ResetReason
from omnistream.stream.session import StreamSession
from omnistream_msgs.msg import DropCount, StageLatency, StreamStatus
from omnistream_ros.images import ns_to_stamp

from .monitor import Monitor

RESET_CODES = {reason: getattr(StreamStatus, f"RESET_{reason.name}") for reason in ResetReason}


def status_message(
    state: int,
    detail: str,
    camera: str,
    now: Time,
    stream: tuple[Monitor, StreamSession, int] | None,
) -> StreamStatus:
    """All that is known. stream: monitor, session and segment of the camera; None while the node is not configured."""
    message = StreamStatus(state=state, detail=detail, camera=camera)
    message.header = Header(stamp=now)
    if stream is None:
        return message
    monitor, session, message.segment = stream
    message.header.frame_id = monitor.frame_id
    message.frames_received = monitor.received
    message.frames_processed = monitor.processed
    message.frames_seen = session.frames_seen
    message.drops = [DropCount(reason=reason, count=count) for reason, count in monitor.drop_counts().items()]
    message.input_rate = monitor.arrivals.rate()
    message.policy = str(session.policy)
    message.cache_slots = session.slots
    message.cache_filled = session.filled
    message.cache_bytes = session.nbytes
    message.engine = engine_name(session)
    message.scale = session.scale
    message.model_hash = session.model_hash
    message.outputs = sorted(session.outputs)
    message.last_reset_reason = RESET_CODES[monitor.reset_reason]
    message.last_reset_stamp = ns_to_stamp(monitor.reset_stamp_ns)
    for stage, window in monitor.latencies.items():
        latency = window.summary()
        if not math.isnan(latency.max):  # the stage ran at least once
            message.latencies.append(
                StageLatency(stage=stage, p50_ms=latency.p50, p99_ms=latency.p99, max_ms=latency.max)
            )
    return message


def engine_name(session: StreamSession) -> str:
    """``torch:bfloat16``."""
    spec = session.engine.spec
    return f"{spec.name}:{str(spec.dtype).removeprefix('torch.')}"
