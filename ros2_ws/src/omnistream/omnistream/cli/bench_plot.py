# SPDX-License-Identifier: Apache-2.0
"""A line chart as SVG text: no package needed, sharp at any size, and readable where a browser shows the repository."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from html import escape

WIDTH, HEIGHT = 760, 420
LEFT, RIGHT, TOP, BOTTOM = 70, 200, 56, 52
COLOURS = ("#1f6feb", "#d1242f", "#1a7f37", "#9a6700", "#8250df", "#57606a")  # told apart with most colour blindness


def line_chart(
    lines: Mapping[str, Sequence[tuple[float, float]]], *, title: str, subtitle: str, x_label: str, y_label: str
) -> str:
    """Each line is (x, y) points in order; both axes start at 0."""
    top_x = max(x for points in lines.values() for x, _ in points)
    top_y = _round_up(max(y for points in lines.values() for _, y in points))

    def at(x: float, y: float) -> tuple[float, float]:
        return LEFT + x / top_x * (WIDTH - LEFT - RIGHT), HEIGHT - BOTTOM - y / top_y * (HEIGHT - TOP - BOTTOM)

    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" font-family="sans-serif" '
        'font-size="13" fill="#24292f">',
        f'<rect width="{WIDTH}" height="{HEIGHT}" fill="#ffffff"/>',
        _text(LEFT, 24, title, size=16),
        _text(LEFT, 43, subtitle, size=12, colour="#57606a"),
        _text((LEFT + WIDTH - RIGHT) / 2, HEIGHT - 12, x_label, anchor="middle"),
        f'<g transform="translate(18 {(TOP + HEIGHT - BOTTOM) / 2}) rotate(-90)">',
        f"{_text(0, 0, y_label, anchor='middle')}</g>",
    ]
    for i in range(5):
        value = top_y * i / 4
        x, y = at(0, value)
        parts.append(f'<line x1="{x}" y1="{y:.1f}" x2="{WIDTH - RIGHT}" y2="{y:.1f}" stroke="#d0d7de"/>')
        parts.append(_text(x - 8, y + 4, f"{value:g}", anchor="end"))
    for x_value in sorted({x for points in lines.values() for x, _ in points}):
        x, y = at(x_value, 0)
        parts.append(_text(x, y + 18, f"{x_value:g}", anchor="middle"))
    labels = _spread([(at(*points[-1])[1], name) for name, points in lines.items()])
    for (name, points), colour in zip(lines.items(), COLOURS * len(lines), strict=False):
        path = " ".join(f"{x:.1f},{y:.1f}" for x, y in (at(*point) for point in points))
        parts.append(f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="2.5"/>')
        parts += [f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3.5" fill="{colour}"/>' for x, y in (at(*p) for p in points)]
        parts.append(_text(WIDTH - RIGHT + 12, labels[name] + 4, name, colour=colour))
    return "\n".join([*parts, "</svg>\n"])


def _text(x: float, y: float, text: str, *, anchor: str = "start", size: int = 13, colour: str = "#24292f") -> str:
    return (
        f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" font-size="{size}" fill="{colour}">{escape(text)}</text>'
    )


def _spread(wanted: list[tuple[float, str]], gap: float = 17) -> dict[str, float]:
    """Heights of labels, near where they are wanted and never on top of each other."""
    placed: dict[str, float] = {}
    last = -math.inf
    for height, name in sorted(wanted):
        last = max(height, last + gap)
        placed[name] = last
    return placed


def _round_up(value: float) -> float:
    """To 1, 2, 4 or 8 times a power of ten, so that quarters of it are round numbers."""
    power = 10 ** math.floor(math.log10(value))
    return next(step * power for step in (1, 2, 4, 8, 10, 20) if step * power >= value)
