# SPDX-License-Identifier: Apache-2.0
"""The policy trainer: a run in a directory that can be killed at any moment and goes on as if it had not been.

A run directory holds

    config.yaml        the PolicyRunConfig
    state/latest.pt    weights, optimiser, counters; state/previous.pt is the one before
    best/              the policy with the smallest held-out error so far (averaged weights), ready for PolicySession
    last/              the newest one
    log.jsonl          one object per line, kinds: start, train, eval, end
    curve.png          loss and held-out error beside its baselines
    overlay.png, overlay.mp4     predicted and recorded actions of held-out episodes, by the best policy
    report.json        the best policy's errors per action, and where and how they were made
"""

from __future__ import annotations

import json
import math
import platform
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import torch

import omnistream
from omnistream.errors import CheckpointError
from omnistream.policy.checkpoint import LoadedPolicy, load_policy, save_policy
from omnistream_training.ahead import read_ahead
from omnistream_training.checkpointing import averaged, read_state, write_state
from omnistream_training.config_file import config_to_dict, merge
from omnistream_training.geometry import NotFiniteError
from omnistream_training.journal import Journal, duration, processor, read_journal
from omnistream_training.learner import Progress
from omnistream_training.meter import Meter
from omnistream_training.optim import rate_at
from omnistream_training.policy.building import Setup
from omnistream_training.policy.config import PolicyRunConfig
from omnistream_training.policy.learner import PolicyLearner
from omnistream_training.policy.offline import Offline, summary, table
from omnistream_training.policy.overlay import compare, draw_overlays, write_video
from omnistream_training.policy.samples import Batch

STATE_VERSION = 1
AHEAD = 2
"""Batches in memory, beside the one that is learnt from."""
HELD_OUT = (
    ("error", "policy", (31, 119, 180)),
    ("blank_error", "told nothing", (214, 39, 40)),
    ("repeat_error", "last action repeated", (148, 103, 189)),
    ("mean_error", "mean action", (90, 90, 90)),
)


class PolicyTrainer:
    """A run in a directory. A second trainer on the same directory goes on where the first stopped."""

    def __init__(
        self,
        config: PolicyRunConfig,
        run: Path,
        setup: Setup,
        *,
        device: str = "cpu",
        tensorboard: bool = False,
        made_by: str = "omnistream-train policy",
    ) -> None:
        self.config, self.run, self.setup, self.made_by = config, run, setup, made_by
        self.journal = Journal(run, tensorboard)
        self.learner = PolicyLearner(config, setup.network, device)
        self.offline = Offline(setup.held_out, setup.contract, setup.train, config.eval_frames)
        self.best = math.inf
        self.state_file = run / "state" / "latest.pt"
        if self.state_file.exists():
            self._load_state()

    @property
    def progress(self) -> Progress:
        return self.learner.progress

    def train(
        self, until: int | None = None, *, deadline: float | None = None, stop: Callable[[], bool] = lambda: False
    ) -> bool:
        """Train up to step `until` (default: the end), `time.monotonic()` = `deadline`, or `stop()`; then save.

        Returns whether the run is finished. Raises NotFiniteError.
        """
        config, progress, learner = self.config, self.progress, self.learner
        last = config.steps if until is None else min(config.steps, until)
        device = learner.device
        self.journal.write("start", progress.step, device=str(device), threads=torch.get_num_threads())
        meter = Meter(device)
        jobs = range(progress.step, last)
        with closing(read_ahead(self._draw, jobs, threads=1, depth=AHEAD)) as batches:
            while progress.step < last and not stop() and (deadline is None or time.monotonic() < deadline):
                with meter.waiting():
                    batch = next(batches)
                meter.add(progress.step, 0, learner.gradient(batch), len(batch))
                if device.type == "cpu":
                    self._check(meter)
                learner.update()
                if progress.step % config.log_every == 0 or progress.step == last:
                    self._log(meter)
                if config.eval_every and progress.step % config.eval_every == 0 and progress.step < config.steps:
                    with meter.pausing():
                        self.evaluate()
                if progress.step % config.save_every == 0:
                    self._save(meter)
        finished = progress.step >= config.steps
        if finished and not self._ended():
            self.evaluate(kind="end")
        self._save(meter)
        with averaged(learner.network, learner.average):
            self._write(self.run / "last")
        return finished

    def evaluate(self, kind: str = "eval") -> dict[str, Any]:
        """Held-out errors of the averaged weights, journalled; the best so far are written to best/."""
        learner = self.learner
        with averaged(learner.network, learner.average):
            result = self.offline.run(learner)
            if result["error"] < self.best:
                self.best = result["error"]
                self._write(self.run / "best", {"error": result["error"]})
        self.journal.write(kind, self.progress.step, frames_seen=self.progress.frames, best=self.best, **result)
        self.journal.say(f"held out at step {self.progress.step}: {summary(result)}")
        self.journal.draw(self.run / "curve.png", HELD_OUT)
        return result

    def report(self) -> dict[str, Any]:
        """The best policy along held-out episodes: errors, pictures, report.json. Its weights replace the trained ones
        in this trainer."""
        best = load_policy(self.run / "best", language_model=self.config.language_model)
        self.learner.network.load_state_dict(best.network.state_dict())
        self.learner.network.eval()
        result = self.offline.run(self.learner)
        self.journal.say(table(result, self.setup.contract))
        tracks = self.setup.held_out.tracks
        count = self.config.overlays
        chosen = sorted({round(i * (len(tracks) - 1) / max(1, count - 1)) for i in range(count)})
        if chosen:
            comparisons = [compare(self.learner, self.setup.held_out, track) for track in chosen]
            draw_overlays(comparisons, self.setup.contract, self.run / "overlay.png")
            told = tracks[chosen[0]]
            episode = self.setup.datasets[told.dataset][told.episode]
            if not write_video(comparisons[0], self.setup.contract, episode, self.run / "overlay.mp4"):
                self.journal.say("no overlay.mp4: PyAV is not installed (pip install 'omnistream[io]')")
        report = {
            "held_out": result,
            "best_step": best.training.get("step"),
            "steps": self.progress.step,
            "train_seconds": round(self.progress.seconds, 1),
            "setup": self.setup.description,
            "identity": self.setup.identity,
            "config": config_to_dict(self.config),
            "machine": {
                "system": platform.platform(),
                "processor": processor(),
                "device": str(self.learner.device),
            },
            "versions": {"omnistream": omnistream.__version__, "torch": torch.__version__},
        }
        (self.run / "report.json").write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
        return report

    def policy(self, training: dict[str, Any] | None = None) -> LoadedPolicy:
        """The network as it is, with all that its numbers mean."""
        setup = self.setup
        told = {"step": self.progress.step, "setup": setup.description, **setup.identity, **(training or {})}
        network, fed = self.learner.network, setup.backbone_input
        return LoadedPolicy(network, setup.tokens, setup.contract, setup.scaling, told, backbone_input=fed)

    def _draw(self, step: int) -> Batch:
        return self.setup.draw(self.config, step)

    def _write(self, folder: Path, training: dict[str, Any] | None = None) -> None:
        language_model = self.config.language_model if self.config.policy.language.pretrained else None
        save_policy(self.policy(training), folder, language_model=language_model, made_by=self.made_by, overwrite=True)

    def _check(self, meter: Meter) -> None:
        bad = meter.bad_step()
        if bad is not None:
            self.journal.write("not_finite", bad, terms=meter.last_terms())
            raise NotFiniteError(
                f"loss or gradient is not finite at step {bad}: {meter.last_terms()}; the last good state is in "
                f"{self.state_file}. A smaller --optim.lr may help"
            )

    def _log(self, meter: Meter) -> None:
        self._check(meter)
        step, total = self.progress.step, self.config.steps
        values = meter.collect()
        self.progress.seconds += values["seconds"]
        rate = rate_at(step - 1, total, self.config.optim)
        self.journal.write("train", step, frames_seen=self.progress.frames, rate=round(rate, 5), **values)
        left = self.progress.seconds / step * (total - step)
        self.journal.say(
            f"step {step}/{total}  loss {values['loss']:.4f}  {values['frames_per_s']:.0f} samples/s  "
            f"waiting {values['waiting']:.0%}  {duration(left)} left"
        )

    def _ended(self) -> bool:
        """Whether this run was evaluated at its end already, by a process before."""
        return any(r["kind"] == "end" and r["step"] == self.progress.step for r in read_journal(self.journal.path))

    def _save(self, meter: Meter) -> None:
        self._check(meter)
        with meter.pausing():
            write_state(
                self.state_file,
                {
                    "version": STATE_VERSION,
                    "config": config_to_dict(self.config),
                    "identity": self.setup.identity,
                    "network": self.learner.network.learnt(),
                    "average": self.learner.average.average,
                    "optimizers": self.learner.optimizers.state_dict(),
                    "progress": vars(self.progress),
                    "best": self.best,
                    "rng": torch.get_rng_state(),
                },
            )

    def _load_state(self) -> None:
        state = read_state(self.state_file)
        if merge(PolicyRunConfig(), state["config"]) != self.config:
            raise CheckpointError(f"{self.state_file} belongs to another configuration than this run's config.yaml")
        for name in sorted(state["identity"].keys() | self.setup.identity.keys()):
            stored, found = state["identity"].get(name), self.setup.identity.get(name)
            if stored != found:
                raise CheckpointError(
                    f"{self.run} was started with {name} {stored}, now it is {found}; put it back, or start a new run"
                )
        mine = self.learner.network.learnt()
        with torch.no_grad():
            for name, tensor in mine.items():
                tensor.copy_(state["network"][name])
            for average, stored in zip(self.learner.average.average, state["average"], strict=True):
                average.copy_(stored)
        self.learner.optimizers.load_state_dict(state["optimizers"])
        self.learner.progress = Progress(**state["progress"])
        self.best = state["best"]
        torch.set_rng_state(state["rng"])
