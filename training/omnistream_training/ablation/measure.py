# SPDX-License-Identifier: Apache-2.0
"""What the frozen features of a finished run are good for, kept per clip, per scene and per episode.

    depth, pose      heads trained anew on the frozen backbone, on held-out clips
    probes           ridge regressions on patches: what moves, where and which things are (`omnistream-eval probe`)
    policy           from the episodes of a policy that was trained on these features, if a command makes one

measured.json of a run holds it all, so that any number of runs can be compared later.
"""

from __future__ import annotations

import dataclasses
import json
import shlex
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from omnistream.errors import ConfigError, InputError
from omnistream.io.files import write_bytes
from omnistream.model.omnistream import OmniStream
from omnistream.weights import load_model, save_model
from omnistream_training.ablation.plan import Run, readout_config
from omnistream_training.checkpointing import averaged
from omnistream_training.evaluation.probe.inputs import network_features
from omnistream_training.evaluation.probe.measure import Split, probe
from omnistream_training.evaluation.probe.scenes import ProbeScenes
from omnistream_training.evaluation.probe.tasks import Task
from omnistream_training.geometry import GeometryTrainer
from omnistream_training.validate import Validation

MEASURED = "measured.json"
EPISODES = "policy/episodes.jsonl"
METRICS = ("abs_rel_scaled", "ate_percent")


@dataclasses.dataclass(frozen=True)
class Yardstick:
    """The same for all runs of an experiment."""

    scenes: ProbeScenes
    tasks: list[Task]
    readout_steps: int
    clips: int
    frames: int
    policy: str
    """Shell command that makes RUN/policy/episodes.jsonl, with {weights} and {run} in it; empty: none."""


def read_measured(folder: Path, asked: Mapping[str, Any]) -> dict[str, Any] | None:
    """What was measured of a run before, None if it was not. asked: as for `measure`.

    Raises ConfigError for what was measured with other options: such runs are not to be compared.
    """
    path = folder / MEASURED
    if not path.exists():
        return None
    found = dict(json.loads(path.read_text(encoding="utf-8")))
    before = found.get("asked", asked)
    other = [
        f"{name} {before.get(name)!r}, now {value!r}" for name, value in asked.items() if before.get(name) != value
    ]
    if other:
        raise ConfigError(
            f"{path} was measured with {'; '.join(other)}: give the same options, or remove it and {folder / 'readout'}"
        )
    return found


def measure(run: Run, folder: Path, yardstick: Yardstick, device: str, asked: Mapping[str, Any]) -> dict[str, Any]:
    """Measure the finished run in `folder`, and write it down there. asked: the options that decide what is found."""
    weights = folder / "weights"
    found = {
        "asked": dict(asked),
        "clips": _depth_and_pose(run, folder, weights, yardstick, device),
        "probes": _probes(weights, yardstick),
        "episodes": _episodes(folder, weights, yardstick.policy),
    }
    write_bytes(folder / MEASURED, json.dumps(found).encode())
    return found


def _depth_and_pose(run: Run, folder: Path, weights: Path, yardstick: Yardstick, device: str) -> list[dict[str, float]]:
    """By held-out clip, the metrics that it has."""
    backbone = folder / "backbone"
    whole = load_model(weights)
    bare = OmniStream(dataclasses.replace(whole.config, heads=None, scale="none"))
    bare.backbone.load_state_dict(whole.backbone.state_dict())
    save_model(bare, backbone, made_by="omnistream-train ablation", overwrite=True)
    config = readout_config(run.config, backbone, yardstick.readout_steps, run.seed)
    trainer = GeometryTrainer(config, folder / "readout", device=device, made_by="omnistream-train ablation")
    trainer.train()
    validation = Validation(trainer.feed, 0, yardstick.clips, yardstick.frames)
    with averaged(trainer.learner.model, trainer.learner.average):
        rows = validation.clips(trainer.learner.model)
    return [{name: row[name] for name in METRICS if name in row} for row in rows]


def _probes(weights: Path, yardstick: Yardstick) -> dict[str, Any]:
    """By question: sums per test scene, as `Score` keeps them."""
    model = load_model(weights).eval()
    with torch.no_grad():
        features = network_features("features", model, yardstick.scenes, "sink_window:1,15")
    split = Split.of(len(yardstick.scenes.images))
    found = {}
    for task in yardstick.tasks:
        score = probe(task, features, split)
        found[task.name] = {"unit": task.unit, "better": task.better, "sums": score.sums.tolist()}
    return found


def _episodes(folder: Path, weights: Path, command: str) -> list[float]:
    """Share of each episode's tasks that were solved; empty without a command and without its file.

    Raises InputError for a command that fails or leaves no episodes.
    """
    path = folder / EPISODES
    if command and not path.exists():
        words = shlex.split(command)
        filled = [word.replace("{weights}", str(weights)).replace("{run}", str(folder)) for word in words]
        done = subprocess.run(filled)
        if done.returncode:
            raise InputError(f"{shlex.join(filled)} ended with {done.returncode}; it should leave {path}")
    if not path.exists():
        if command:
            raise InputError(f"{command!r} left no {path}")
        return []
    return [_solved(line, path) for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]


def _solved(line: str, path: Path) -> float:
    try:
        record: Mapping[str, Any] = json.loads(line)
        return sum(bool(one["solved"]) for one in record["done"]) / len(record["tasks"])
    except (ValueError, KeyError, TypeError, ZeroDivisionError) as error:
        raise InputError(f"{path}: no record of an episode: {line[:80]!r} ({error!r})") from error
