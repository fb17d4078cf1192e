# SPDX-License-Identifier: Apache-2.0
"""Sequences that nothing was trained on: `python tools/held_out_sets.py OUT [--frames 64]`.

Writes OUT/worlds and OUT/tabletop, 50 recordings of FRAMES pictures each in which the camera travels at least a metre,
and OUT/worlds_map.npz and OUT/tabletop_map.npz, the mean depth maps of the training distribution (a baseline). What is
there is kept.

Why no clip is one of training. Training draws clip numbers below 2^48 and renders the seed `seed_of(number)` of each
(omnistream_training.data.live); its own held-out clips and the probe's take numbers from 2^48 on. A data set on disk
renders clip n of its seed S from the seed S * 2^32 + n. `seed_of` can be inverted: the numbers that would have led to
the seeds used here are all far above those that anything draws; tests/tools/test_held_out_sets.py computes them.
"""

from __future__ import annotations

import argparse
import importlib.util
import subprocess
import sys
from pathlib import Path

SEED = 271828
"""Of the data sets. Not to be used for training data (`omnistream-sim generate --seed`)."""
MAP_SEED = 314159
CLIPS, RATE, LEAST_PATH = 50, 30.0, 1.0  # the rate that cameras and nodes have by default
MAP_CLIPS, MAP_FRAMES = 128, 2
SETS = ("worlds", "tabletop")


def main() -> int:
    """Entry point; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("--frames", type=int, default=64, help="pictures per sequence; default 64")
    parser.add_argument("--clips", type=int, default=CLIPS, help=f"sequences per set; default {CLIPS}")
    parser.add_argument("--map-clips", type=int, default=MAP_CLIPS, help=argparse.SUPPRESS)
    parser.add_argument("--size", type=int, default=128, help="pixels per side; default 128")
    parser.add_argument("--sets", nargs="+", choices=SETS, default=list(SETS))
    options = parser.parse_args()
    made = make_sets(options.out, options.sets, options.clips, options.frames, options.size, options.map_clips)
    return 0 if made else 1


def make_sets(
    out: Path, sets: list[str], clips: int = CLIPS, frames: int = 64, size: int = 128, map_clips: int = MAP_CLIPS
) -> list[str]:
    """Make what is missing; names of the sets that are there. Without PyBullet the tabletop is left out, and said."""
    made = []
    for name in sets:
        if name == "tabletop" and importlib.util.find_spec("pybullet") is None:
            print("tabletop is left out: PyBullet is not installed (pip install 'omnistream[sim]', Python 3.11)")
            continue
        least = ["--options", f"min_path={LEAST_PATH:g}"]
        _generate(name, out / name, clips, frames, size, SEED, least)
        samples, depth_map = out / f"{name}_samples", out / f"{name}_map.npz"
        if not depth_map.exists():
            _generate(name, samples, map_clips, MAP_FRAMES, size, MAP_SEED, [])
            _run("omnistream_training.evaluation.cli", "depth-map", str(samples), "--out", str(depth_map))
        made.append(name)
    return made


def _generate(name: str, folder: Path, clips: int, frames: int, size: int, seed: int, more: list[str]) -> None:
    numbers = {"--clips": clips, "--frames": frames, "--size": size, "--rate": RATE, "--seed": seed}
    words = [word for option, value in numbers.items() for word in (option, str(value))]
    _run("omnistream_sim.cli", "generate", name, str(folder), *words, *more)


def _run(module: str, *words: str) -> None:
    """A command of ours, in this interpreter's environment."""
    done = subprocess.run([sys.executable, "-m", module, *words])
    if done.returncode:
        raise SystemExit(f"{module} {' '.join(words)}: exit code {done.returncode}")


if __name__ == "__main__":
    sys.exit(main())
