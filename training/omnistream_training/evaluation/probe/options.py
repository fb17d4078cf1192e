# SPDX-License-Identifier: Apache-2.0
"""Options of `omnistream-eval probe`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from omnistream.errors import ConfigError
from omnistream.stream.policy import parse_policy

MIN_SCENES = 40


@dataclass(frozen=True)
class Probe:
    """What do frozen features know? Linear probes on rendered scenes, beside random weights and pixels."""

    weights: Annotated[str | None, tyro.conf.Positional, tyro.conf.arg(metavar="WEIGHTS")] = None
    """Checkpoint. Default: the shipped weights."""
    out: Annotated[Path, tyro.conf.arg(metavar="DIR")] = Path("build/probe")
    """Folder for results.json and pictures."""
    live: str = "worlds"
    """Source of the scenes: a name of the entry point group `omnistream.clips`, or "module:function"."""
    live_options: Annotated[tuple[str, ...], tyro.conf.arg(metavar="NAME=VALUE ...")] = ()
    """Options of the source."""
    scenes: int = 1000
    """How many. 60 % train the probes, 15 % choose their strength, 25 % test them."""
    frames: int = 4
    """Pictures per scene; the questions are about the last one."""
    rate: float = 10.0
    """Pictures per second."""
    policy: str = "sink_window:1,15"
    """Cache policy of the network."""
    seeds: int = 3
    """Random networks of the same shape to compare with."""

    def check(self) -> None:
        """Raises ConfigError for what cannot be meant."""
        parse_policy(self.policy)
        for name, least in (("scenes", MIN_SCENES), ("frames", 1), ("seeds", 1)):
            if getattr(self, name) < least:
                raise ConfigError(f"--{name} is {getattr(self, name)}; expected at least {least}")
        if any("=" not in option for option in self.live_options):
            raise ConfigError(f"--live-options {' '.join(self.live_options)}: expected NAME=VALUE each")
