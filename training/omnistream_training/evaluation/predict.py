# SPDX-License-Identifier: Apache-2.0
"""One sequence, frame by frame, through something that predicts; predictions at valid reference pixels are kept."""

from __future__ import annotations

import time
from collections.abc import Callable, Generator
from dataclasses import dataclass, field
from typing import Protocol as Interface

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray

from omnistream.engines.base import Engine
from omnistream.io.frames import Frame
from omnistream.model.omnistream import OmniStream
from omnistream.stream.gate import TimeBase
from omnistream.stream.policy import parse_policy
from omnistream.stream.session import StreamSession
from omnistream_training.evaluation.depth_metrics import valid_pixels
from omnistream_training.evaluation.findings import Findings
from omnistream_training.evaluation.network_input import horizontal_fov, prepare
from omnistream_training.evaluation.protocols import InputRule, Protocol
from omnistream_training.evaluation.sequences import SequenceRef

Depth = NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class FramePrediction:
    """What one frame gave; None: not predicted."""

    depth: Depth | None = None
    """[h, w] at any resolution."""
    T_world_camera: NDArray[np.float64] | None = None
    fov_error: float | None = None
    """Degrees, horizontal, where the true K is known."""


class Predictor(Interface):
    """Anything to evaluate. `start` begins a new sequence: its name and its number of frames."""

    name: str

    def start(self, sequence: str, frames: int) -> None: ...

    def step(self, frame: Frame) -> FramePrediction: ...


@dataclass(eq=False)
class Track:
    """One sequence: per frame, flat depths at valid pixels (empty without reference), and poses."""

    predicted: list[Depth] = field(default_factory=list)
    reference: list[Depth] = field(default_factory=list)
    poses: list[NDArray[np.float64] | None] = field(default_factory=list)
    reference_poses: list[NDArray[np.float64] | None] = field(default_factory=list)
    fov_errors: list[float | None] = field(default_factory=list)
    seconds: float = 0.0
    """Spent predicting."""
    sample: tuple[NDArray[np.uint8], Depth, Depth] | None = None
    """Picture, reference and predicted depth at reference size, of one frame in the middle: for the plot."""

    def __len__(self) -> int:
        return len(self.poses)


class StreamPredictor:
    """A model in a `StreamSession`; with `frame_by_frame` it forgets everything before each frame."""

    def __init__(
        self,
        model: OmniStream,
        engine: Engine,
        *,
        policy: str,
        rule: InputRule,
        want: frozenset[str],
        frame_by_frame: bool = False,
        time_base: TimeBase = "index",
        known_lens: bool = True,
    ) -> None:
        """policy, time_base: as `StreamSession` takes them, and `full` for a cache as long as each sequence.

        known_lens: whether a checkpoint that can use the true intrinsics is told them.
        """
        self.name = "frame by frame" if frame_by_frame else policy
        parse_policy(policy)  # a wrong one is refused now
        self._model, self._engine, self._policy = model, engine, policy
        self._rule, self._want, self._forget = rule, want, frame_by_frame
        self._frames, self._time_base, self._known_lens = 1, time_base, known_lens
        self._session: StreamSession | None = None

    def start(self, sequence: str, frames: int) -> None:
        self._session, self._frames = None, frames

    def step(self, frame: Frame) -> FramePrediction:
        image, K = prepare(frame.image, frame.K, self._rule)
        if self._session is None:
            policy = "window:1" if self._forget else self._policy
            size = None if self._rule.long_side is None else (image.shape[0], image.shape[1])
            self._session = StreamSession(
                self._model,
                engine=self._engine,
                policy=f"full:{self._frames}" if policy == "full" else policy,
                image_size=size,
                time_base=self._time_base,
            )
        elif self._forget:
            self._session.reset()
        result = self._session.step(image, frame.stamp, want=self._want, K=K if self._known_lens else None)
        error = None
        told = self._known_lens and self._model.config.lens == "known"
        if result.K is not None and K is not None and not told:  # else it is the true one
            error = horizontal_fov(result.K, result.network_size[1]) - horizontal_fov(K, image.shape[1])
        return FramePrediction(result.depth, None if self._forget else result.T_world_camera, error)


def read_frames(ref: SequenceRef, protocol: Protocol, findings: Findings) -> Generator[Frame]:
    """The protocol's frames of a sequence. Damage goes to `findings`, which raises it or lets the rest go on."""
    opened = ref.open()
    for message in opened.missing:
        findings.add("frame", message)
    source = opened.source.configure(rate=None, loop=False, on_error="raise" if findings.on_error == "stop" else "skip")
    source.MAX_REASONS = 100_000
    chosen = protocol.select(1 << 40) if protocol.layout == "folders" else range(1 << 40)
    for frame in source:
        if frame.index >= chosen.stop:
            break
        if frame.index in chosen:
            yield frame
    for reason in source.skip_reasons:
        findings.add("frame", reason)


def run_sequence(
    ref: SequenceRef,
    protocol: Protocol,
    predictor: Predictor,
    findings: Findings,
    *,
    frames: int,
    tick: Callable[[], None] = lambda: None,
) -> Track:
    """The first `frames` frames of the sequence through the predictor; `tick` is called after each."""
    track = Track()
    predictor.start(ref.name, frames)
    reader = read_frames(ref, protocol, findings)
    for frame in reader:
        begin = time.perf_counter()
        prediction = predictor.step(frame)
        track.seconds += time.perf_counter() - begin
        _keep(track, frame, prediction, protocol, findings, with_sample=len(track) >= frames // 2)
        tick()
        if len(track) == frames:
            break
    reader.close()
    return track


def reference_pixels(frame: Frame, protocol: Protocol, findings: Findings) -> tuple[Depth, NDArray[np.bool_]] | None:
    """Reference depth [H, W] and where it counts; None without depth, or where none of it can be used (a finding)."""
    if frame.depth is None or protocol.depth is None:
        return None
    valid = valid_pixels(frame.depth, protocol.depth.min_depth, protocol.depth.max_depth)
    if not valid.any():
        findings.add("depth", f"{frame.name}: its depth has no finite value within the protocol's range")
        return None
    return frame.depth, valid


def _keep(
    track: Track,
    frame: Frame,
    prediction: FramePrediction,
    protocol: Protocol,
    findings: Findings,
    with_sample: bool,
) -> None:
    track.poses.append(prediction.T_world_camera)
    track.reference_poses.append(frame.T_world_camera)
    track.fov_errors.append(prediction.fov_error)
    pixels = reference_pixels(frame, protocol, findings)
    if pixels is None or prediction.depth is None:
        track.predicted.append(np.empty(0, np.float32))
        track.reference.append(np.empty(0, np.float32))
        return
    reference, valid = pixels
    predicted = resize_bicubic(prediction.depth, (reference.shape[0], reference.shape[1]))
    track.predicted.append(predicted[valid])
    track.reference.append(reference[valid])
    if with_sample and track.sample is None:
        track.sample = (frame.image, np.where(valid, reference, np.nan), predicted)


def resize_bicubic(depth: Depth, size: tuple[int, int]) -> Depth:
    """[h, w] -> [H, W]: cubic, a = -0.75, edges on edges, no antialiasing: what OpenCV's INTER_CUBIC does."""
    if depth.shape == size:
        return depth
    tensor = torch.from_numpy(np.ascontiguousarray(depth, np.float32))[None, None]
    return F.interpolate(tensor, size=size, mode="bicubic", align_corners=False)[0, 0].numpy()
