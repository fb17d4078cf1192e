# SPDX-License-Identifier: Apache-2.0
"""Does memory help? The same run again and again, where only what a frame may see of the past differs:
`python -m omnistream_training.twins OUT MINUTES [--now MINUTES]` (`make twins`).

    stream-S    as the preset says: every earlier frame of the clip
    frame-S     window:1: nothing but the frame itself, the twin for depth
    anchor-S    sink_window:1,1: the first frame and itself, the twin for pose, which is relative to the first

Parameters, initial weights, clips, their order and the number of steps are the same for all of one seed S. MINUTES is
what all runs together may take: a step of each stage is measured once and the stages are cut down to fit, which is
written down in OUT/config.yaml. Runs are made seed by seed, so that what is there at any moment can be compared. A
stopped experiment goes on when the same command is given again.

Needs torch, numpy, safetensors and pyyaml, nothing else. `omnistream-eval twins` compares the runs.
"""

from __future__ import annotations

import argparse
import dataclasses
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import torch

from omnistream.errors import OmniStreamError
from omnistream_training.budget import RESERVE, fit_to, seconds_per_step
from omnistream_training.config import TrainConfig
from omnistream_training.config_file import load_config, save_config
from omnistream_training.presets import preset
from omnistream_training.running import CONFIG, Where, resolve_device, run_geometry

KINDS = {"stream": None, "frame": "window:1", "anchor": "sink_window:1,1"}
"""Name of a run, and its policy; None: the preset's."""
FINISHED, STOPPED, USAGE, FAILED = 0, 1, 2, 3


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point; returns the exit code: 0 finished, 1 stopped before the end, 2 wrong usage, 3 failed."""
    try:
        options = _options(argv)
    except SystemExit as stop:
        return USAGE if stop.code else FINISHED
    try:
        base = planned(options.out, options.minutes, options)
        deadline = None if options.now is None else time.monotonic() + 60 * options.now
        return FINISHED if train_all(options.out, base, options.seeds, options.device, deadline) else STOPPED
    except OmniStreamError as error:
        print(f"twins: {error}", file=sys.stderr)
        return FAILED


def planned(out: Path, minutes: float, options: argparse.Namespace) -> TrainConfig:
    """The configuration that all runs share: OUT/config.yaml, else the preset cut down to `minutes` for all of them."""
    path = out / CONFIG
    device = resolve_device(options.device)
    if device == "cpu":
        torch.set_num_threads(options.threads)
    base = preset(options.preset or f"default-{'gpu' if device == 'cuda' else 'cpu'}")
    if options.config is not None:
        base = load_config(options.config, base)
    if options.live is not None:
        base = dataclasses.replace(base, data=dataclasses.replace(base.data, live=options.live))
    if path.exists():
        return load_config(path, TrainConfig())  # the defaults: for a field that is newer than the experiment
    base = dataclasses.replace(base, eval_every=0)  # evaluations only at the end: they cost, and decide nothing here
    seconds = seconds_per_step(base, device)
    whole = sum(stage.steps * cost for stage, cost in zip(base.stages, seconds, strict=True)) / 60 / (1 - RESERVE)
    each = minutes / (len(KINDS) * len(options.seeds))
    if each < whole:
        base = fit_to(base, each, seconds)
    save_config(base, path)
    return base


def runs(base: TrainConfig, seeds: Sequence[int]) -> Iterator[tuple[str, TrainConfig]]:
    """(name, configuration), seed by seed."""
    for seed in seeds:
        for kind, policy in KINDS.items():
            yield f"{kind}-{seed}", dataclasses.replace(base, seed=seed, policy=policy or base.policy)


def train_all(out: Path, base: TrainConfig, seeds: Sequence[int], device: str, deadline: float | None) -> bool:
    """Every run to its end, or until `time.monotonic()` = `deadline`; returns whether all are finished."""
    for name, config in runs(base, seeds):
        if finished(out / name):
            continue
        left = None if deadline is None else (deadline - time.monotonic()) / 60
        if left is not None and left <= 0:
            return False
        threads = torch.get_num_threads()
        where = Where(device=device, threads=threads, stop_after=left)
        print(f"{name}: policy {config.policy}", file=sys.stderr, flush=True)
        if not run_geometry(config, out / name, where, made_by=f"make twins: {name}"):
            return False
        (out / name / "finished").touch()
    return True


def finished(run: Path) -> bool:
    """Whether that run has reached its end."""
    return (run / "finished").exists()


def _options(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        "omnistream_training.twins", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("out", type=Path, help="directory of the experiment")
    parser.add_argument("minutes", type=float, help="training time of all runs together")
    parser.add_argument("--now", type=float, help="minutes to work this time; default: to the end")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2], help="default: 0 1 2")
    parser.add_argument("--preset", help="default: the recipe of the default weights for this device")
    parser.add_argument("--config", type=Path, help="YAML file with fields to change in it")
    parser.add_argument("--live", help="renderer; default: the preset's")
    parser.add_argument("--device", default="auto", help="cpu, cuda or auto")
    parser.add_argument("--threads", type=int, default=1, help="CPU threads; default 1")
    return parser.parse_args(argv)


if __name__ == "__main__":
    sys.exit(main())
