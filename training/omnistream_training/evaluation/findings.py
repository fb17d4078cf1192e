# SPDX-License-Identifier: Apache-2.0
"""What was wrong with the data or left out of a mean: named, counted, and never silent."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Any, Literal

from omnistream.errors import InputError
from omnistream_training.evaluation.protocols import OnError

Kind = Literal["sequence", "frame", "depth", "prediction", "short", "path", "degenerate"]

MEANING: dict[Kind, str] = {
    "sequence": "sequences left out because they cannot be opened",
    "frame": "frames, or depth of frames, left out because damaged or missing",
    "depth": "reference depth maps left out because no value in them can be used",
    "prediction": "sequences not scored because the prediction is not finite",
    "short": "sequences shorter than asked for, used as far as they go",
    "path": "sequences left out of pose means because the camera moves too little or has too few poses",
    "degenerate": "sequences left out of pose means because no Sim(3) is defined for the predicted path",
}


DAMAGE: frozenset[Kind] = frozenset({"sequence", "frame", "depth", "prediction"})
"""What stops an evaluation that is told to stop; the others are properties of sound data."""
LEFT_OUT: frozenset[Kind] = frozenset({"path", "degenerate"})
"""What stops a strict one besides, because a mean would be over fewer sequences."""


@dataclass(frozen=True)
class Finding:
    """One thing. `message` names the file, and the line where it has lines."""

    kind: Kind
    sequence: str
    message: str


class Findings:
    """Collects what is found in one sequence; under "stop" the first damage is raised as InputError instead."""

    def __init__(self, sequence: str, on_error: OnError, strict: bool = False) -> None:
        self.sequence, self.on_error, self.strict = sequence, on_error, strict
        self.list: list[Finding] = []

    def add(self, kind: Kind, message: str) -> None:
        if (self.on_error == "stop" and kind in DAMAGE) or (self.strict and kind in LEFT_OUT):
            raise InputError(f"{self.sequence}: {message}")
        self.list.append(Finding(kind, self.sequence, message))


def summary(findings: Iterable[Finding]) -> dict[str, Any]:
    """Counts by kind, their meaning, and all messages: for the report."""
    unique = list(dict.fromkeys(findings))
    counts = Counter(finding.kind for finding in unique)
    return {
        "counts": {kind: counts[kind] for kind in MEANING},
        "meaning": {kind: MEANING[kind] for kind in MEANING if counts[kind]},
        "list": [asdict(finding) for finding in unique],
    }
