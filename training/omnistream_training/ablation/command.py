# SPDX-License-Identifier: Apache-2.0
"""`omnistream-train ablation`: pre-training in full, without video, without geometry, without captions.

    omnistream-train ablation OUT --minutes 15 --threads 1        # four variants, three seeds: up to three hours
    omnistream-train ablation OUT --now 45                        # goes on, for 45 minutes this time
    omnistream-train ablation OUT --policy "sh policy.sh {weights} {run}"

MINUTES is what a run of the full recipe may take; a step of each stage is measured once, the stages are cut down to
fit, and all runs do that many steps (OUT/config.yaml). Then each backbone is frozen: new heads learn depth and pose,
linear probes say what it knows of things and motion. A policy command, if given, has to leave
RUN/policy/episodes.jsonl, as `omnistream-sim tabletop --out RUN/policy` does. OUT/ablation.json and OUT/ablation.txt
hold what can be compared so far.

A stopped experiment goes on when the same command is given again, or OUT alone: OUT/experiment.json has its options.
"""

from __future__ import annotations

import dataclasses
import json
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import torch
import tyro

from omnistream.cli.report import environment, write_report
from omnistream.errors import ConfigError
from omnistream.io.files import write_bytes
from omnistream_training.ablation.measure import Yardstick, measure, read_measured
from omnistream_training.ablation.plan import FULL, VARIANTS, runs, shared_config
from omnistream_training.ablation.report import compare, report_text
from omnistream_training.config_file import config_to_dict, load_config
from omnistream_training.evaluation.probe.options import MIN_SCENES
from omnistream_training.evaluation.probe.scenes import render_scenes
from omnistream_training.evaluation.probe.tasks import make_tasks
from omnistream_training.journal import read_journal
from omnistream_training.pretrain.command import run_pretrain
from omnistream_training.pretrain.config import PretrainConfig
from omnistream_training.pretrain.presets import preset
from omnistream_training.running import Where, resolve_device

FORMAT, VERSION = "omnistream-ablation", 1
RESULT, TABLE, DONE, OPTIONS = "ablation.json", "ablation.txt", "finished", "experiment.json"
HERE = ("out", "now", "device", "threads")
"""Options that may differ from one start to the next."""
FIXED = ("preset", "config", "minutes")
"""Those that decided the runs' common configuration, once."""


@dataclass(frozen=True, kw_only=True)
class Ablation:
    """What is each task of pre-training worth? The same run without it, over seeds."""

    out: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="OUT")]
    """Folder of the experiment."""
    preset: str = "tabletop_tiny"
    """The full recipe."""
    config: Path | None = None
    """YAML file with fields to change in it."""
    minutes: float = 15.0
    """Budget of a run of the full recipe on this machine; measuring comes on top."""
    now: float | None = None
    """Minutes to work this time; None: to the end."""
    seeds: tuple[int, ...] = (0, 1, 2)
    variants: tuple[str, ...] = tuple(VARIANTS)
    """full, no-video, no-geometry, no-captions."""
    readout_steps: int = 300
    """Steps in which new heads learn on the frozen features."""
    clips: int = 64
    """Held-out clips that depth and pose are measured on."""
    scenes: int = 600
    """Rendered scenes for the probes: 60 % train them, 15 % choose their strength, 25 % test."""
    live: str | None = None
    """Renderer of those scenes; None: the one that the runs draw from."""
    policy: str = ""
    """Command that trains and scores a policy; see above."""
    device: str = "auto"
    """cpu, cuda, or auto."""
    threads: int | None = None
    """CPU threads; None: torch's choice."""

    def __post_init__(self) -> None:
        unknown = [name for name in self.variants if name not in VARIANTS]
        if unknown or FULL not in self.variants or len(self.variants) < 2:
            raise ConfigError(
                f"variants are {', '.join(self.variants)}; expected full and one or more of {', '.join(VARIANTS)}"
            )
        if not self.seeds or len(set(self.seeds)) < len(self.seeds):
            raise ConfigError(f"seeds are {self.seeds}; expected one or more, all different")
        for name, least in (("readout_steps", 1), ("clips", 2), ("scenes", MIN_SCENES)):
            if getattr(self, name) < least:
                raise ConfigError(f"{name} is {getattr(self, name)}; expected {least} or more")
        if not self.minutes > 0:
            raise ConfigError(f"minutes is {self.minutes}; expected more than 0")


def run_command(arguments: Sequence[str]) -> bool:
    """Parse and run; returns whether all runs are finished. Raises the errors of this package."""
    words = (Path(word).expanduser() for word in arguments if not word.startswith("-"))
    before = next((found for found in map(_began_with, words) if found), {})
    defaults = Ablation(out=tyro.MISSING, **before)
    prog = "omnistream-train ablation"
    return run_ablation(tyro.cli(Ablation, default=defaults, args=list(arguments), prog=prog, description=__doc__))


def _began_with(out: Path) -> dict[str, Any]:
    """The options that the experiment in `out` began with; none where there is no experiment."""
    path = out / OPTIONS
    if not path.is_file():
        return {}
    found = dict(json.loads(path.read_text(encoding="utf-8")))
    found["config"] = None if found["config"] is None else Path(found["config"])
    return found | {name: tuple(found[name]) for name in ("seeds", "variants")}


def _go_on(options: Ablation, out: Path) -> None:
    """Write the options down for the next start. ConfigError where the experiment began with another recipe."""
    before = _began_with(out)
    other = [
        f"{n} {before[n]}, now {getattr(options, n)}" for n in FIXED if before and before[n] != getattr(options, n)
    ]
    if other:
        raise ConfigError(f"{out} holds an experiment that began with {'; '.join(other)}; choose another folder")
    kept = {name: value for name, value in dataclasses.asdict(options).items() if name not in HERE}
    write_bytes(out / OPTIONS, json.dumps(kept, indent=1, default=str).encode())


def run_ablation(options: Ablation) -> bool:
    """Train, measure and compare what is not done yet; returns whether everything is."""
    start = time.monotonic()
    out = options.out.expanduser().resolve()  # runs write it down, and go on from wherever they are started
    device = resolve_device(options.device)
    if options.threads:
        torch.set_num_threads(options.threads)
    base = preset(options.preset)
    if options.config is not None:
        base = load_config(options.config.expanduser(), base)
    _go_on(options, out)
    base = shared_config(out, base, options.minutes, device)
    yardstick: Yardstick | None = None
    asked = {name: getattr(options, name) for name in ("readout_steps", "clips", "scenes", "live", "policy")}
    measured: dict[str, dict[int, Any]] = {variant: {} for variant in options.variants}
    finished = True
    for run in runs(base, options.seeds, options.variants):
        folder = out / run.name
        left = None if options.now is None else options.now - (time.monotonic() - start) / 60
        if not (folder / DONE).exists():
            if left is not None and left <= 0:
                finished = False
                break
            where = Where(device=device, threads=options.threads, stop_after=left)
            if not run_pretrain(run.config, folder, where, made_by=f"omnistream-train ablation: {run.name}"):
                finished = False
                break
            (folder / DONE).touch()
        before = read_measured(folder, asked)
        if before is None:
            yardstick = yardstick or _yardstick(options, base)
            before = measure(run, folder, yardstick, device, asked)
        measured[run.variant][run.seed] = before
    _report(options, base, measured, out)
    return finished


def _yardstick(options: Ablation, base: PretrainConfig) -> Yardstick:
    height, width = base.stages[-1].size
    live = options.live or base.data.live
    if live is None:
        raise ConfigError("the runs draw from no renderer; name one whose scenes to probe (--live worlds)")
    scenes = render_scenes(
        live,
        base.data.live_options if options.live is None else {},
        scenes=options.scenes,
        frames=4,
        size=(height, width),
        rate=10.0,
        nominal_rate=base.data.nominal_rate,
    )
    tasks = make_tasks(scenes, _patch(base))
    return Yardstick(scenes, tasks, options.readout_steps, options.clips, base.eval_frames, options.policy)


def _patch(base: PretrainConfig) -> int:
    return base.model.model_config().backbone.patch_size


def _report(options: Ablation, base: PretrainConfig, measured: dict[str, dict[int, Any]], out: Path) -> None:
    """Of the seeds that all variants have finished."""
    seeds = [seed for seed in options.seeds if all(seed in by_seed for by_seed in measured.values())]
    of_seeds = {variant: [by_seed[seed] for seed in seeds] for variant, by_seed in measured.items()}
    rows = compare(of_seeds) if seeds else []
    report = {
        "format": FORMAT,
        "version": VERSION,
        "made_by": "omnistream-train ablation",
        "environment": environment(),
        "options": {name: value for name, value in dataclasses.asdict(options).items() if name not in HERE},
        "config": config_to_dict(base),
        "steps": base.steps,
        "seeds": seeds,
        "seconds": {f"{v}-{s}": _seconds(out / f"{v}-{s}") for v in measured for s in seeds},
        "rows": rows,
    }
    lines = [
        f"{options.preset}, {base.steps} steps a run, budget {options.minutes:g} min for the full recipe; "
        f"{len(seeds)} of {len(options.seeds)} seeds",
        "",
        *report_text(rows, len(seeds)),
    ]
    write_report(out / RESULT, report)
    write_bytes(out / TABLE, ("\n".join(lines) + "\n").encode())
    print("\n".join(lines))


def _seconds(run: Path) -> float:
    """Training time of a run, evaluations left out; of steps that a kill took back, that of the last time."""
    steps: dict[int, float] = {}
    done = 0
    for line in read_journal(run / "log.jsonl"):
        if line["kind"] == "train":
            steps |= dict.fromkeys(range(done, line["step"]), line["seconds"] / max(1, line["step"] - done))
        if line["kind"] in ("start", "train"):
            done = line["step"]
    return round(sum(steps.values()), 1)
