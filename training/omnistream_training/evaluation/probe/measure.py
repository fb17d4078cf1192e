# SPDX-License-Identifier: Apache-2.0
"""Train a probe, choose its strength on validation scenes, score it on test scenes; intervals over scenes and seeds."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from omnistream_training.evaluation.bootstrap import LEVEL, RESAMPLES, Interval
from omnistream_training.evaluation.probe.inputs import ProbeInput
from omnistream_training.evaluation.probe.ridge import STRENGTHS, Matrix, Ridge, fit, one_hot
from omnistream_training.evaluation.probe.tasks import Task, shrink

VALIDATION, TEST = 0.15, 0.25
"""Shares of the scenes; the rest trains."""


@dataclass(frozen=True)
class Split:
    """Which scenes do what, [S] bool each. Clips are drawn independently, so the first may as well train."""

    train: NDArray[np.bool_]
    validation: NDArray[np.bool_]
    test: NDArray[np.bool_]

    @staticmethod
    def of(scenes: int) -> Split:
        number = (np.arange(scenes) + 0.5) / scenes
        train = number < 1 - VALIDATION - TEST
        return Split(train, ~train & (number < 1 - TEST), number >= 1 - TEST)


@dataclass(frozen=True)
class Score:
    """Of one task and one input, kept per test scene so that any resampling can be scored."""

    sums: NDArray[np.float64]
    """[scenes, 2 c]: errors (right answers) and samples, by class."""
    strength: float
    predicted: Matrix
    """[test samples, k], as the task's answers, or class numbers [n, 1]."""

    def value(self, counts: NDArray[np.float64] | None = None) -> NDArray[np.float64]:
        """Per cent, a mean over the classes; counts [r, scenes]: how often each scene is drawn (default: once)."""
        totals = (np.ones((1, len(self.sums))) if counts is None else counts) @ self.sums
        right, samples = np.split(totals, 2, axis=1)
        with np.errstate(invalid="ignore", divide="ignore"):
            return 100 * np.nanmean(np.where(samples > 0, right / samples, np.nan), axis=1)


def probe(task: Task, source: ProbeInput, split: Split) -> Score:
    """Fit on training scenes for every strength, choose on validation scenes, fit on both, score on test scenes."""
    inputs = source.picture()[task.scene] if task.level == "picture" else source.patches(task.scene, task.patch)
    x: Matrix = inputs.astype(np.float64)
    train, validation, test = (part[task.scene] for part in (split.train, split.validation, split.test))
    first = _fit_all(task, x, train)
    errors = []
    for strength in STRENGTHS:
        predicted = _answer(task, _predict_all(task, first, x, validation, strength), train)
        errors.append(-task.better * Score(_sums(task, predicted, validation), strength, predicted).value()[0])
    best = STRENGTHS[int(np.argmin(errors))]
    both = train | validation
    predicted = _answer(task, _predict_all(task, _fit_all(task, x, both), x, test, best), both)
    return Score(_sums(task, predicted, test), best, predicted)


def _fit_all(task: Task, x: Matrix, rows: NDArray[np.bool_]) -> dict[int, Ridge]:
    """By group."""
    if task.group is None:
        return {0: _fit(task, x, rows)}
    return {int(g): _fit(task, x, rows & (task.group == g)) for g in np.unique(task.group[rows])}


def _predict_all(task: Task, ridges: dict[int, Ridge], x: Matrix, rows: NDArray[np.bool_], strength: float) -> Matrix:
    """[samples among rows, k], each by the regression of its group; the mean for a group that none was learnt for."""
    if task.group is None:
        return ridges[0].predict(x[rows], strength)
    group, inputs = task.group[rows], x[rows]
    out = np.tile(np.mean([ridge.mean_y for ridge in ridges.values()], axis=0), (len(inputs), 1))
    for number, ridge in ridges.items():
        out[group == number] = ridge.predict(inputs[group == number], strength)
    return out


def _fit(task: Task, x: Matrix, rows: NDArray[np.bool_]) -> Ridge:
    if task.classes:
        targets, weights = one_hot(task.answers[rows].astype(np.int64), len(task.classes))
        return fit(x[rows], targets, weights)
    return fit(x[rows], task.answers[rows])


def _answer(task: Task, raw: Matrix, known: NDArray[np.bool_]) -> Matrix:
    """What the regression's output says: class numbers, places in m, or as it is."""
    if task.classes:
        return raw.argmax(1)[:, None].astype(np.float64)
    if task.error == "distance":
        return shrink(raw, float(np.linalg.norm(task.answers[known], axis=1).max()))
    return raw


def _sums(task: Task, predicted: Matrix, rows: NDArray[np.bool_]) -> NDArray[np.float64]:
    """[scenes among `rows`, 2 c], see `Score.sums`."""
    scene, answers = task.scene[rows], task.answers[rows]
    if task.classes:
        kind, count = answers.astype(np.int64), len(task.classes)
        hit = (predicted[:, 0] == answers).astype(np.float64)
    else:
        kind, count = np.zeros(len(answers), np.int64), 1
        truth = shrink(answers, np.inf) if task.error == "distance" else answers
        hit = np.linalg.norm(predicted - truth, axis=1)
        if task.error == "distance":  # symmetric: a factor too far is as wrong as a factor too near
            hit = 2 * hit / (np.linalg.norm(truth, axis=1) + np.linalg.norm(predicted, axis=1))
    _, index = np.unique(scene, return_inverse=True)
    scenes = int(index.max(initial=-1)) + 1
    cell = index * count + kind
    totals = [np.bincount(cell, values, scenes * count) for values in (hit, np.ones(len(hit)))]
    return np.concatenate([total.reshape(scenes, count) for total in totals], 1)


def interval(scores: Sequence[Score]) -> Interval:
    """Mean over seeds, and its interval over scenes and seeds."""
    values = np.mean([score.value()[0] for score in scores])
    return _interval(float(values), _draws(scores))


def difference(a: Sequence[Score], b: Sequence[Score]) -> Interval:
    """a - b on the same drawn scenes; seeds of each side are drawn for themselves."""
    value = np.mean([s.value()[0] for s in a]) - np.mean([s.value()[0] for s in b])
    return _interval(float(value), _draws(a) - _draws(b, seed_of_seeds=1))


def _draws(scores: Sequence[Score], seed_of_seeds: int = 0) -> NDArray[np.float64]:
    """[RESAMPLES] values; for the same number of scenes always the same drawn scenes."""
    scenes = len(scores[0].sums)
    counts = np.random.default_rng(0).multinomial(scenes, np.full(scenes, 1 / scenes), RESAMPLES).astype(np.float64)
    values = np.stack([score.value(counts) for score in scores], 1)
    picks = np.random.default_rng(seed_of_seeds).integers(0, len(scores), values.shape)
    return np.take_along_axis(values, picks, 1).mean(1)


def _interval(value: float, draws: NDArray[np.float64]) -> Interval:
    low, high = np.nanquantile(draws, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return Interval(value, float(low), float(high))
