# SPDX-License-Identifier: Apache-2.0
"""A look at the reference data of a sequence before any model runs: what is damaged, what a number has to beat."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np
from numpy.typing import NDArray

from omnistream.geometry.paths import path_length
from omnistream.io.files import replacing
from omnistream_training.evaluation.baselines import DepthHistogram, DepthMap, simple_paths
from omnistream_training.evaluation.findings import Finding, Findings
from omnistream_training.evaluation.predict import read_frames, reference_pixels
from omnistream_training.evaluation.protocols import Protocol
from omnistream_training.evaluation.score import usable_path
from omnistream_training.evaluation.sequences import SequenceRef

ALL = 1 << 30
"""As a number of frames: as many as there are."""


@dataclass(eq=False)
class Survey:
    """What the reference data of one sequence hold."""

    name: str
    frames: int = 0
    """That can be read, up to the longest length asked for."""
    size: tuple[int, int] | None = None
    """(height, width) of the pictures."""
    depth_frames: int = 0
    pose_frames: int = 0
    depth_range: tuple[float, float] | None = None
    """m: least and greatest valid reference depth."""
    first_image: str = ""
    """sha256 of the first picture's pixels: tells whether two people have the same data."""
    description: str = ""
    findings: list[Finding] = field(default_factory=list)
    paths: dict[int, dict[str, Any] | None] = field(default_factory=dict)
    """By length: `path` in m and the baselines of `simple_paths`; None where no path can be scored."""
    histograms: dict[int, DepthHistogram] = field(default_factory=dict)
    """By length."""
    map: DepthMap = field(default_factory=DepthMap)

    def save(self, path: Path, key: str) -> None:
        """As .npz, atomically; no pickles."""
        about = {name: getattr(self, name) for name in ABOUT}
        about |= {"key": key, "findings": [vars(finding) for finding in self.findings]}
        about["paths"] = {str(length): value for length, value in self.paths.items()}
        arrays: dict[str, NDArray[Any]] = {"sums": self.map.sums, "counts": self.map.counts}
        for length, histogram in self.histograms.items():
            arrays |= {f"values_{length}": histogram.values, f"counts_{length}": histogram.counts}
        with replacing(path) as temporary:
            np.savez_compressed(temporary, about=np.array(json.dumps(about)), **arrays)  # type: ignore[arg-type]

    @staticmethod
    def load(path: Path, key: str) -> Survey | None:
        """What `save` wrote under the same key; None if there is no such thing."""
        try:
            with np.load(path, allow_pickle=False) as file:
                about = json.loads(str(file["about"]))
                if about["key"] != key:
                    return None
                found = Survey(**{name: about[name] for name in ABOUT})
                found.findings = [Finding(**finding) for finding in about["findings"]]
                found.paths = {int(length): value for length, value in about["paths"].items()}
                found.map = DepthMap(file["sums"], file["counts"])
                found.histograms = {
                    length: DepthHistogram(file[f"values_{length}"], file[f"counts_{length}"]) for length in found.paths
                }
                return found
        except (OSError, ValueError, KeyError, EOFError, BadZipFile):
            return None


ABOUT = ("name", "frames", "size", "depth_frames", "pose_frames", "depth_range", "first_image", "description")


def survey(ref: SequenceRef, protocol: Protocol, lengths: tuple[int, ...], findings: Findings) -> Survey:
    """Read a sequence's reference data once, for all `lengths` (numbers of first frames, ascending)."""
    found, poses = Survey(ref.name), []
    running, by_length = DepthHistogram(), {}
    for frame in read_frames(ref, protocol, findings):
        if found.frames == 0:
            found.size = (frame.image.shape[0], frame.image.shape[1])
            found.first_image = hashlib.sha256(frame.image.tobytes()).hexdigest()
        found.frames += 1
        poses.append(frame.T_world_camera)
        pixels = reference_pixels(frame, protocol, findings)
        if pixels is not None:
            depth, valid = pixels
            found.depth_frames += 1
            found.map.add(depth, valid)
            running.add(depth[valid])
        if found.frames in lengths:
            by_length[found.frames] = DepthHistogram(running.values, running.counts)
        if found.frames >= lengths[-1]:
            break
    found.pose_frames = sum(pose is not None for pose in poses)
    if running.values.size:
        found.depth_range = (float(running.values[0]), float(running.values[-1]))
    for length in lengths:
        found.histograms[length] = by_length.get(length, running)
        found.paths[length] = _paths(poses, protocol, length, findings)
        if found.frames < length != ALL:
            findings.add("short", f"{found.frames} frames; {length} were asked for")
    found.findings = findings.list
    return found


def _paths(
    poses: list[NDArray[np.float64] | None], protocol: Protocol, length: int, findings: Findings
) -> dict[str, Any] | None:
    known = [pose for pose in poses[:length] if pose is not None]
    if protocol.pose is None or not known:
        return None
    reference = np.stack(known)
    whole = path_length(np.stack([pose for pose in poses if pose is not None]))
    path = usable_path(reference, whole, protocol.pose, min(length, len(poses)), findings)
    return None if path is None else {"path": path, **simple_paths(reference)}
