# SPDX-License-Identifier: Apache-2.0
"""The run behind the default weights: `python -m omnistream_training.default_run RUN [MINUTES] [LIVE]`.

On a GPU the recipe is scaled to MINUTES (25) from nothing, the faster of eager and compiled is chosen by measurement,
and a run that was interrupted goes on. On a CPU it works in the background for hours, on one core unless
OMP_NUM_THREADS gives it more; MINUTES is then how long to work this time, and the same command goes on. LIVE names
the renderer, default `worlds`.

Needs torch, numpy, safetensors and pyyaml, nothing else: such machines often have no more.
"""

from __future__ import annotations

import dataclasses
import os
import sys
import time
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path

from omnistream.errors import OmniStreamError
from omnistream_training.budget import compiling_pays
from omnistream_training.presets import preset
from omnistream_training.running import CONFIG, Where, resolve_device, resumed_config, run_geometry

GPU_MINUTES = 25.0
FINISHED, STOPPED, USAGE, FAILED = 0, 1, 2, 3


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point; returns the exit code: 0 finished, 1 stopped before the end, 2 wrong usage, 3 failed."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    try:
        run, minutes, live = _arguments(arguments)
    except (IndexError, ValueError):
        print(__doc__, file=sys.stderr)
        return USAGE
    try:
        return FINISHED if _train(run, minutes, live) else STOPPED
    except OmniStreamError as error:
        print(f"default_run: {error}", file=sys.stderr)
        return FAILED


def _arguments(arguments: list[str]) -> tuple[Path, float | None, str]:
    if not 1 <= len(arguments) <= 3:
        raise ValueError
    minutes = float(arguments[1]) if len(arguments) > 1 and arguments[1] else None
    return Path(arguments[0]).expanduser(), minutes, arguments[2] if len(arguments) > 2 else "worlds"


def _train(run: Path, minutes: float | None, live: str) -> bool:
    start = time.monotonic()
    made_by = "make train-default"
    gpu = resolve_device("auto") == "cuda"
    # In the background of a small machine one core is the polite share; who wants it done sooner says so.
    threads = None if "OMP_NUM_THREADS" in os.environ else 1
    where = Where() if gpu else Where(threads=threads, stop_after=minutes)
    if (run / CONFIG).exists():
        return run_geometry(resumed_config(run, None), run, where, made_by=made_by)
    config = preset("default-gpu" if gpu else "default-cpu")
    config = dataclasses.replace(config, data=dataclasses.replace(config.data, live=live))
    if config.data.pools and find_spec("pybullet") is None:
        print("default_run: without PyBullet (wheels: Python 3.11) the weights do not get to know the tabletop")
        config = dataclasses.replace(config, data=dataclasses.replace(config.data, pools=()))
    if not gpu:
        return run_geometry(config, run, where, made_by=made_by)
    config = dataclasses.replace(config, compile=compiling_pays(config, "cuda"))
    left = (minutes or GPU_MINUTES) - (time.monotonic() - start) / 60
    return run_geometry(config, run, where, fit_minutes=left, made_by=made_by)


if __name__ == "__main__":
    sys.exit(main())
