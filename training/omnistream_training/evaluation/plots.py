# SPDX-License-Identifier: Apache-2.0
"""Pictures of an evaluation: depth beside its reference, camera paths from above, errors over the number of frames."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from omnistream.geometry.align import DegenerateError, umeyama
from omnistream.geometry.paths import straight_line
from omnistream.io.colours import colour_depth, colour_error, depth_range
from omnistream.io.files import replacing
from omnistream_training.evaluation.depth_align import align_depth
from omnistream_training.evaluation.predict import Track
from omnistream_training.evaluation.protocols import Protocol

ROW_HEIGHT, CAPTION = 240, 18
"""Pixels."""
PATHS_PER_PAGE = 12


def save_depth_picture(path: Path, track: Track, protocol: Protocol) -> bool:
    """One frame from the middle of a track: picture | reference | prediction | relative error (0 to 50 %), as a PNG.

    The prediction is aligned by that frame alone, if the protocol aligns at all. False without such a frame.
    """
    if track.sample is None or protocol.depth is None:
        return False
    image, reference, predicted = track.sample
    valid = np.isfinite(reference)
    if not np.isfinite(predicted).all():
        return False
    aligned = align_depth(protocol.depth.alignment, predicted[valid], reference[valid])(predicted)
    near, far = depth_range([reference])
    error = np.abs(aligned - reference) / reference
    size = (round(ROW_HEIGHT * reference.shape[1] / reference.shape[0]), ROW_HEIGHT)
    maps = (colour_depth(reference, near, far), colour_depth(aligned, near, far), colour_error(error))
    parts = [Image.fromarray(image).resize(size)]
    parts += [Image.fromarray(colours).resize(size, Image.Resampling.NEAREST) for colours in maps]
    captions = ("picture", f"reference, {near:.2g} to {far:.2g} m", "prediction, aligned", "relative error, 0 to 50 %")
    row = Image.new("RGB", (size[0] * 4 + 12, ROW_HEIGHT + CAPTION), "white")
    for i, (part, caption) in enumerate(zip(parts, captions, strict=True)):
        row.paste(part, (i * (size[0] + 4), CAPTION))
        ImageDraw.Draw(row).text((i * (size[0] + 4) + 2, 3), caption, fill="black")
    with replacing(path) as temporary:
        row.save(temporary)
    return True


def save_paths(path: Path, positions: Mapping[str, Mapping[str, Mapping[str, Any]]], streamed: Sequence[str]) -> bool:
    """Camera paths over their references, each seen along its flattest axis, aligned by Sim(3). Needs matplotlib."""
    pyplot = pyplot_or_none()
    names = list(dict.fromkeys(seq for method in streamed for seq in positions.get(method, {})))
    names = [name for name in names if _reference(positions, streamed, name).shape[0] > 2][:PATHS_PER_PAGE]
    if pyplot is None or not names:
        return False
    columns = min(4, len(names))
    rows = -(-len(names) // columns)
    figure, axes = pyplot.subplots(rows, columns, figsize=(3.6 * columns, 3.4 * rows), squeeze=False, dpi=110)
    for axis in axes.flat[len(names) :]:
        axis.axis("off")
    for axis, name in zip(axes.flat, names, strict=False):
        reference = _reference(positions, streamed, name)
        flat = np.argsort(np.ptp(reference, axis=0))[::-1][:2]
        axis.plot(*reference[:, flat].T, color="black", linewidth=2.2, label="reference")
        axis.plot(*straight_line(reference)[:, flat].T, color="0.6", linestyle=":", label="straight line")
        for method in streamed:
            estimate = np.asarray(positions[method][name]["estimate"], np.float64)
            if len(estimate) != len(reference):
                continue
            try:
                moved = umeyama(estimate, reference, with_scale=True).points(estimate)
            except DegenerateError:
                continue
            axis.plot(*moved[:, flat].T, linewidth=1.2, label=method)
        axis.set_title(name, fontsize=9)
        axis.set_xlabel(f"{'xyz'[flat[0]]}, m", fontsize=8)
        axis.set_ylabel(f"{'xyz'[flat[1]]}, m", fontsize=8)
        axis.set_aspect("equal", adjustable="datalim")
        axis.tick_params(labelsize=7)
    axes.flat[0].legend(fontsize=7)
    save_figure(pyplot, figure, path)
    return True


def save_lengths(path: Path, report: Mapping[str, Any]) -> bool:
    """AbsRel and ATE over the number of frames, a line per method, with intervals. Needs two lengths and matplotlib."""
    pyplot = pyplot_or_none()
    rows = [row for row in report["rows"] if isinstance(row["frames"], int)]
    if pyplot is None or len({row["frames"] for row in rows}) < 2:
        return False
    wanted = (("depth", "abs_rel", "AbsRel"), ("pose", "ate_percent", "ATE, % of the path"))
    parts = [part for part in wanted if any(part[1] in row.get(part[0], {}) for row in rows)]
    figure, axes = pyplot.subplots(1, len(parts), figsize=(5.4 * len(parts), 4.0), squeeze=False, dpi=110)
    colours = {method: f"C{i % 10}" for i, method in enumerate(dict.fromkeys(row["method"] for row in rows))}
    for axis, (part, metric, label) in zip(axes.flat, parts, strict=True):
        for method, colour in colours.items():
            found = [
                (row["frames"], row[part][metric])
                for row in rows
                if row["method"] == method and metric in row.get(part, {})
            ]
            if not found:
                continue
            x = [frames for frames, _ in found]
            style = "-o" if any(row["method"] == method and row["streamed"] for row in rows) else "--"
            axis.plot(x, [value["value"] for _, value in found], style, label=method, markersize=4, color=colour)
            low, high = ([value[end] for _, value in found] for end in ("low", "high"))
            axis.fill_between(x, low, high, color=colour, alpha=0.12, linewidth=0)
        axis.set_xticks(sorted({row["frames"] for row in rows}))
        axis.set_xlabel("frames streamed")
        axis.set_ylabel(label)
        axis.set_ylim(bottom=0)
        axis.legend(fontsize=7)
    figure.suptitle(f"{report['protocol']['name']}, mean over sequences and 95 % intervals", fontsize=10)
    save_figure(pyplot, figure, path)
    return True


def _reference(
    positions: Mapping[str, Mapping[str, Mapping[str, Any]]], streamed: Sequence[str], name: str
) -> NDArray[np.float64]:
    for method in streamed:
        found = positions.get(method, {}).get(name)
        if found is not None:
            return np.asarray(found["reference"], np.float64).reshape(-1, 3)
    return np.empty((0, 3))


def pyplot_or_none() -> Any:
    """matplotlib.pyplot drawing to files, or None where it is not installed."""
    try:
        import matplotlib

        matplotlib.use("Agg")
        from matplotlib import pyplot
    except ImportError:
        return None
    return pyplot


def save_figure(pyplot: Any, figure: Any, path: Path) -> None:
    figure.tight_layout()
    with replacing(path) as temporary:
        figure.savefig(temporary)
    pyplot.close(figure)
