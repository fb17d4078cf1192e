# SPDX-License-Identifier: Apache-2.0
"""The picture of the demo's tasks: a row for each, with what was said, what came of it, and a few moments."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

from omnistream.io.colours import colour_depth, depth_range
from omnistream.io.files import replacing
from omnistream.io.page import BACKGROUND, GREY, WHITE, fit, plain
from omnistream_ros.demo_tasks import Attempt

CELL = 176
GAP, MARGIN, HEADER, LINE = 8, 24, 78, 34
SOLVED, UNSOLVED = (110, 210, 130), (235, 110, 100)


def write_task_sheet(path: Path, attempts: Sequence[Attempt], title: str, subtitle: str) -> None:
    """Writes a PNG, atomically."""
    with replacing(path) as temporary:
        task_sheet(attempts, title, subtitle).save(temporary, optimize=True)


def task_sheet(attempts: Sequence[Attempt], title: str, subtitle: str) -> Image.Image:
    """The page. One attempt at least; pictures of any size."""
    with_depth = any(attempt.depth is not None for attempt in attempts)
    columns = max(len(attempt.pictures) for attempt in attempts) + with_depth
    width = max(2 * MARGIN + columns * (CELL + GAP) - GAP, 720)
    page = Image.new("RGB", (width, HEADER + len(attempts) * (LINE + CELL + GAP) + MARGIN), BACKGROUND)
    draw = ImageDraw.Draw(page)
    draw.text((MARGIN, 16), plain(title), WHITE, font=ImageFont.load_default(24))
    draw.text((MARGIN, 48), plain(subtitle), GREY, font=ImageFont.load_default(14))
    for row, attempt in enumerate(attempts):
        top = HEADER + row * (LINE + CELL + GAP)
        said, font = plain(f'"{attempt.instruction}"'), ImageFont.load_default(17)
        draw.text((MARGIN, top + 8), said, WHITE, font=font)
        left = MARGIN + draw.textlength(said, font=font) + 14
        draw.text((left, top + 8), plain(attempt.verdict()), SOLVED if attempt.solved else UNSOLVED, font=font)
        for column, picture in enumerate(attempt.pictures):
            page.paste(fit(Image.fromarray(picture), (CELL, CELL)), (MARGIN + column * (CELL + GAP), top + LINE))
        if attempt.depth is not None:
            seen = Image.fromarray(colour_depth(attempt.depth, *depth_range([attempt.depth])))
            place = (MARGIN + (columns - 1) * (CELL + GAP), top + LINE)
            page.paste(fit(seen, (CELL, CELL)), place)
            draw.text((place[0] + 6, place[1] + 4), "depth, from perception", WHITE, font=ImageFont.load_default(12),
                      stroke_width=1, stroke_fill=BACKGROUND)  # fmt: skip
    return page
