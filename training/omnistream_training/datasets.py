# SPDX-License-Identifier: Apache-2.0
"""The data sets that the paper pre-trains on (section 3 and its appendix), and what of them can be read here.

The paper's text says 29; 28 names are known, RefCOCO, RefCOCO+ and RefCOCOg counted as one. Frames are given per group
only, and by 64 GPUs x 16 frames x 180,000 steps they are what is drawn from rather than what was seen. How groups and
sets are mixed is not published.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

NOT_YET = "not yet"
SHARDS = "`ssl.pictures`: a folder, or WebDataset shards"
VIDEOS = "`ssl.videos`: a folder of video files, or WebDataset shards"
TEXTS = "`caption.data`: LLaVA-style JSON, a folder, or WebDataset shards"
SEE = "see its terms"


@dataclass(frozen=True, kw_only=True)
class Group:
    """One of the paper's four."""

    name: str
    frames: int
    """Millions."""


@dataclass(frozen=True, kw_only=True)
class DataSet:
    """One name in the paper's list."""

    name: str
    group: Group
    licence: str
    """As its authors state it, in short; "see its terms" where an agreement of its own has to be signed or we do not
    know. Not legal advice: terms change, and pictures often have other owners than the annotations."""
    reader: str = NOT_YET
    """How a run takes it, with the names of the configuration; "not yet": nothing here reads it."""
    notes: str = ""

    @property
    def readable(self) -> bool:
        return self.reader != NOT_YET


IMAGE = Group(name="image self-supervision", frames=113)
VIDEO = Group(name="video self-supervision", frames=20)
GEOMETRY = Group(name="3D and 4D geometry", frames=18)
LANGUAGE = Group(name="vision and language", frames=50)
GROUPS = (IMAGE, VIDEO, GEOMETRY, LANGUAGE)


def _geometry(name: str, licence: str, reader: str = NOT_YET, notes: str = "") -> DataSet:
    return DataSet(name=name, group=GEOMETRY, licence=licence, reader=reader, notes=notes)


RECORDINGS = "`recordings` or `data.folders`: as published"
DATA_SETS = (
    DataSet(
        name="DataComp-100M",
        group=IMAGE,
        licence="CC BY 4.0 (index); pictures: their owners",
        reader=SHARDS,
        notes="An index of links; img2dataset downloads it as shards.",
    ),
    DataSet(
        name="ImageNet-21K", group=IMAGE, licence="non-commercial research (agreement)", reader=SHARDS, notes="Folders."
    ),
    DataSet(
        name="Kinetics-400",
        group=VIDEO,
        licence="CC BY 4.0 (annotations); videos: their owners",
        reader=VIDEOS,
        notes="Also a probe: its training videos are in the paper's pre-training.",
    ),
    DataSet(
        name="Something-Something V2",
        group=VIDEO,
        licence="research (agreement)",
        reader=VIDEOS,
        notes="WebM files. Also a probe.",
    ),
    DataSet(name="PE-Video", group=VIDEO, licence=SEE, reader=VIDEOS, notes="Published as shards."),
    _geometry("CO3Dv2", "CC BY-NC 4.0"),
    _geometry("WildRGB-D", SEE),
    _geometry("BlendedMVS", "CC BY 4.0"),
    _geometry("MegaDepth", SEE, notes="Pictures of a place by many people; not a stream."),
    _geometry("MVS-Synth", SEE),
    _geometry("PointOdyssey", SEE),
    _geometry("HyperSim", "CC BY-SA 3.0", notes="Depth is a distance to the camera's centre, in HDF5."),
    _geometry("TartanAir", "CC BY 4.0", RECORDINGS, "The left camera; sky is unknown."),
    _geometry("DL3DV", SEE),
    _geometry("ScanNet", "research (agreement)", RECORDINGS, "As its SensReader exports it."),
    _geometry("ScanNet++", "research (agreement)"),
    _geometry("ARKitScenes", "CC BY-NC-SA 4.0"),
    _geometry("Virtual KITTI 2", "CC BY-NC-SA 3.0", RECORDINGS, "Both cameras, all variations; sky is unknown."),
    _geometry("MapFree", "non-commercial research"),
    _geometry("Dynamic Replica", "CC BY-NC 4.0"),
    _geometry("Spring", "CC BY 4.0"),
    _geometry("OmniWorld-Game", "CC BY-NC-SA 4.0"),
    _geometry("Aria Synthetic Environments", SEE, notes="A fisheye lens."),
    _geometry("Waymo Open", "non-commercial (agreement)", notes="Depth from lidar."),
    DataSet(
        name="GRIT",
        group=LANGUAGE,
        licence="MS-PL (index); pictures: their owners",
        reader=TEXTS,
        notes="Captions and `ref_exps` boxes, as img2dataset writes them.",
    ),
    DataSet(
        name="RefCOCO, RefCOCO+, RefCOCOg",
        group=LANGUAGE,
        licence="see its terms; pictures: COCO's",
        reader=TEXTS,
        notes="In LLaVA's form; boxes are taken as they are written there.",
    ),
    DataSet(
        name="BLIP3-OCR",
        group=LANGUAGE,
        licence="Apache-2.0 (annotations); pictures: their owners",
        reader=NOT_YET,
        notes="Parquet of links and answers; turn it into shards of pictures and captions.",
    ),
    DataSet(
        name="SA1B-Caption",
        group=LANGUAGE,
        licence="SA-1B research licence (pictures)",
        reader=TEXTS,
        notes="Pictures beside captions.",
    ),
)

BESIDE = (
    ("Sintel, KITTI depth, BONN", RECORDINGS, "benchmarks of the paper: to train on them spoils `omnistream-eval`"),
    ("TUM RGB-D, 7-Scenes", RECORDINGS, "TUM RGB-D is a benchmark of the paper"),
    ("rosbag2, recording folders", "`data.folders`", "[your own](training.md#your-own-recordings)"),
    ("worlds, tabletop", "`data.live`, `caption.live`, `data.pools`", "[rendered](data.md) while training"),
)
"""What is read besides: name, how, remark."""


def data_sets_text() -> list[str]:
    """For people, by group."""
    width = max(len(one.name) for one in DATA_SETS)
    lines = [f"{len(DATA_SETS)} data sets, {sum(one.readable for one in DATA_SETS)} of them can be read", ""]
    for group in GROUPS:
        lines.append(f"{group.name}, about {group.frames} million frames")
        members = [one for one in DATA_SETS if one.group is group]
        lines += [f"  {one.name:<{width}}  {one.reader.replace('`', '')}; licence: {one.licence}" for one in members]
        lines.append("")
    return lines[:-1]


def data_sets_page() -> str:
    """docs/datasets.md."""
    readable = sum(one.readable for one in DATA_SETS)
    parts = [
        "# The paper's data sets\n",
        "Made by `omnistream-train datasets --markdown`; do not edit.\n",
        f"The paper draws from about {sum(group.frames for group in GROUPS)} million frames. Of its list, "
        f"{len(DATA_SETS)} names are known (its text says 29), and {readable} can be read here. Nothing is downloaded: "
        "get a set from its authors, under their terms, and name its folder. Mixing weights are the numbers behind the "
        "folders: `--ssl.pictures DATACOMP 3 IMAGENET 1`, `--recordings TARTANAIR 2 VKITTI2 1`. The paper's are not "
        "published.\n",
    ]
    for group in GROUPS:
        rows = [(one.name, one.licence, one.reader, one.notes) for one in DATA_SETS if one.group is group]
        parts += [
            f"## {group.name[0].upper()}{group.name[1:]}, about {group.frames} million frames\n",
            _table(("data set", "licence", "read by", "remarks"), rows),
        ]
    parts += ["## Besides\n", _table(("what", "read by", "remarks"), BESIDE)]
    return "\n".join(parts).rstrip() + "\n"


def _table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [heads, ["---"] * len(heads), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines) + "\n"
