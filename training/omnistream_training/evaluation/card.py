# SPDX-License-Identifier: Apache-2.0
"""`omnistream-eval card`: the model card of a training run, filled from its files and from reports. No number is typed.

RUN gives what the model is, what it was trained on and what that cost (config.yaml, log.jsonl, weights/); every number
of quality comes from a report of ours: geometry (results.json), acceptance.json, twins.json, probe (results.json).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from omnistream.errors import InputError
from omnistream.io.files import write_bytes
from omnistream.weights import load_model, model_hash, open_checkpoint
from omnistream_training.config import TrainConfig
from omnistream_training.config_file import load_config
from omnistream_training.evaluation import results, twins
from omnistream_training.evaluation.card_parts import bullets, described, markdown_table, read_report
from omnistream_training.evaluation.compare import comparison_text
from omnistream_training.evaluation.probe.command import FORMAT as PROBE
from omnistream_training.evaluation.probe.command import probe_cells, probe_verdicts
from omnistream_training.evaluation.table import block_cells
from omnistream_training.journal import duration, read_journal
from omnistream_training.pretrain.config import PretrainConfig

ACCEPTANCE = "omnistream-acceptance"
LIMITS = (
    "It knows no words, no classes of things and no actions; its features carry what depth and camera motion need.",
    "Depth and translation are in the unit of its training; another kind of camera or scene shifts it.",
    "Fields of view and camera speeds far from those of the training data are guesses.",
    "The pose drifts with the length of the stream: there is no loop closure and no map.",
    "It says nothing of its own failures, except for the confidence of depth, which is not calibrated.",
)
SYNTHETIC = "It has never seen a real photograph: every training picture was rendered."
Report = Mapping[str, Any]


def write_card(
    runs: Sequence[Path], reports: Sequence[Path], out: Path, name: str, weights: Path | None = None
) -> None:
    """Write the card.

    runs: directories of training runs in the order in which one began with the weights of the one before. weights: the
    model, if it was made from what the last run wrote (an average); default: that itself. reports: files of ours, of
    any kind. Raises InputError naming the file that is missing or foreign.
    """
    model = _written(runs, weights)
    text = "\n".join([f"# {name}", "", *_about(runs, model), *_cost(runs), *_quality(reports, model), *_limits(runs)])
    write_bytes(out, f"{text.rstrip()}\n".encode())


def _written(runs: Sequence[Path], weights: Path | None) -> Path:
    """Where the model is, after a look at whether the last run has to do with it."""
    last = runs[-1] / "weights"
    if weights is None:
        return last
    of_run = set(open_checkpoint(last).provenance()["files"].values())
    made_from = (open_checkpoint(weights).info.get("parent") or {}).get("files", {})
    if of_run.isdisjoint(made_from.values()):
        raise InputError(f"{weights} was not made from {last}: its config.json names other files as its parent")
    return weights


def _about(runs: Sequence[Path], weights: Path) -> list[str]:
    model, info = load_model(str(weights)), open_checkpoint(weights).info
    config, backbone = model.config, model.config.backbone
    parameters = sum(p.numel() for p in model.parameters())
    files = sorted(path for path in weights.iterdir() if path.is_file())
    largest = max(files, key=lambda path: path.stat().st_size)
    rows = [
        (
            "what it is",
            "a causal streaming vision backbone with heads, OmniStream's architecture, trained from nothing",
        ),
        ("parameters", f"{parameters / 1e6:.1f} M (backbone {_count(model.backbone) / 1e6:.1f} M)"),
        ("width, depth, heads, patch", f"{backbone.dim}, {backbone.depth}, {backbone.heads}, {backbone.patch_size}"),
        ("made for", f"pictures of about {config.image_size} x {config.image_size} pixels"),
        ("gives", f"{', '.join(config.outputs)}; scale: {config.scale}"),
        ("file", described(largest)),
        ("last written by", f"`{info['made_by']}`"),
        ("model hash", model_hash(model)),
    ]
    if _config(runs[0]).model.start is not None:
        rows[0] = (
            rows[0][0],
            f"a causal streaming vision backbone with heads, begun with {_config(runs[0]).model.start}",
        )
    return [*markdown_table(("", ""), rows), ""]


def _cost(runs: Sequence[Path]) -> list[str]:
    """Data and cost, one line per run. Steps that a kill took back and that were done again are counted as work."""
    lines, total_frames, total_hours = [], 0, 0.0
    for run in runs:
        config, records = _config(run), _records(run)
        starts = [record for record in records if record["kind"] == "start"]
        train = [record for record in records if record["kind"] == "train"]
        if not starts or not train:
            raise InputError(f"{run / 'log.jsonl'}: no training in it")
        seconds = sum(record["seconds"] for record in train)
        frames = train[-1]["frames_seen"]
        where = _machines(starts)
        sources = "; ".join(dict.fromkeys(start["source"] for start in starts))
        stages = ", ".join(f"{s.steps} x ({s.clips} x {s.frames} x {s.size[0]} x {s.size[1]})" for s in config.stages)
        waiting = sum(record["waiting"] * record["seconds"] for record in train) / max(seconds, 1e-9)
        threads = max(start["threads"] for start in starts) if starts[-1]["device"] == "cpu" else 1
        total_frames += frames
        total_hours += seconds * threads / 3600
        steps, speed = f"{train[-1]['step']} of {config.steps}", f"{frames / seconds:.0f}"
        lines.append(
            (run.name, sources, stages, steps, f"{frames:,}", duration(seconds), speed, f"{waiting:.1%}", where)
        )
    what = "A frame is a picture with depth, pose and intrinsics."
    if any(isinstance(_config(run), PretrainConfig) for run in runs):
        what = "A frame is a picture that the network ran on: of geometry, a crop of self-supervision, or asked about."
    device = "GPU" if _records(runs[-1])[0]["device"] != "cpu" else "core"
    headings = ("run", "source", "stages: steps x (clips x frames x height x width)", "steps", "frames")
    more = ("training time", "frames/s", "waiting for data", "machine")
    return [
        "## Data and cost",
        "",
        *markdown_table((*headings, *more), lines),
        "",
        *[line for run in runs for objectives in _objectives(run) for line in (objectives, "")],
        f"In all {total_frames:,} frames and {total_hours:.2f} {device} hours of training; evaluations, and the runs "
        f"that were tried before (training_log.md), come on top. {what}",
        "",
    ]


def _machines(starts: Sequence[Report]) -> str:
    """What the run was on, all its starts together: GPUs by name, processors with their numbers of threads."""
    threads: dict[str, set[int]] = {}
    for start in starts:
        cpu = start["device"] == "cpu"
        used = threads.setdefault(start.get("processor", "CPU") if cpu else str(start["device"]), set())
        used.update({start["threads"]} if cpu else set())
    return "; ".join(
        f"{name}, {' or '.join(map(str, sorted(used)))} threads" if used else name for name, used in threads.items()
    )


def _quality(reports: Sequence[Path], weights: Path) -> list[str]:
    lines = ["## Numbers, each beside what it has to beat", ""]
    mine = model_hash(load_model(str(weights)))
    for path in reports:
        report = _report(path)
        sections = {
            ACCEPTANCE: _acceptance,
            results.FORMAT: _geometry,
            twins.FORMAT: _twins,
            PROBE: _probe,
        }
        found = report.get("model", {}).get("hash")
        if found not in (None, mine):
            raise InputError(f"{path} is about other weights ({found}) than {weights} ({mine})")
        lines += [*sections[report["format"]](report), ""]
    return lines


def _acceptance(report: Report) -> list[str]:
    rows = []
    for row in report["rows"]:
        form = "{:.1f} %" if row["metric"] == "ate_percent" else "{:.3f}"
        verdict = "aim reached" if row["aim_reached"] else "accepted" if row["accepted"] else "**not accepted**"
        value = row["value"]
        shown = f"{form.format(value['value'])} [{form.format(value['low'])}, {form.format(value['high'])}]"
        others = "; ".join(f"{name} {form.format(number)}" for name, number in row["baselines"].items())
        limits = (form.format(row["accept"]), form.format(row["aim"]))
        rows.append((row["set"], row["metric"], shown, *limits, verdict, others))
    about = f"{report['sequences']} held-out sequences of {report['frames']} frames each, policy {report['policy']}"
    headings = ("set", "metric", "streamed, 95 % interval", "accept", "aim", "", "baselines")
    return ["### What was asked of it", "", *markdown_table(headings, rows), "", f"{about}; `make eval-default`."]


def _geometry(report: Report) -> list[str]:
    lines = [f"### {Path(report['data']['path']).name}: {report['protocol']['name']}", "", report["protocol"]["line"]]
    for frames in dict.fromkeys(row["frames"] for row in report["rows"]):
        cells = block_cells([row for row in report["rows"] if row["frames"] == frames])
        lines += ["", f"Frames per sequence: {frames}; time base {report['options'].get('time_base', 'index')}.", ""]
        lines += markdown_table(cells[0], cells[1:])
    return lines


def _twins(report: Report) -> list[str]:
    lines = ["### Does memory help?", ""]
    lines += [f"The same run with and without memory, {len(report['runs']['stream'])} seeds each; `make twins`.", ""]
    for name, found in report["sets"].items():
        for comparison in found["comparisons"]:
            rows = [row for row in comparison["rows"] if twins.JUDGED.get(row["metric"]) == comparison["twin"]]
            if rows:
                lines += [
                    f"{name}: A is {comparison['policy']}, B the twin {twins.TWIN_POLICY[comparison['twin']]}.",
                    "",
                ]
                cells = comparison_text(rows)
                lines += [*markdown_table(cells[0], cells[1:]), ""]
    return lines


def _probe(report: Report) -> list[str]:
    cells = probe_cells(report)
    about = f"Linear probes on {report['scenes']['source']}; `omnistream-eval probe`."
    return [
        "### What the features know",
        "",
        about,
        "",
        *markdown_table(cells[0], cells[1:]),
        "",
        *bullets(probe_verdicts(report)),
    ]


def _limits(runs: Sequence[Path]) -> list[str]:
    synthetic = not any(_photographs(_config(run)) for run in runs)
    begun = _config(runs[0]).model.start is not None
    return ["## What it cannot do", "", *bullets([*([SYNTHETIC] if synthetic and not begun else []), *LIMITS])]


def _report(path: Path) -> dict[str, Any]:
    return read_report(path, (ACCEPTANCE, results.FORMAT, twins.FORMAT, PROBE), "model card")


def _config(run: Path) -> TrainConfig:
    """Of a geometry run, or of a pre-training run, which has objectives."""
    path = run / "config.yaml"
    try:
        fields = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, yaml.YAMLError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: cannot be read: {error}") from error
    pretrained = isinstance(fields, dict) and "weights" in fields
    return load_config(path, PretrainConfig() if pretrained else TrainConfig())


def _objectives(run: Path) -> list[str]:
    """What the loss of a pre-training run adds up, with weights."""
    config = _config(run)
    if not isinstance(config, PretrainConfig):
        return []
    tasks = {"self-supervision": config.weights.ssl, "geometry": config.weights.geometry}
    tasks |= {"captions": config.weights.caption}
    words = " + ".join(f"{weight:g} x {name}" for name, weight in tasks.items() if weight)
    return [f"Objectives of {run.name}: {words}.{'' if config.weights.geometry else ' Its heads have learnt nothing.'}"]


def _photographs(config: TrainConfig) -> bool:
    """Whether any of its pictures may not be rendered."""
    if (config.data.live is None and not config.data.pools) or config.data.folders:
        return True
    more = (config.recordings, config.ssl.pictures, config.ssl.videos) if isinstance(config, PretrainConfig) else ()
    return any(more) or (isinstance(config, PretrainConfig) and bool(config.caption.data))


def _records(run: Path) -> list[dict[str, Any]]:
    try:
        return read_journal(run / "log.jsonl")
    except OSError as error:
        raise InputError(f"{run / 'log.jsonl'}: cannot be read: {error}") from error


def _count(module: Any) -> int:
    return sum(p.numel() for p in module.parameters())
