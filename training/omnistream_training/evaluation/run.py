# SPDX-License-Identifier: Apache-2.0
"""All sequences of a data set through all predictors. What is done is on disk, so that a stopped run goes on."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from omnistream.cli.progress import Progress
from omnistream.errors import InputError
from omnistream.io.files import write_bytes
from omnistream_training.evaluation.benchmarks import benchmark_sequences
from omnistream_training.evaluation.findings import Finding, Findings
from omnistream_training.evaluation.folders import folder_sequences
from omnistream_training.evaluation.predict import Predictor, Track, run_sequence
from omnistream_training.evaluation.protocols import OnError, Protocol
from omnistream_training.evaluation.score import score
from omnistream_training.evaluation.sequences import SequenceRef
from omnistream_training.evaluation.survey import Survey, survey

CACHE_VERSION = 2
"""To be raised when a change makes the numbers of earlier runs stale."""


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What to evaluate, on what, and where the intermediate results go."""

    data: Path
    out: Path
    protocol: Protocol
    lengths: tuple[int, ...]
    """Numbers of first frames, ascending; `survey.ALL` for as many as there are."""
    on_error: OnError = "stop"
    limit: int | None = None
    """Only the first so many sequences; the report says so."""
    resume: bool = True


@dataclass(eq=False)
class Outcome:
    """Numbers of all sequences: scores[predictor][sequence][length], see `score.score`."""

    surveys: list[Survey] = field(default_factory=list)
    scores: dict[str, dict[str, dict[int, dict[str, Any]]]] = field(default_factory=dict)
    seconds: dict[str, float] = field(default_factory=dict)
    """Spent predicting, by predictor; of this and earlier runs."""
    positions: dict[str, dict[str, dict[str, Any]]] = field(default_factory=dict)
    """positions[predictor][sequence]: `estimate` and `reference` [N, 3] lists, for plots."""
    findings: list[Finding] = field(default_factory=list)


def sequences(plan: Plan) -> list[SequenceRef]:
    """The sequences of the plan, in order. InputError if the data are not there at all."""
    find = folder_sequences if plan.protocol.layout == "folders" else benchmark_sequences
    return find(plan.data, plan.protocol)[: plan.limit]


def survey_all(plan: Plan) -> Outcome:
    """Look at the reference data of all sequences, before any model runs."""
    outcome = Outcome()
    refs = sequences(plan)
    with Progress(len(refs), "sequences looked at") as progress:
        for ref in refs:
            _survey_one(plan, ref, outcome)
            progress.step()
    if not outcome.surveys:
        first = f": {outcome.findings[0].message}" if outcome.findings else ""
        raise InputError(f"no sequence of {plan.data} can be evaluated{first}")
    return outcome


def _survey_one(plan: Plan, ref: SequenceRef, outcome: Outcome) -> None:
    path, key = _cache(plan, ref.name, "survey", ".npz"), _key(plan, ref.name, {})
    found = Survey.load(path, key) if plan.resume else None
    if found is None:
        findings = Findings(ref.name, plan.on_error, plan.protocol.strict)
        try:
            found = survey(ref, plan.protocol, plan.lengths, findings)
            if found.frames == 0:
                raise InputError(f"{ref.name}: no frame can be read")
        except InputError as error:
            if plan.on_error == "stop":
                raise
            outcome.findings += [*findings.list, Finding("sequence", ref.name, str(error))]
            return
        found.save(path, key)
    outcome.surveys.append(found)
    outcome.findings += found.findings


def predict_all(
    plan: Plan,
    outcome: Outcome,
    predictors: Sequence[tuple[Predictor, dict[str, Any]]],
    on_track: Callable[[str, str, Track], None] = lambda predictor, sequence, track: None,
) -> None:
    """Run every (predictor, identity) over every surveyed sequence and add the numbers to `outcome`.

    identity: whatever, besides the plan, decides the predictor's numbers (model hash, engine, ...), JSON-ready.
    on_track: gets the name of the predictor, of the sequence, and each new track: for pictures.
    """
    refs = {ref.name: ref for ref in sequences(plan)}
    todo: list[tuple[Predictor, Survey, Path, str]] = []
    for predictor, identity in predictors:
        for found in outcome.surveys:
            path = _cache(plan, found.name, predictor.name, ".json")
            key = _key(plan, found.name, {"predictor": predictor.name, "survey": found.first_image, **identity})
            done = _load(path, key) if plan.resume else None
            if done is None:
                todo.append((predictor, found, path, key))
            else:
                _add(outcome, predictor.name, found.name, done)
    with Progress(sum(found.frames for _, found, _, _ in todo)) as progress:
        for predictor, found, path, key in todo:
            findings = Findings(found.name, plan.on_error, plan.protocol.strict)
            ref = refs[found.name]
            track = run_sequence(ref, plan.protocol, predictor, findings, frames=found.frames, tick=progress.step)
            done = _result(track, plan, findings) | {"key": key}
            write_bytes(path, json.dumps(done).encode())
            on_track(predictor.name, found.name, track)
            _add(outcome, predictor.name, found.name, done)


def _cache(plan: Plan, sequence: str, what: str, suffix: str) -> Path:
    """Where a piece of work is kept: names readable, and different for different ones."""
    parts = [f"{re.sub(r'[^A-Za-z0-9_.-]+', '_', text)}-{_digest(text)[:6]}" for text in (sequence, what)]
    return plan.out / "sequences" / parts[0] / f"{parts[1]}{suffix}"


def _key(plan: Plan, sequence: str, identity: dict[str, Any]) -> str:
    """Digest of all that decides a result, except the bytes of the data set."""
    everything = {
        "version": CACHE_VERSION,
        "data": str(plan.data.resolve()),
        "sequence": sequence,
        "protocol": dataclasses.asdict(plan.protocol),
        "lengths": plan.lengths,
        "on_error": plan.on_error,
        **identity,
    }
    return _digest(json.dumps(everything, sort_keys=True))


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _result(track: Track, plan: Plan, findings: Findings) -> dict[str, Any]:
    """What is kept of a track, JSON-ready."""
    scores = {str(length): score(track, plan.protocol, length, findings) for length in plan.lengths}
    pairs = [
        (estimate[:3, 3].tolist(), reference[:3, 3].tolist())
        for estimate, reference in zip(track.poses, track.reference_poses, strict=True)
        if estimate is not None and reference is not None
    ]
    return {
        "scores": scores,
        "seconds": track.seconds,
        "positions": {"estimate": [e for e, _ in pairs], "reference": [r for _, r in pairs]},
        "findings": [vars(finding) for finding in findings.list],
    }


def _load(path: Path, key: str) -> dict[str, Any] | None:
    try:
        done = json.loads(path.read_text())
    except (OSError, ValueError):
        return None
    return done if isinstance(done, dict) and done.get("key") == key else None


def _add(outcome: Outcome, predictor: str, sequence: str, done: dict[str, Any]) -> None:
    by_length = {int(length): scores for length, scores in done["scores"].items()}
    outcome.scores.setdefault(predictor, {})[sequence] = by_length
    outcome.positions.setdefault(predictor, {})[sequence] = done["positions"]
    outcome.seconds[predictor] = outcome.seconds.get(predictor, 0.0) + done["seconds"]
    outcome.findings += [Finding(**finding) for finding in done["findings"]]
