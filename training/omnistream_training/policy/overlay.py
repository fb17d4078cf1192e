# SPDX-License-Identifier: Apache-2.0
"""Predicted against recorded actions over held-out episodes: a picture of the curves, and a video beside the camera.

Predictions are open loop: at every frame of the recording the first action of the chunk. The video needs PyAV (extra
`io`); the picture needs Pillow alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from omnistream.contract import Contract
from omnistream.episodes import Episode
from omnistream_training.policy.learner import PolicyLearner
from omnistream_training.policy.samples import Samples

PANEL_WIDTH, PANEL_HEIGHT, MARGIN = 640, 56, 90
TITLE = 22
RECORDED, PREDICTED, FAINT, CURSOR = (60, 60, 60), (214, 39, 40), (245, 180, 180), (31, 119, 180)
CAMERA_HEIGHT = 400


@dataclass(frozen=True)
class Comparison:
    """One episode."""

    title: str
    recorded: NDArray[np.float64]
    """[T, A]."""
    chunks: NDArray[np.float64]
    """[T, K, A] predicted at each frame, in the robot's units."""


@torch.no_grad()
def compare(learner: PolicyLearner, samples: Samples, track: int) -> Comparison:
    """Predictions along a whole episode; the network as it is."""
    told = samples.tracks[track]
    first = sum(len(other) for other in samples.tracks[:track])
    rows = []
    for start in range(0, len(told), 256):
        numbers = np.arange(first + start, first + min(start + 256, len(told)))
        out = learner.forward(samples.batch(numbers))
        rows.append(samples.scaling.restore(out.arm.cpu().numpy(), out.gripper.sigmoid().cpu().numpy()))
    return Comparison(told.instruction, told.action.astype(np.float64), np.concatenate(rows))


def draw_curves(comparison: Comparison, contract: Contract) -> Image.Image:
    """One strip per action dimension: recorded grey, predicted red, the rest of each chunk faint."""
    names = contract.action_names
    frames = len(comparison.recorded)
    image = Image.new("RGB", (MARGIN + PANEL_WIDTH + 10, TITLE + PANEL_HEIGHT * len(names)), "white")
    draw = ImageDraw.Draw(image)
    draw.text((6, 4), f"{comparison.title or '(no instruction)'}   grey: recorded   red: predicted", fill=RECORDED)
    for i, name in enumerate(names):
        top = TITLE + i * PANEL_HEIGHT
        values = np.concatenate([comparison.recorded[:, i], comparison.chunks[..., i].ravel()])
        low, high = float(values.min()), float(values.max())
        middle, half = (low + high) / 2, max((high - low) / 2, 1e-6)

        def place(t: float, value: float, top: int = top, middle: float = middle, half: float = half) -> tuple:
            x = MARGIN + PANEL_WIDTH * t / max(frames - 1, 1)
            return x, top + PANEL_HEIGHT / 2 - (value - middle) / half * (PANEL_HEIGHT / 2 - 5)

        draw.line([(MARGIN, top + PANEL_HEIGHT - 1), (MARGIN + PANEL_WIDTH, top + PANEL_HEIGHT - 1)], fill=(225,) * 3)
        draw.text((6, top + PANEL_HEIGHT / 2 - 12), name[:13], fill=RECORDED)
        draw.text((6, top + PANEL_HEIGHT / 2), f"{low:.2g}..{high:.2g}", fill=(130,) * 3)
        for t in range(0, frames, max(1, comparison.chunks.shape[1])):
            fan = comparison.chunks[t, : frames - t, i]
            if len(fan) > 1:
                draw.line([place(t + k, value) for k, value in enumerate(fan)], fill=FAINT, width=2)
        for series, colour in ((comparison.recorded[:, i], RECORDED), (comparison.chunks[:, 0, i], PREDICTED)):
            if frames > 1:
                draw.line([place(t, value) for t, value in enumerate(series)], fill=colour, width=1)
    return image


def draw_overlays(comparisons: Sequence[Comparison], contract: Contract, picture: Path) -> None:
    """Write the curves of all episodes below one another (PNG)."""
    images = [draw_curves(comparison, contract) for comparison in comparisons]
    sheet = Image.new("RGB", (max(i.width for i in images), sum(i.height + 8 for i in images)), "white")
    top = 0
    for image in images:
        sheet.paste(image, (0, top))
        top += image.height + 8
    partial = picture.with_suffix(".partial")
    sheet.save(partial, format="PNG")
    partial.replace(picture)


def write_video(comparison: Comparison, contract: Contract, episode: Episode, path: Path) -> bool:
    """Camera and curves side by side with a moving cursor, at the control rate; False where PyAV is not installed."""
    try:
        import av
    except ImportError:
        return False
    curves = draw_curves(comparison, contract)
    camera = contract.cameras[0]
    height = max(CAMERA_HEIGHT, curves.height) // 2 * 2
    shown = (round(camera.width * CAMERA_HEIGHT / camera.height), CAMERA_HEIGHT)
    width = (shown[0] + curves.width) // 2 * 2
    partial = path.with_suffix(".partial.mp4")
    with av.open(str(partial), "w") as container:
        stream = container.add_stream("libx264", rate=max(1, round(contract.rate)))
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        for t, pixels in enumerate(episode.frames(camera.name)):
            page = Image.new("RGB", (width, height), "white")
            page.paste(Image.fromarray(pixels).resize(shown), (0, 0))
            page.paste(curves, (shown[0], 0))
            x = shown[0] + MARGIN + PANEL_WIDTH * t / max(len(comparison.recorded) - 1, 1)
            ImageDraw.Draw(page).line([(x, TITLE), (x, curves.height)], fill=CURSOR)
            container.mux(stream.encode(av.VideoFrame.from_image(page)))
        container.mux(stream.encode())
    partial.replace(path)
    return True
