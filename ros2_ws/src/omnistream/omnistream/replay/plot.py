# SPDX-License-Identifier: Apache-2.0
"""Commands over time as SVG text: a panel for each number that left."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape

import numpy as np
from numpy.typing import NDArray

from omnistream.replay.track import Sent

WIDTH, PANEL, LEFT, RIGHT, TOP = 900, 96, 120, 20, 52
REPLAY, STOP = "#1f6feb", "#d1242f"
MOST_PANELS = 32


def command_plot(sent: Sequence[Sent], names: Mapping[str, Sequence[str]], *, title: str, subtitle: str) -> str:
    """What left, a panel a number, seconds along x. names: output -> name of each of its numbers; red: stops."""
    begin = sent[0].stamp if sent else 0
    panels: list[tuple[str, NDArray[np.float64], NDArray[np.float64]]] = []
    for output, labels in names.items():
        mine = [one for one in sent if output in one.left]
        if not mine:
            continue
        seconds = np.array([(one.stamp - begin) / 1e9 for one in mine])
        rows = np.stack([np.atleast_2d(one.left[output])[0] for one in mine])
        panels += [(f"{output} {label}", seconds, rows[:, i]) for i, label in enumerate(labels)]
    panels = panels[:MOST_PANELS]
    end = max((float(seconds[-1]) for _, seconds, _ in panels), default=1.0) or 1.0
    height = TOP + PANEL * max(len(panels), 1) + 30
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" font-family="sans-serif" '
        'font-size="12" fill="#24292f">',
        f'<rect width="{WIDTH}" height="{height}" fill="#ffffff"/>',
        f'<text x="12" y="22" font-size="15">{escape(title)}</text>',
        f'<text x="12" y="40" fill="#57606a">{escape(subtitle)}</text>',
    ]

    def x(second: float) -> float:
        return LEFT + second / end * (WIDTH - LEFT - RIGHT)

    bottom = TOP + PANEL * len(panels)
    for one in sent:
        if one.kind == "stop":
            at = x((one.stamp - begin) / 1e9)
            parts.append(f'<line x1="{at:.1f}" x2="{at:.1f}" y1="{TOP}" y2="{bottom}" stroke="{STOP}" opacity="0.35"/>')
    for index, (label, seconds, values) in enumerate(panels):
        top = TOP + PANEL * index
        low, high = float(min(values.min(), 0.0)), float(max(values.max(), 0.0))
        size = (high - low) or 1.0
        points = " ".join(
            f"{x(s):.1f},{top + PANEL - 14 - (v - low) / size * (PANEL - 28):.1f}"
            for s, v in zip(seconds.tolist(), values.tolist(), strict=True)
        )
        parts += [
            f'<line x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{top + PANEL}" y2="{top + PANEL}" stroke="#d0d7de"/>',
            f'<text x="12" y="{top + PANEL / 2:.0f}">{escape(label)}</text>',
            f'<text x="{LEFT - 6}" y="{top + 18}" text-anchor="end" fill="#57606a">{high:.3g}</text>',
            f'<text x="{LEFT - 6}" y="{top + PANEL - 10}" text-anchor="end" fill="#57606a">{low:.3g}</text>',
            f'<polyline points="{points}" fill="none" stroke="{REPLAY}" stroke-width="1.5"/>',
        ]
    parts.append(f'<text x="{WIDTH - RIGHT}" y="{bottom + 20}" text-anchor="end" fill="#57606a">{end:.1f} s</text>')
    return "\n".join([*parts, "</svg>\n"])
