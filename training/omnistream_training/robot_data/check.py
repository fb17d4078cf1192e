# SPDX-License-Identifier: Apache-2.0
"""Looks a data set over before anybody trains on it: a report, its table and its picture."""

from __future__ import annotations

from collections import Counter
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from omnistream.cli.progress import Progress
from omnistream.cli.report import environment
from omnistream.contract import contract_to_dict
from omnistream.episodes import EpisodeDataset
from omnistream.errors import InputError
from omnistream.io.files import replacing
from omnistream_training.evaluation.table import align_columns
from omnistream_training.robot_data.check_numbers import NumberChecks
from omnistream_training.robot_data.check_pictures import PictureChecks
from omnistream_training.robot_data.check_rules import Finding, Limits

SHOWN = 40
"""Findings that the table lists; the report has all."""
BINS, BAR, ROW = 60, 4, 34
"""Columns of a histogram, their width, and the height of a row, pixels."""


@dataclass(frozen=True)
class Checked:
    """What was found."""

    findings: tuple[Finding, ...]
    report: dict[str, Any]
    states: NDArray[np.float32]
    actions: NDArray[np.float32]
    thumbnails: dict[str, list[NDArray[np.uint8]]]

    @property
    def errors(self) -> int:
        """Findings that should stop a training."""
        return sum(finding.severity == "error" for finding in self.findings)


def check_dataset(dataset: EpisodeDataset, *, limits: Limits | None = None, pictures: int | None = None) -> Checked:
    """Read everything once: numbers first, then pictures.

    pictures: per episode and camera; None: all; 0: none. Episodes that cannot be read are findings. InputError if none
    can be.
    """
    limits = limits or Limits()
    findings = [Finding("error", "lost", "data set", line) for line in dataset.lost]
    numbers = NumberChecks(dataset.contract, limits)
    sound = []
    for info in dataset.infos:
        try:
            numbers.add(dataset.read_episode(info))
            sound.append(info)
        except InputError as error:
            findings.append(Finding("error", "damaged", f"episode {info.index}", str(error)))
    if not sound:
        raise InputError(f"{dataset.path}: no episode can be read; {findings[0].message if findings else ''}")
    looked = PictureChecks(dataset.contract.rate, limits, pictures)
    if pictures != 0:
        idle = numbers.idle() or [np.zeros(info.length, bool) for info in sound]
        with Progress(len(sound), "episodes") as progress:
            for info, still in zip(sound, idle, strict=True):
                looked.add(dataset.read_episode(info), still)
                progress.step()
    findings += [*numbers.findings(), *looked.findings()]
    findings.sort(key=lambda finding: finding.severity)
    report = {
        "data": dataset.path,
        "description": dataset.description,
        "numbers": numbers.numbers(),
        "pictures": looked.numbers(),
        "findings": [asdict(finding) for finding in findings],
        "limits": asdict(limits),
        "contract": contract_to_dict(dataset.contract),
        "environment": environment(),
    }
    states, actions = np.concatenate(numbers.states), np.concatenate(numbers.actions)
    return Checked(tuple(findings), report, states, actions, looked.thumbnails)


def text_of(checked: Checked) -> str:
    """The report for a person."""
    numbers = checked.report["numbers"]
    length, success = numbers["episode_length"], numbers["success"]
    lines = [
        checked.report["description"],
        f"episodes of {length['min']} to {length['max']} steps (median {length['median']:g}); "
        f"{numbers['instructions']} instructions; success: {success['yes']} yes, {success['no']} no, "
        f"{success['unknown']} unknown; idle: {numbers['idle']:.1%}",
        "",
    ]
    cells = [["", "min", "q01", "median", "q99", "max"]]
    for kind in ("state", "action"):
        for name, row in numbers[kind].items():
            cells.append([f"{kind} {name}", *(f"{row[key]:.4g}" for key in cells[0][1:])])
    lines += [*align_columns(cells), ""]
    for camera, row in checked.report["pictures"].items():
        lines.append(f"camera {camera}: {row['read']} pictures read, {row['frozen']} repeated, {row['dark']} dark")
    counts = Counter(finding.severity for finding in checked.findings)
    lines += ["", f"{counts['error']} errors, {counts['warning']} warnings"]
    lines += [f"{f.severity:7}  {f.rule:11}  {f.where}: {f.message}" for f in checked.findings[:SHOWN]]
    more = len(checked.findings) - SHOWN
    lines += [f"and {more} more in the report"] if more > 0 else []
    return "\n".join(lines)


def save_picture(path: Path, checked: Checked, names: tuple[tuple[str, ...], tuple[str, ...]]) -> None:
    """A page with first pictures and a histogram of every number. names: of the state's and the action's dimensions."""
    strips = list(checked.thumbnails.values())
    tall = sum(max(image.shape[0] for image in strip) + 22 for strip in strips)
    half = 200 + BINS * BAR
    page = Image.new("RGB", (max(2 * half, 8 * 166 + 20), 30 + tall + ROW * max(map(len, names)) + 20), "white")
    draw = ImageDraw.Draw(page)
    draw.text((10, 8), checked.report["description"].encode("latin1", "replace").decode("latin1"), fill="black")
    top = 30
    for camera, strip in checked.thumbnails.items():
        draw.text((10, top), f"camera {camera}: first pictures", fill="black")
        for i, image in enumerate(strip):
            page.paste(Image.fromarray(image), (10 + i * 166, top + 16))
        top += max(image.shape[0] for image in strip) + 22
    for column, (kind, values) in enumerate((("state", checked.states), ("action", checked.actions))):
        for i, name in enumerate(names[column]):
            _histogram(draw, (10 + column * half, top + i * ROW), f"{kind} {name}", values[:, i])
    with replacing(path) as temporary:
        page.save(temporary)


def _histogram(draw: ImageDraw.ImageDraw, corner: tuple[int, int], name: str, values: NDArray[np.float32]) -> None:
    x, y = corner
    low, high = float(values.min()), float(values.max())
    draw.text((x, y), name[:28].encode("latin1", "replace").decode("latin1"), fill="black")
    draw.text((x, y + 12), f"{low:.3g} .. {high:.3g}", fill="gray")
    if high <= low:
        return
    counts = np.log1p(np.histogram(values.astype(np.float64), BINS, (low, high))[0])
    for i, share in enumerate(counts / counts.max()):
        if share > 0:
            left = x + 180 + i * BAR
            draw.rectangle(
                [left, y + ROW - 6 - round(share * (ROW - 10)), left + BAR - 2, y + ROW - 6], fill="steelblue"
            )
