# SPDX-License-Identifier: Apache-2.0
"""A ROS domain that nobody else on this machine uses, for graphs that should be alone: the demo, benchmarks, tests."""

from __future__ import annotations

import fcntl
import os
import random
import socket
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from omnistream_ros.environment import MAX_DOMAIN_ID

# RTPS 2.5, 9.6.2.3: in domain d discovery listens on UDP port 7400 + 250 d (multicast) and, of the domain's participant
# number p, on 7410 + 250 d + 2 p (unicast). On loopback there is only the latter. Numbers are given out from 0, but
# Fast DDS counts all participants a process ever had, in whatever domain: so all that fit into one are looked at.
_PORT_BASE, _PORT_GAIN = 7400, 250
_PORT_OFFSETS = (0, *range(10, _PORT_GAIN, 2))


@contextmanager
def reserved_domain_id() -> Iterator[int]:
    """A domain id (1..101) without participants, ours until the block ends.

    Others of our own are kept out by a locked file, which the kernel unlocks even when this process is killed; all
    other ROS 2 processes are seen by the ports that their discovery listens on.

    Raises:
        RuntimeError: all domains are in use.
    """
    candidates = list(range(1, MAX_DOMAIN_ID + 1))  # not 0, where everybody is by default
    random.SystemRandom().shuffle(candidates)
    for domain_id in candidates:
        lock = _lock(domain_id)
        if lock is None:
            continue
        try:
            if _discovery_ports_are_free(domain_id):
                yield domain_id
                return
        finally:
            os.close(lock)
    raise RuntimeError(f"all ROS domains from 1 to {MAX_DOMAIN_ID} are in use on this machine; set ROS_DOMAIN_ID")


def _lock(domain_id: int) -> int | None:
    path = Path(tempfile.gettempdir()) / f"omnistream-domain-{os.getuid()}-{domain_id}.lock"
    descriptor = os.open(path, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(descriptor)
        return None
    return descriptor


def _discovery_ports_are_free(domain_id: int) -> bool:
    return all(_is_free(_PORT_BASE + _PORT_GAIN * domain_id + offset) for offset in _PORT_OFFSETS)


def _is_free(port: int) -> bool:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:  # without SO_REUSEADDR, on purpose
        try:
            probe.bind(("", port))
        except OSError:
            return False
    return True
