# SPDX-License-Identifier: Apache-2.0
"""The state of a run on disk: written whole or not at all, and enough to go on as if nothing had happened.

A run directory holds

    config.yaml          the TrainConfig (config_file)
    state/latest.pt      this file's business; state/previous.pt is the one before, latest.damaged one set aside
    weights/             the averaged weights as a checkpoint of ours, fp16, for StreamSession and everything else
    log.jsonl            one object per line, kinds: start, train, eval, end
    curve.png            loss and held-out error
    bad_step_N.pt        the batch of a step whose loss was not finite
"""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path
from typing import Any

import torch
from torch import nn

from omnistream.errors import CheckpointError
from omnistream.model.omnistream import OmniStream
from omnistream.weights import save_model
from omnistream_training.config_file import config_to_dict, same_config
from omnistream_training.learner import Learner, Progress
from omnistream_training.optim import WeightAverage

STATE_VERSION = 1


def save_state(path: Path, learner: Learner) -> None:
    """Write everything that the next step depends on. A kill at any moment leaves the old file or the new one."""
    state = {
        "version": STATE_VERSION,
        "config": config_to_dict(learner.config),
        "model": learner.model.state_dict(),
        "average": learner.average.average,
        "optimizers": learner.optimizers.state_dict(),
        "progress": vars(learner.progress),
        "rng": torch.get_rng_state(),
        "rng_cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_available() else [],
    }
    write_state(path, state)


def write_state(path: Path, state: dict[str, Any]) -> None:
    """Put `state` (tensors and plain data) in `path` at once, and keep what was there as previous.pt."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(".partial")
    with open(partial, "wb") as file:
        torch.save(state, file)
        file.flush()
        os.fsync(file.fileno())
    if path.exists():
        # A hard link, so that at no moment there is no `latest`.
        previous = path.with_name("previous.pt")
        previous.unlink(missing_ok=True)
        os.link(path, previous)
    os.replace(partial, path)


def has_state(path: Path) -> bool:
    """Whether there is anything to go on from, be it the state before the newest alone."""
    return path.exists() or path.with_name("previous.pt").exists()


def load_state(path: Path, learner: Learner) -> None:
    """Restore what `save_state` wrote; falls back to previous.pt where the newest file is damaged.

    Raises CheckpointError if neither can be read or the state belongs to another configuration.
    """
    state = read_state(path)
    if not same_config(state["config"], learner.config):
        raise CheckpointError(f"{path} belongs to another configuration than this run's config.yaml")
    learner.model.load_state_dict(state["model"])
    for mine, stored in zip(learner.average.average, state["average"], strict=True):
        mine.copy_(stored)
    learner.optimizers.load_state_dict(state["optimizers"])
    learner.progress = Progress(**state["progress"])
    torch.set_rng_state(state["rng"])
    if torch.cuda.is_available() and len(state["rng_cuda"]) == torch.cuda.device_count():
        torch.cuda.set_rng_state_all(state["rng_cuda"])


def read_state(path: Path) -> dict[str, Any]:
    """What `write_state` wrote, or what was there before it where the newest file is damaged; it is said, and the
    damaged file set aside as *.damaged, so that the next state does not take the place of the good one.

    Raises CheckpointError if neither can be read, or the newest cannot be read now but may be whole.
    """
    reasons: list[str] = []
    for candidate in (path, path.with_name("previous.pt")):
        try:
            state = torch.load(candidate, map_location="cpu", weights_only=True)
        except Exception as error:  # torch raises anything from RuntimeError to UnpicklingError on a damaged file
            if isinstance(error, (OSError, MemoryError)) and not isinstance(error, FileNotFoundError):
                raise CheckpointError(f"{candidate} cannot be read now, and may be whole: {error}") from error
            reasons.append(f"{candidate} is damaged or missing ({type(error).__name__})")
            continue
        if state.get("version") != STATE_VERSION:
            raise CheckpointError(
                f"{candidate} has version {state.get('version')!r}; this release reads {STATE_VERSION}"
            )
        if reasons:
            print(f"{reasons[0]}: going on from {candidate}", file=sys.stderr)
            if path.exists():
                os.replace(path, path.with_suffix(".damaged"))
            os.link(candidate, path)
        return state
    raise CheckpointError("no usable training state: " + "; ".join(reasons))


def save_weights(directory: Path, learner: Learner, dtype: str, made_by: str) -> None:
    """Write the averaged weights as a checkpoint of ours."""
    with averaged(learner.model, learner.average):
        put_weights(directory, learner.model, learner, dtype, made_by)


def put_weights(directory: Path, model: OmniStream, learner: Learner, dtype: str, made_by: str) -> None:
    """Write `model`, the product of `learner`, beside the old checkpoint first and then in its place."""
    fresh = directory.with_name(directory.name + ".new")
    shutil.rmtree(fresh, ignore_errors=True)
    save_model(model, fresh, dtype=dtype, made_by=made_by, parent=learner.parent)
    old = directory.with_name(directory.name + ".old")
    shutil.rmtree(old, ignore_errors=True)
    if directory.exists():
        os.replace(directory, old)
    os.replace(fresh, directory)
    shutil.rmtree(old, ignore_errors=True)


class averaged:  # lower case: it reads as a verb in `with averaged(model, average):`
    """Context in which the model computes with the averaged weights; the trained ones come back afterwards."""

    def __init__(self, model: nn.Module, average: WeightAverage) -> None:
        self._model, self._average = model, average

    def __enter__(self) -> None:
        self._swap()
        self._was_training = self._model.training
        self._model.eval()

    def __exit__(self, *_: object) -> None:
        self._swap()
        self._model.train(self._was_training)

    @torch.no_grad()
    def _swap(self) -> None:
        for parameter, average in zip(self._average.source, self._average.average, strict=True):
            held = parameter.detach().clone()
            parameter.copy_(average)
            average.copy_(held)
