# SPDX-License-Identifier: Apache-2.0
"""Pictures of a probe: bars with intervals, and where the probe thinks the largest thing is."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw

from omnistream.io.files import replacing
from omnistream_training.evaluation.plots import pyplot_or_none, save_figure
from omnistream_training.evaluation.probe.measure import Score, Split
from omnistream_training.evaluation.probe.scenes import ProbeScenes
from omnistream_training.evaluation.probe.tasks import Task

EXAMPLES, SIDE = 12, 192
TRUTH, GUESS = (255, 255, 255), (255, 60, 60)


def save_bars(path: Path, report: Mapping[str, Any]) -> list[str]:
    """One panel per question. Needs matplotlib; names of what was written."""
    pyplot = pyplot_or_none()
    if pyplot is None:
        return []
    tasks = report["tasks"]
    columns = min(3, len(tasks))
    rows = -(-len(tasks) // columns)
    figure, axes = pyplot.subplots(rows, columns, figsize=(4.4 * columns, 2.6 * rows), squeeze=False, dpi=110)
    for axis in axes.flat[len(tasks) :]:
        axis.axis("off")
    for axis, task in zip(axes.flat, tasks, strict=False):
        names = list(task["rows"])
        values = np.array([[task["rows"][name][key] for key in ("value", "low", "high")] for name in names])
        errors = np.abs(values[:, 1:] - values[:, :1]).T
        colours = ["tab:blue"] + ["0.7"] * (len(names) - 1)
        axis.barh(names[::-1], values[::-1, 0], xerr=errors[:, ::-1], color=colours[::-1], capsize=2)
        axis.set_title(task["name"], fontsize=9)
        axis.set_xlabel(f"{task['unit']}, {task['better']} is better", fontsize=8)
        axis.tick_params(labelsize=8)
    save_figure(pyplot, figure, path)
    return [path.name]


def save_examples(
    path: Path,
    scenes: ProbeScenes,
    tasks: Sequence[Task],
    scores: Mapping[str, Mapping[str, Sequence[Score]]],
    split: Split,
    method: str,
) -> list[str]:
    """Test pictures with the true middle of the largest thing (white circle) and the probe's answer (red cross)."""
    task = next((task for task in tasks if task.level == "picture" and task.error == "width"), None)
    if task is None:
        return []
    rows = np.flatnonzero(split.test[task.scene])[:EXAMPLES]
    predicted = scores[task.name][method][0].predicted
    sheet = Image.new("RGB", (SIDE * 6, SIDE * -(-len(rows) // 6)), "white")
    for i, row in enumerate(rows):
        picture = Image.fromarray(scenes.images[task.scene[row], -1])
        picture = picture.resize((SIDE, round(SIDE * picture.height / picture.width)))
        draw = ImageDraw.Draw(picture)
        x, y = task.answers[row] * SIDE
        draw.ellipse([x - 7, y - 7, x + 7, y + 7], outline=TRUTH, width=2)
        x, y = predicted[i] * SIDE
        draw.line([x - 6, y - 6, x + 6, y + 6], fill=GUESS, width=2)
        draw.line([x - 6, y + 6, x + 6, y - 6], fill=GUESS, width=2)
        sheet.paste(picture, (i % 6 * SIDE, i // 6 * SIDE))
    with replacing(path) as temporary:
        sheet.save(temporary)
    return [path.name]
