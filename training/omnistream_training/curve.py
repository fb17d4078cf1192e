# SPDX-License-Identifier: Apache-2.0
"""The curve of a run as a picture: training loss above, held-out error and its baselines below. Pillow only."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

WIDTH, HEIGHT, MARGIN = 900, 300, 60
INK, GRID = (40, 40, 40), (225, 225, 225)
HeldOut = Sequence[tuple[str, str, tuple[int, int, int]]]
"""(key in the journal, label, colour)."""
Series = tuple[str, tuple[int, int, int], Sequence[float], Sequence[float]]
HELD_OUT: HeldOut = (
    ("abs_rel", "AbsRel", (31, 119, 180)),
    ("abs_rel_scaled", "AbsRel, one scale per clip", (44, 160, 44)),
    ("alone_abs_rel_scaled", "same, every frame alone", (148, 103, 189)),
    ("map_abs_rel", "mean depth map", (150, 150, 150)),
    ("constant_abs_rel", "best constant", (90, 90, 90)),
)


def draw_curve(records: Sequence[Mapping[str, Any]], picture: Path, held_out: HeldOut = HELD_OUT) -> None:
    """Write `picture` (PNG) from a journal's records. Without Pillow, or with nothing to draw yet, nothing happens.

    held_out: what the lower panel shows; the first key marks an evaluation.
    """
    try:
        from PIL import Image, ImageDraw
    except ImportError:
        return
    train = [r for r in records if r["kind"] == "train" and "loss" in r]
    held = [r for r in records if r["kind"] in ("eval", "end") and held_out[0][0] in r]
    if not train:
        return
    image = Image.new("RGB", (WIDTH, 2 * HEIGHT), "white")
    draw = ImageDraw.Draw(image)
    frames = [r["frames_seen"] for r in train]
    _panel(draw, 0, "training loss", frames[-1], [("loss", INK, frames, _smooth([r["loss"] for r in train]))])
    lines: list[Series] = []
    for key, label, colour in held_out:
        rows = [r for r in held if key in r]
        lines.append((label, colour, [r["frames_seen"] for r in rows], [r[key] for r in rows]))
    _panel(draw, HEIGHT, "held-out error", frames[-1], lines)
    partial = picture.with_suffix(".partial")
    image.save(partial, format="PNG")
    partial.replace(picture)


def _smooth(values: Sequence[float], momentum: float = 0.9) -> list[float]:
    out: list[float] = []
    for value in values:
        out.append(value if not out or not math.isfinite(out[-1]) else momentum * out[-1] + (1 - momentum) * value)
    return out


def _panel(draw: Any, top: int, title: str, right: float, lines: Sequence[Series]) -> None:
    """Axes from 0 to `right` frames, and the lines, with a legend in their colours."""
    shown = [y for _, _, _, ys in lines for y in ys if math.isfinite(y)]
    if not shown:
        return
    low, high = min(0.0, *shown), sorted(shown)[int(0.98 * (len(shown) - 1))] * 1.1 + 1e-9
    left, bottom = MARGIN, top + HEIGHT - 40
    wide, tall = WIDTH - 2 * MARGIN, HEIGHT - 70

    def place(x: float, y: float) -> tuple[float, float]:
        fraction = (min(max(y, low), high) - low) / (high - low)
        return left + wide * x / max(right, 1), bottom - tall * fraction

    for i in range(6):
        value = low + (high - low) * i / 5
        y = place(0, value)[1]
        draw.line([(left, y), (left + wide, y)], fill=GRID)
        draw.text((8, y - 6), f"{value:.3g}", fill=INK)
        x = right * i / 5
        draw.text((place(x, low)[0] - 12, bottom + 6), f"{x / 1000:.0f}k", fill=INK)
    draw.text((left, top + 6), f"{title}, by frames trained on", fill=INK)
    for row, (label, colour, xs, ys) in enumerate(lines):
        points = [place(x, y) for x, y in zip(xs, ys, strict=True) if math.isfinite(y)]
        if len(points) > 1:
            draw.line(points, fill=colour, width=2)
        for point in points if len(points) < 60 else []:
            draw.ellipse([point[0] - 2, point[1] - 2, point[0] + 2, point[1] + 2], fill=colour)
        if len(lines) > 1:
            draw.text((WIDTH - 260, top + 8 + 13 * row), label, fill=colour)
