# SPDX-License-Identifier: Apache-2.0
"""The geometry trainer: one loop for a CPU core and a GPU, killable at any moment.

A batch is a function of the step number and the state is written atomically, so a run that was killed and resumed ends
with the very weights of one that was not (bit for bit on a CPU in float32; a test kills it).
"""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from omnistream.errors import OmniStreamError
from omnistream.heads.heads import HeadOutputs
from omnistream_training.building import build_model
from omnistream_training.checkpointing import Progress, averaged, load_state, save_state, save_weights
from omnistream_training.config import TrainConfig
from omnistream_training.config_file import config_to_dict
from omnistream_training.curve import draw_curve
from omnistream_training.data.batch import ClipBatch
from omnistream_training.data.feed import Feed
from omnistream_training.journal import Journal, duration
from omnistream_training.losses import geometry_loss, make_targets
from omnistream_training.meter import Meter
from omnistream_training.optim import Optimizers, WeightAverage, rate_at
from omnistream_training.validate import Validation, normalised


class NotFiniteError(OmniStreamError):
    """A loss or gradient is NaN or infinite. Names the step and the file with its batch."""


class GeometryTrainer:
    """A run in a directory. A second trainer on the same directory goes on where the first stopped."""

    def __init__(
        self, config: TrainConfig, run: Path, *, device: str = "cpu", tensorboard: bool = False, made_by: str = ""
    ) -> None:
        self.config, self.run, self.device = config, run, torch.device(device)
        self.made_by = made_by or "omnistream-train geometry"
        self.journal = Journal(run, tensorboard)
        self.feed = Feed(config, device)
        model, self.parent = build_model(config.model, config.seed)
        # The layout in which convolutions run fastest, on CPUs twice as fast.
        self.model = model.to(self.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.optimizers = Optimizers(self.model, config.optim)
        self.average = WeightAverage(self.model.parameters(), config.optim.ema)
        self.progress = Progress()
        self.validations = [
            Validation(self.feed, i, config.eval_clips, config.eval_frames) for i in range(len(self.feed.sources))
        ]
        self._forward: Callable[[ClipBatch], HeadOutputs] = self._run_model
        if config.compile:
            for block in self.model.backbone.blocks:
                block.compile()
            if self.model.heads is not None:
                self.model.heads.dpt.compile()
        self.state_file = run / "state" / "latest.pt"
        if self.state_file.exists():
            self.progress = load_state(
                self.state_file, self.model, self.average, self.optimizers, config_to_dict(config)
            )

    def train(
        self, until: int | None = None, *, deadline: float | None = None, stop: Callable[[], bool] = lambda: False
    ) -> bool:
        """Train up to step `until` (default: the end), `time.monotonic()` = `deadline`, or `stop()`; then save.

        Returns whether the run is finished. Raises NotFiniteError; the last good state then stays on disk.
        """
        last = min(self.config.steps, self.config.steps if until is None else until)
        self.journal.write(
            "start",
            self.progress.step,
            device=str(self.device),
            torch=torch.__version__,
            threads=torch.get_num_threads(),
            source=self.feed.description,
        )
        meter = Meter(self.device)
        batches = iter(self.feed.iterate(self.progress.step, last))
        while self.progress.step < last and not stop() and (deadline is None or time.monotonic() < deadline):
            meter.waiting()
            batch = next(batches)
            meter.working()
            self._step(batch, meter)
            step = self.progress.step
            if step % self.config.log_every == 0 or step == last:
                self._log(meter)
            if step % self.config.save_every == 0 or step == last:
                self._check(meter)
                self._save(meter)
            if self.config.eval_every and step % self.config.eval_every == 0 and step != self.config.steps:
                self._check(meter)
                self.evaluate()
                meter.skip()
        self._check(meter)
        self._save(meter)
        finished = self.progress.step >= self.config.steps
        if finished:
            self.evaluate(kind="end")
            self.write_weights()
        return finished

    def evaluate(self, kind: str = "eval") -> dict[str, Any]:
        """Held-out metrics of the averaged weights, journalled; the curve is redrawn and the weights written."""
        results: dict[str, Any] = {}
        with averaged(self.model, self.average):
            for validation in self.validations:
                results = validation.run(self.model)
                self.journal.write(
                    kind,
                    self.progress.step,
                    frames_seen=self.progress.frames,
                    train_seconds=round(self.progress.seconds),
                    **results,
                )
                self.journal.say(_summary(self.progress.step, results))
        draw_curve(self.journal.path, self.run / "curve.png")
        self.write_weights()
        return results

    def write_weights(self) -> None:
        """The averaged weights as a checkpoint of ours, `run/weights`."""
        save_weights(self.run / "weights", self.model, self.average, "float16", self.made_by, self.parent)

    def _step(self, batch: ClipBatch, meter: Meter) -> None:
        step = self.progress.step
        index, _ = self.config.stage_at(step)
        targets = make_targets(batch, self.config.model.scale)
        outputs = self._forward(batch)
        loss, terms = geometry_loss(outputs, targets, self.config.loss)
        loss.backward()
        norm = self.optimizers.clip()
        meter.add(step, index, {"loss": loss, "norm": norm, **terms}, batch.frames)
        if self.device.type == "cpu":  # looking costs nothing here, so a bad step never reaches the weights
            self._check(meter)
        self.optimizers.step(rate_at(step, self.config.steps, self.config.optim))
        self.average.update(step)
        self.progress.step += 1
        self.progress.frames += batch.frames

    def _run_model(self, batch: ClipBatch) -> HeadOutputs:
        dtype = torch.bfloat16
        with torch.autocast(self.device.type, dtype, enabled=self.config.precision == "bfloat16"):
            images = normalised(batch.images, self.model)
            _, heads = self.model(images, times=batch.times, want=self.config.loss.heads)
        return heads

    def _check(self, meter: Meter) -> None:
        """Raise NotFiniteError if a step since the last check was bad. On a GPU this is where the host waits."""
        bad = meter.bad_step()
        if bad is None:
            return
        path = self.run / f"bad_step_{bad}.pt"
        torch.save({"step": bad, "batch": self.feed.batch(bad).state()}, path)
        self.journal.write("not_finite", bad, terms=meter.last_terms())
        raise NotFiniteError(
            f"loss or gradient is not finite at step {bad}: {meter.last_terms()}; its batch is in {path}, the "
            f"last good state in {self.state_file}"
        )

    def _log(self, meter: Meter) -> None:
        self._check(meter)
        step, total = self.progress.step, self.config.steps
        values = meter.collect()
        self.progress.seconds += values["seconds"]
        self.journal.write(
            "train", step, frames_seen=self.progress.frames, rate=rate_at(step - 1, total, self.config.optim), **values
        )
        left = meter.seconds_left(self.config, step)
        self.journal.say(
            f"step {step}/{total}  loss {values['loss']:.4f}  {values['frames_per_s']:.0f} frames/s  "
            f"waiting {values['waiting']:.0%}  {duration(left)} left"
        )

    def _save(self, meter: Meter) -> None:
        meter.waiting()
        save_state(
            self.state_file, self.model, self.average, self.optimizers, self.progress, config_to_dict(self.config)
        )
        meter.skip()


def _summary(step: int, r: dict[str, Any]) -> str:
    if not r.get("clips"):
        return f"held-out at step {step}: no clip has depth"
    text = (
        f"held-out at step {step}: AbsRel {r['abs_rel']:.3f}, one scale {r['abs_rel_scaled']:.3f} (alone "
        f"{r['alone_abs_rel_scaled']:.3f}, constant {r['constant_abs_rel']:.3f}, map {r['map_abs_rel']:.3f}), delta "
        f"{r['delta1']:.3f}, one scale {r['delta1_scaled']:.3f}"
    )
    if "ate_percent" in r:
        text += f"; ATE {r['ate_percent']:.1f} % (straight line {r['line_percent']:.1f} %)"
    return text
