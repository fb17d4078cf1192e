# SPDX-License-Identifier: Apache-2.0
"""The geometry trainer: one loop for a CPU core and a GPU, killable at any moment.

A batch is a function of the step number and the state is written atomically, so a run that was killed and resumed ends
with the very weights of one that was not (bit for bit on a CPU in float32; a test kills it).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from omnistream.errors import OmniStreamError
from omnistream_training.checkpointing import averaged, has_state, load_state, save_state, save_weights
from omnistream_training.config import TrainConfig
from omnistream_training.data.batch import ClipBatch
from omnistream_training.data.feed import Feed
from omnistream_training.journal import Journal, began_by, duration, processor
from omnistream_training.learner import Learner, Progress
from omnistream_training.meter import Meter
from omnistream_training.optim import rate_at
from omnistream_training.validate import Validation, summary


class NotFiniteError(OmniStreamError):
    """A loss or gradient is NaN or infinite. Names the step and the file with its batch."""


class GeometryTrainer:
    """A run in a directory. A second trainer on the same directory goes on where the first stopped."""

    def __init__(
        self, config: TrainConfig, run: Path, *, device: str = "cpu", tensorboard: bool = False, made_by: str = ""
    ) -> None:
        self.config, self.run, self.device = config, run, torch.device(device)
        self.made_by = began_by(run) or made_by or "omnistream-train geometry"
        self.feed = Feed(config, device)
        self.learner = Learner(config, device)
        self.validations = [
            Validation(self.feed, i, config.eval_clips, config.eval_frames) for i in range(len(self.feed.sources))
        ]
        self.journal = Journal(run, tensorboard)  # only now: a start that failed leaves no folder
        self.state_file = run / "state" / "latest.pt"
        if has_state(self.state_file):
            load_state(self.state_file, self.learner)
        else:
            self.learner.calibrate(self.feed.batch(0))

    @property
    def progress(self) -> Progress:
        return self.learner.progress

    def train(
        self, until: int | None = None, *, deadline: float | None = None, stop: Callable[[], bool] = lambda: False
    ) -> bool:
        """Train up to step `until` (default: the end), `time.monotonic()` = `deadline`, or `stop()`; then save.

        Returns whether the run is finished. Raises NotFiniteError; the last good state then stays on disk.
        """
        config, progress = self.config, self.progress
        last = config.steps if until is None else min(config.steps, until)
        self._journal_start()
        meter = Meter(self.device)
        batches = self.feed.iterate(progress.step, last)
        while progress.step < last and not self._stopping(stop, deadline):
            index, _ = config.stage_at(progress.step)
            values, frames = self._gradient(batches, meter)
            meter.add(progress.step, index, values, frames)
            if self.device.type == "cpu":  # looking costs nothing here, so a bad step never reaches the weights
                self._check(meter)
            self.learner.update()
            if progress.step % config.log_every == 0 or progress.step == last:
                self._log(meter)
            if progress.step % config.save_every == 0:
                self._save(meter)
            if config.eval_every and progress.step % config.eval_every == 0 and progress.step < config.steps:
                self.evaluate(meter)
        if meter.pending:  # steps since the last line, of a run that is stopped: their time counts
            self._log(meter)
        self._save(meter)
        finished = progress.step >= config.steps
        if finished:
            self.evaluate(meter, kind="end")
        else:
            self._publish()
        return finished

    def evaluate(self, meter: Meter, kind: str = "eval") -> dict[str, Any]:
        """Held-out metrics of the averaged weights, journalled; the curve is redrawn and the weights written."""
        self._check(meter)
        results: dict[str, Any] = {}
        # Compiled code is for the shapes of training; recompiling for those of evaluation costs more than it gains.
        eager = torch.compiler.set_stance("force_eager") if self.config.compile else nullcontext()
        with meter.pausing(), eager, averaged(self.learner.model, self.learner.average):
            for validation in self.validations:
                results = validation.run(self.learner.model)
                self.journal.write(
                    kind,
                    self.progress.step,
                    source=validation.description,
                    frames_seen=self.progress.frames,
                    train_seconds=round(self.progress.seconds),
                    **results,
                )
                self.journal.say(f"held-out at step {self.progress.step}: {summary(results)}")
        with meter.pausing():
            self.journal.draw(self.run / "curve.png")
            self._publish()
        return results

    def _stopping(self, stop: Callable[[], bool], deadline: float | None) -> bool:
        return stop() or (deadline is not None and time.monotonic() >= deadline)

    def _gradient(self, batches: Iterator[ClipBatch], meter: Meter) -> tuple[dict[str, Tensor], int]:
        """Gradients of the step: its values for the log, and the number of frames behind them."""
        with meter.waiting():
            batch = next(batches)
        return self.learner.gradient(batch), batch.frames

    def _publish(self) -> None:
        save_weights(self.run / "weights", self.learner, "float16", self.made_by)

    def _check(self, meter: Meter) -> None:
        """Raise NotFiniteError if a step since the last check was bad. On a GPU this is where the host waits."""
        bad = meter.bad_step()
        if bad is None:
            return
        path, content = self._bad_batch(bad)
        torch.save(content, path)
        self.journal.write("not_finite", bad, terms=meter.last_terms())
        raise NotFiniteError(
            f"loss or gradient is not finite at step {bad}: {meter.last_terms()}; its batch is in {path}, the "
            f"last good state in {self.state_file}"
        )

    def _bad_batch(self, step: int) -> tuple[Path, dict[str, Any]]:
        """File and content."""
        return self.run / f"bad_step_{step}.pt", {"step": step, "batch": self.feed.batch(step).state()}

    def _log(self, meter: Meter) -> None:
        self._check(meter)
        step, total = self.progress.step, self.config.steps
        values = meter.collect()
        self.progress.seconds += values["seconds"]
        rate = rate_at(step - 1, total, self.config.optim)
        self.journal.write("train", step, frames_seen=self.progress.frames, rate=round(rate, 5), **values)
        self.journal.say(
            f"step {step}/{total}  loss {values['loss']:.4f}  {values['frames_per_s']:.0f} frames/s  "
            f"waiting {values['waiting']:.0%}  {duration(meter.seconds_left(self.config, step))} left"
        )

    def _save(self, meter: Meter) -> None:
        self._check(meter)
        with meter.pausing():
            save_state(self.state_file, self.learner)

    def _journal_start(self) -> None:
        self.journal.write(
            "start",
            self.progress.step,
            device=str(self.device) if self.device.type == "cpu" else torch.cuda.get_device_name(self.device),
            processor=processor(),
            torch=torch.__version__,
            threads=torch.get_num_threads(),
            source=self.feed.description,
            made_by=self.made_by,
        )
