# SPDX-License-Identifier: Apache-2.0
"""Options of `omnistream-eval geometry` and `omnistream-eval twins`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import tyro

from omnistream_training.evaluation.depth_align import Alignment
from omnistream_training.evaluation.protocols import OnError


@dataclass(frozen=True)
class Geometry:
    """Depth and camera pose of a model, streamed, by a protocol, with baselines and 95 % intervals."""

    data: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="DATA")]
    """The data set's folder (`omnistream-eval protocols` shows the layouts), a recording, or a folder of recordings."""
    out: Annotated[Path, tyro.conf.arg(metavar="DIR")]
    """Folder for results.json, plots, and what lets a stopped evaluation go on."""
    protocol: Annotated[str, tyro.conf.arg(metavar="NAME")] = "recordings"
    """What is measured; `omnistream-eval protocols` lists them."""
    weights: Annotated[str | None, tyro.conf.arg(metavar="PATH")] = None
    """Checkpoint. Default: the shipped weights, or a small model with random ones, whose depth means nothing."""
    policy: Annotated[tuple[str, ...], tyro.conf.arg(metavar="POLICY ...")] = ("sink_window:1,15",)
    """Cache policies: full, full:N, window:W, sink_window:S,W. The baselines are compared with each of them."""
    frames: Annotated[tuple[int, ...], tyro.conf.arg(metavar="N ...")] = ()
    """Score the first N frames of every sequence, for each N. Default: the protocol's number, or all."""
    align: Alignment | None = None
    """Alignment of depth instead of the protocol's. Of recordings the default follows the checkpoint's scale."""
    frame_by_frame: bool = True
    """Also run the same weights without memory: forgotten before every frame."""
    depth_map: Annotated[Path | None, tyro.conf.arg(metavar="FILE")] = None
    """Mean depth map of the training set (`omnistream-eval depth-map`). Default: the mean of the other sequences."""
    strict: bool = False
    """No sequence may be left out, and each counts the same, whatever its number of pixels."""
    on_error: OnError = "stop"
    """Damaged or missing data: stop and name it, or leave it out and count it."""
    input: Literal["protocol", "checkpoint"] = "protocol"
    """Size of the pictures that the network gets: the protocol's, or the session's own for this checkpoint."""
    time_base: Literal["index", "stamps"] = "index"
    """The clock of the model: frames counted, as in a node, or stamps at 30 Hz to the frame, as in training."""
    known_lens: bool = True
    """Tell checkpoints that can use them the true intrinsics, as CameraInfo does on a robot."""
    limit: Annotated[int | None, tyro.conf.arg(metavar="N")] = None
    """Only the first N sequences; the report says so."""
    pictures: Annotated[int, tyro.conf.arg(metavar="N")] = 6
    """Depth pictures of so many sequences."""
    fresh: bool = False
    """Do everything again, whatever an earlier run in DIR has done."""
    engine: Annotated[str, tyro.conf.arg(metavar="NAME")] = "auto"
    """What runs the model; `omnistream-info` lists the engines of this machine."""
    device: Annotated[str, tyro.conf.arg(metavar="NAME")] = "auto"
    """auto, cpu, cuda or cuda:N."""
    dtype: Literal["auto", "float32", "bfloat16", "float16", "int8"] = "auto"
    """Precision of the model; auto takes what is fast here."""
    threads: Annotated[int | None, tyro.conf.arg(metavar="N")] = None
    """CPU threads of the model; default: torch's choice."""


@dataclass(frozen=True)
class Twins:
    """Does memory help? Streaming runs against twins without memory, on the same sequences, over several seeds."""

    runs: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="RUNS")]
    """Directory that `make twins` trained in: stream-0, frame-0, anchor-0, stream-1 and so on."""
    data: Annotated[tuple[str, ...], tyro.conf.arg(metavar="PROTOCOL=DIR ...")]
    """Held-out sequences, as in worlds=DIR."""
    out: Annotated[Path, tyro.conf.arg(metavar="DIR")]
    """Folder for twins.json, plots, and what lets a stopped evaluation go on."""
    frames: Annotated[tuple[int, ...], tyro.conf.arg(metavar="N ...")] = (16, 64, 110)
    """Score the first N frames of every sequence, for each N."""
    policy: Annotated[tuple[str, ...], tyro.conf.arg(metavar="POLICY ...")] = ("sink_window:1,15", "window:16", "full")
    """Cache policies of the streaming runs; the first is judged."""
    limit: Annotated[int | None, tyro.conf.arg(metavar="N")] = None
    """Only the first N sequences."""
    device: str = "auto"
    """auto, cpu, cuda or cuda:N."""
    threads: Annotated[int | None, tyro.conf.arg(metavar="N")] = None
    """CPU threads of the model; default: torch's choice."""
