# SPDX-License-Identifier: Apache-2.0
"""`omnistream-eval probe`: render, look, fit, compare; a table, a report and pictures."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import asdict
from typing import Any

import numpy as np

from omnistream.cli.progress import Progress
from omnistream.cli.report import environment, write_report
from omnistream.errors import InputError
from omnistream.model.omnistream import OmniStream
from omnistream.weights import model_hash
from omnistream_training.evaluation.naming import named_model
from omnistream_training.evaluation.probe.inputs import Pixels, PlaceOnly, ProbeInput, network_features, untrained
from omnistream_training.evaluation.probe.measure import Score, Split, difference, interval, probe
from omnistream_training.evaluation.probe.options import Probe
from omnistream_training.evaluation.probe.pictures import save_bars, save_examples
from omnistream_training.evaluation.probe.scenes import ProbeScenes, render_scenes
from omnistream_training.evaluation.probe.tasks import Task, make_tasks
from omnistream_training.evaluation.table import align_columns

FORMAT, VERSION = "omnistream-probe", 1
RESULTS = "results.json"
COARSE = 32
TRAINED, RANDOM = "these weights", "random weights"


def run_probe(options: Probe) -> dict[str, Any]:
    """Do all of it; returns the report. Raises ConfigError, CheckpointError."""
    begin = time.perf_counter()
    options.check()
    model, words = named_model(options.weights)
    side, patch = model.config.image_size, model.config.backbone.patch_size
    size = (side // patch * patch, side // patch * patch)
    pairs = dict(option.split("=", 1) for option in options.live_options)
    with Progress(options.scenes, "scenes rendered") as progress:
        scenes = render_scenes(
            options.live,
            pairs,
            scenes=options.scenes,
            frames=options.frames,
            size=size,
            rate=options.rate,
            tick=progress.step,
        )
    tasks = make_tasks(scenes, patch)
    if not tasks:
        raise InputError(f"{scenes.description}: no scene shows a thing that could be asked about")
    split = Split.of(options.scenes)
    groups = _inputs(options, model, scenes, patch)
    print(f"model     {words}\nscenes    {scenes.description}, {size[1]} x {size[0]} pixels\n", flush=True)
    scores: dict[str, dict[str, list[Score]]] = {task.name: {} for task in tasks}
    for name, makers in groups.items():
        for make in makers:
            source = make()
            for task in tasks:
                scores[task.name].setdefault(name, []).append(probe(task, source, split))
    report = {
        "format": FORMAT,
        "version": VERSION,
        "made_by": "omnistream-eval probe",
        "options": asdict(options),
        "environment": environment(),
        "model": {"words": words, "weights": options.weights, "hash": model_hash(model)},
        "scenes": {"source": scenes.description, "size": size, **{k: int(v.sum()) for k, v in vars(split).items()}},
        "tasks": [_task_report(task, scores[task.name], split) for task in tasks],
        "seconds": round(time.perf_counter() - begin, 1),
    }
    write_report(options.out / RESULTS, report)
    pictures = save_examples(options.out / "plots" / "examples.png", scenes, tasks, scores, split, TRAINED)
    pictures += save_bars(options.out / "plots" / "probe.png", report)
    print("\n".join(probe_table(report)))
    print(f"\nwrote {', '.join([RESULTS, *(f'plots/{name}' for name in pictures)])} in {options.out}")
    return report


def _inputs(
    options: Probe, model: OmniStream, scenes: ProbeScenes, patch: int
) -> dict[str, list[Callable[[], ProbeInput]]]:
    """By name, one maker per seed: features are computed when it is their turn, and let go."""
    size = scenes.ids.shape[1:]
    grid = (size[0] // patch, size[1] // patch)

    def features(name: str, seed: int | None) -> ProbeInput:
        network = model if seed is None else untrained(model, seed)
        with Progress(options.scenes, f"scenes seen by {name}") as progress:
            return network_features(name, network, scenes, options.policy, progress.step)

    return {
        TRAINED: [lambda: features(TRAINED, None)],
        RANDOM: [lambda seed=seed: features(RANDOM, seed) for seed in range(options.seeds)],  # type: ignore[misc]
        "pixels": [lambda: Pixels(scenes, patch, None)],
        "pixels, coarse": [lambda: Pixels(scenes, patch, COARSE)],
        "no picture": [lambda: PlaceOnly(len(scenes.images), grid)],
    }


def _task_report(task: Task, scores: Mapping[str, list[Score]], split: Split) -> dict[str, Any]:
    rows = {
        name: {
            **asdict(interval(found)),
            "strength": [score.strength for score in found],
            "by_seed": [float(score.value()[0]) for score in found],
        }
        for name, found in scores.items()
    }
    differences = {}
    for name, found in scores.items():
        if name != TRAINED:
            gap = difference(scores[TRAINED], found)
            better = gap.excludes_zero and np.sign(gap.value) == task.better
            differences[name] = asdict(gap) | {"excludes_zero": gap.excludes_zero, "better": bool(better)}
    return {
        "name": task.name,
        "unit": task.unit,
        "level": task.level,
        "better": "more" if task.better > 0 else "less",
        "classes": task.classes,
        "samples": {part: int(rows_of[task.scene].sum()) for part, rows_of in vars(split).items()},
        "rows": rows,
        "differences": differences,
    }


def probe_table(report: Mapping[str, Any]) -> list[str]:
    """One line per question; then, in words, where the features are not clearly better."""
    note = "95 % intervals over test scenes (and seeds of random weights); less is better, except % right"
    return [*align_columns(probe_cells(report)), "", note, *probe_verdicts(report)]


def probe_cells(report: Mapping[str, Any]) -> list[list[str]]:
    """Headings, then a line per question."""
    names = list(report["tasks"][0]["rows"])
    cells = [["question", "unit", *names]]
    for task in report["tasks"]:
        rows = [task["rows"][name] for name in names]
        shown = [f"{row['value']:.1f} [{row['low']:.1f}, {row['high']:.1f}]" for row in rows]
        cells.append([task["name"], task["unit"], *shown])
    return cells


def probe_verdicts(report: Mapping[str, Any]) -> list[str]:
    """One line per question: what the features are not clearly better than, if anything."""
    lines = []
    for task in report["tasks"]:
        weak = [name for name, found in task["differences"].items() if not found["better"]]
        verdict = f"not clearly better than {', '.join(weak)}" if weak else "clearly better than all the others"
        lines.append(f"{task['name']}: {verdict}")
    return lines
