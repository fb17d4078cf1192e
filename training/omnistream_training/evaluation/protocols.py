# SPDX-License-Identifier: Apache-2.0
"""What is measured and how: one frozen dataclass per protocol, every constant with its source.

The published ones are those of MonST3R and CUT3R, which later papers on streaming geometry share:
  MonST3R  github.com/Junyi42/monst3r    datasets_preprocess/prepare_*.py, data/download_*.sh
  CUT3R    github.com/CUT3R/CUT3R        eval/video_depth/{eval_depth,tools}.py, eval/relpose/{launch,evo_utils}.py
  TTT3R    github.com/Inception3D/TTT3R  the long variants
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from typing import Literal

from omnistream.errors import ConfigError
from omnistream_training.evaluation.depth_align import ALIGNMENTS, Alignment
from omnistream_training.evaluation.depth_metrics import Weighting

Layout = Literal["sintel", "bonn", "kitti", "tum", "scannet", "folders"]
OnError = Literal["stop", "skip"]


@dataclass(frozen=True, kw_only=True)
class InputRule:
    """How a picture reaches the network."""

    long_side: int | None = None
    """Long side in pixels, then each side down to a multiple of 16; None: the session's own resize (aspect ratio kept,
    the checkpoint's number of pixels)."""
    crop: bool = False
    """Cut the remainder off about the centre (poses) instead of squeezing it in (depth)."""

    @property
    def line(self) -> str:
        if self.long_side is None:
            return "input: the session's resize to the checkpoint's pixel budget"
        how = "centre crop" if self.crop else "resize"
        return f"input: long side {self.long_side}, Lanczos, {how} to multiples of 16, square becomes 4:3"


@dataclass(frozen=True, kw_only=True)
class DepthRule:
    """How predicted depth is compared. Predictions are resized to the reference by bicubic interpolation."""

    alignment: Alignment
    weighting: Weighting = "pixels"
    min_depth: float = 0.0
    """m; reference pixels at or below it are left out."""
    max_depth: float | None = None
    """m; reference pixels at or beyond it are left out."""
    clip: float | None = None
    """m; aligned predictions are cut down to it."""
    steps_per_metre: float | None = None
    """Of integer depth files; `align_depth` says why it matters."""

    @property
    def line(self) -> str:
        upper = "" if self.max_depth is None else f" < {self.max_depth:g} m"
        clip = "no clip" if self.clip is None else f"prediction <= {self.clip:g} m after alignment"
        mean = "mean over pixels" if self.weighting == "pixels" else "mean over sequences"
        alignment = "metric, no alignment" if self.alignment == "metric" else f"per-sequence {self.alignment}"
        return f"depth: {alignment}, {self.min_depth:g} < reference{upper}, {clip}, bicubic to reference size, {mean}"


@dataclass(frozen=True, kw_only=True)
class PoseRule:
    """How the camera path is compared: ATE and RPE (1 frame, all pairs), RMSE, after Sim(3) on the camera positions."""

    max_time_difference: float | None = None
    """s between picture and reference pose (TUM layout); None: they come frame by frame."""
    min_path: float = 0.0
    """m over all frames used; sequences whose camera moves less are left out of the mean, and counted."""
    degenerate: Literal["drop", "worst"] = "drop"
    """Sequences without a defined Sim(3): dropped and counted (published), or scored as standing still."""

    @property
    def line(self) -> str:
        least = f", paths >= {self.min_path:g} m" if self.min_path else ""
        still = "dropped and counted" if self.degenerate == "drop" else "scored as standing still"
        return f"pose: Sim(3) Umeyama, ATE and RPE(1 frame) RMSE, degenerate ones {still}{least}, mean over sequences"


@dataclass(frozen=True, kw_only=True)
class Protocol:
    """One benchmark."""

    name: str
    source: str
    layout: Layout
    """Which reader, see `benchmarks` and `folders`."""
    sequences: tuple[str, ...] | None = None
    """Names as the protocol writes them; None: all that are there."""
    start: int = 0
    stride: int = 1
    count: int | None = None
    """At most so many frames per sequence, after start and stride."""
    input: InputRule = field(default_factory=InputRule)
    depth: DepthRule | None = None
    pose: PoseRule | None = None
    strict: bool = False

    def __post_init__(self) -> None:
        if self.start < 0 or self.stride < 1 or (self.count is not None and self.count < 1):
            raise ConfigError(
                f"protocol {self.name}: start {self.start}, stride {self.stride}, count {self.count}; "
                "expected start >= 0, stride >= 1, count >= 1"
            )
        if self.depth is not None and self.depth.alignment not in ALIGNMENTS:
            raise ConfigError(f"alignment {self.depth.alignment!r} is unknown; expected one of {', '.join(ALIGNMENTS)}")

    @property
    def line(self) -> str:
        """The one line that stands beside every number."""
        which = "all sequences" if self.sequences is None else f"{len(self.sequences)} sequences"
        last = "" if self.count is None else f", at most {self.count} frames"
        frames = f"{which}, frames from {self.start} by {self.stride}{last}"
        rules = [rule.line for rule in (self.input, self.depth, self.pose) if rule is not None]
        return "; ".join([f"{self.name}{' STRICT' if self.strict else ''}: {frames}", *rules])

    def made_strict(self) -> Protocol:
        """No sequence is left out, whatever happens, and every sequence counts the same."""
        depth = self.depth and dataclasses.replace(self.depth, weighting="sequences")
        pose = self.pose and dataclasses.replace(self.pose, degenerate="worst", min_path=0.0)
        return dataclasses.replace(self, depth=depth, pose=pose, strict=True)

    def aligned(self, alignment: Alignment) -> Protocol:
        """The same with another depth alignment."""
        if self.depth is None:
            raise ConfigError(f"protocol {self.name} compares no depth; an alignment of depth means nothing there")
        return dataclasses.replace(self, depth=dataclasses.replace(self.depth, alignment=alignment))

    def select(self, total: int) -> range:
        """Positions of the frames to use among `total`."""
        positions = range(self.start, total, self.stride)
        return positions if self.count is None else positions[: self.count]


SINTEL_SEQUENCES = (
    *("alley_2", "ambush_4", "ambush_5", "ambush_6", "cave_2", "cave_4", "market_2"),
    *("market_5", "market_6", "shaman_3", "sleeping_1", "sleeping_2", "temple_2", "temple_3"),
)
"""CUT3R `eval/video_depth/eval_depth.py`. Sequences with a static camera are not in it: Umeyama degenerates there."""

KITTI_VAL_DRIVES = (
    *(f"2011_09_26_drive_{number:04d}_sync" for number in (2, 5, 13, 20, 23, 36, 79, 95, 113)),
    *("2011_09_28_drive_0037_sync", "2011_09_29_drive_0026_sync"),
    *("2011_09_30_drive_0016_sync", "2011_10_03_drive_0047_sync"),
)
"""The `val` drives of KITTI's annotated depth maps; MonST3R `data/download_kitti.sh`."""

TUM_DYNAMICS = tuple(
    f"rgbd_dataset_freiburg3_{what}_{motion}"
    for what in ("sitting", "walking")
    for motion in ("halfsphere", "rpy", "static", "xyz")
)
"""MonST3R `data/download_tum.sh`."""

BONN_SEQUENCES = ("balloon2", "crowd2", "crowd3", "person_tracking2", "synchronous")
SCANNET_SCENES = tuple(f"scene{number:04d}_00" for number in range(707, 807))

DEPTH_INPUT = InputRule(long_side=512, crop=False)
"""CUT3R `src/dust3r/utils/image.py: load_images_for_eval`, `--size 512`; `no_crop` is the default for depth."""
POSE_INPUT = InputRule(long_side=512, crop=True)

SINTEL_DEPTH = Protocol(
    name="sintel-depth",
    source="CUT3R eval_depth.py: pass `final`, 0 < gt < 70, prediction clipped at 70 after alignment",
    layout="sintel",
    sequences=SINTEL_SEQUENCES,
    input=DEPTH_INPUT,
    depth=DepthRule(alignment="scale", max_depth=70.0, clip=70.0),
)
BONN_DEPTH = Protocol(
    name="bonn-depth",
    source="MonST3R prepare_bonn.py: sorted rgb, sorted depth, both [30:140]; CUT3R eval_depth.py: png / 5000, gt < 70",
    layout="bonn",
    sequences=BONN_SEQUENCES,
    start=30,
    count=110,
    input=DEPTH_INPUT,
    depth=DepthRule(alignment="scale", max_depth=70.0, steps_per_metre=5000.0),
)
KITTI_DEPTH = Protocol(
    name="kitti-depth",
    source="MonST3R prepare_kitti.py: first 110 annotated frames, image_02; CUT3R eval_depth.py: png / 256, no maximum",
    layout="kitti",
    sequences=KITTI_VAL_DRIVES,
    count=110,
    input=DEPTH_INPUT,
    depth=DepthRule(alignment="scale", steps_per_metre=256.0),
)
SINTEL_POSE = Protocol(
    name="sintel-pose",
    source="CUT3R relpose: the 14 sequences, camdata_left (world to camera, inverted), all frames",
    layout="sintel",
    sequences=SINTEL_SEQUENCES,
    input=POSE_INPUT,
    pose=PoseRule(),
)
TUM_POSE = Protocol(
    name="tum-pose",
    source="MonST3R prepare_tum.py: rgb.txt with groundtruth.txt, greedy, |dt| < 0.02 s, then every 3rd, first 90",
    layout="tum",
    sequences=TUM_DYNAMICS,
    stride=3,
    count=90,
    input=POSE_INPUT,
    pose=PoseRule(max_time_difference=0.02),
)
SCANNET_POSE = Protocol(
    name="scannet-pose",
    source="MonST3R download_scannetv2.sh, prepare_scannet.py: scenes 0707_00 to 0806_00, every 3rd frame, first 90",
    layout="scannet",
    sequences=SCANNET_SCENES,
    stride=3,
    count=90,
    input=POSE_INPUT,
    pose=PoseRule(),
)
RECORDINGS = Protocol(
    name="recordings",
    source="ours: any folders that omnistream reads; alignment by the checkpoint's scale unless given",
    layout="folders",
    depth=DepthRule(alignment="scale_exact"),
    pose=PoseRule(),
)
TABLETOP = Protocol(
    name="tabletop",
    source="ours: the tabletop simulator as shipped, held-out seeds, metric",
    layout="folders",
    depth=DepthRule(alignment="metric"),
    pose=PoseRule(min_path=1.0),
)
WORLDS = Protocol(
    name="worlds",
    source="ours: rendered worlds, everything random, held-out seeds, one scale per sequence",
    layout="folders",
    depth=DepthRule(alignment="scale_exact"),
    pose=PoseRule(min_path=1.0),
)


def _long(protocol: Protocol, count: int, stride: int) -> Protocol:
    name, source = f"{protocol.name}-long", f"TTT3R, long variant of: {protocol.source}"
    return dataclasses.replace(protocol, name=name, source=source, count=count, stride=stride)


PUBLISHED = (SINTEL_DEPTH, BONN_DEPTH, KITTI_DEPTH, SINTEL_POSE, TUM_POSE, SCANNET_POSE)
LONG = (
    _long(BONN_DEPTH, count=500, stride=1),
    _long(KITTI_DEPTH, count=500, stride=1),
    _long(TUM_POSE, count=1000, stride=1),
    _long(SCANNET_POSE, count=1000, stride=3),
)
PROTOCOLS = {protocol.name: protocol for protocol in (*PUBLISHED, *LONG, TABLETOP, WORLDS, RECORDINGS)}


def protocol(name: str) -> Protocol:
    """By name; ConfigError lists the names."""
    if name not in PROTOCOLS:
        raise ConfigError(f"protocol {name!r} is unknown; expected one of {', '.join(PROTOCOLS)}")
    return PROTOCOLS[name]
