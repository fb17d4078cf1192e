# SPDX-License-Identifier: Apache-2.0
"""The pre-training trainer: the geometry trainer's loop with more tasks, and held-out captions beside its numbers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from omnistream.errors import CheckpointError
from omnistream_training.checkpointing import STATE_VERSION, averaged, read_state, write_state
from omnistream_training.config_file import config_to_dict
from omnistream_training.geometry import GeometryTrainer
from omnistream_training.journal import Journal
from omnistream_training.meter import Meter
from omnistream_training.pretrain.config import PretrainConfig
from omnistream_training.pretrain.feed import PretrainFeed
from omnistream_training.pretrain.learner import PretrainLearner
from omnistream_training.validate import Validation

AT_ONCE = 16
"""Pictures of a held-out caption batch."""


class PretrainTrainer(GeometryTrainer):
    """A run in a directory, as a geometry run is; `checkpointing` says what is in it."""

    def __init__(
        self, config: PretrainConfig, run: Path, *, device: str = "cpu", tensorboard: bool = False, made_by: str = ""
    ) -> None:
        self.config, self.run, self.device = config, run, torch.device(device)
        self.made_by = made_by or "omnistream-train pretrain"
        self.journal = Journal(run, tensorboard)
        self.pretrain = config
        self.learner: PretrainLearner = PretrainLearner(config, device)
        patch = self.learner.model.config.backbone.patch_size
        self.feed: PretrainFeed = PretrainFeed(config, device, patch)
        sources = range(len(self.feed.sources)) if config.weights.geometry else ()
        self.validations = [Validation(self.feed, i, config.eval_clips, config.eval_frames) for i in sources]
        self.state_file = run / "state" / "latest.pt"
        if self.state_file.exists():
            self._load()
        elif config.weights.geometry:
            self.learner.calibrate(self.feed.batch(0))

    def evaluate(self, meter: Meter, kind: str = "eval") -> dict[str, Any]:
        """What a geometry run says, and how well held-out questions are answered (`captions`), journalled."""
        results: dict[str, Any] = {}
        if self.feed.questions is not None:
            self._check(meter)
            with meter.pausing(), averaged(self.learner.model, self.learner.average):
                results = self.captions()
            self.journal.write(f"{kind}_caption", self.progress.step, **results)
            self.journal.say(
                f"held-out answers at step {self.progress.step}: {results['caption']:.3f} nats per token, "
                f"{results['caption_strangers']:.3f} from another picture"
            )
        return results | super().evaluate(meter, kind)

    @torch.no_grad()
    def captions(self) -> dict[str, float]:
        """Mean loss per answer token of held-out questions: `caption`, and per kind of question `caption_KIND`.

        `*_strangers`: every question asked of the next picture instead. What a decoder earns by knowing how answers
        sound, it earns there too; the difference is what it reads in the picture.
        """
        sums: dict[str, float] = {}
        counts: dict[str, int] = {}
        total = self.pretrain.eval_questions
        for first in range(0, total, AT_ONCE):
            count = min(AT_ONCE, total - first)
            asked = self.feed.held_out_asked(first, max(2, count))
            strange = type(asked)(images=asked.images.roll(1, 0), questions=asked.questions)
            for suffix, pictures in (("", asked), ("_strangers", strange)):
                loss, terms = self.learner.caption(pictures)
                for name, value in {"caption": loss, **{f"caption_{k}": v for k, v in terms.items()}}.items():
                    sums[name + suffix] = sums.get(name + suffix, 0.0) + float(value)
                    counts[name + suffix] = counts.get(name + suffix, 0) + 1
        return {name: round(sums[name] / counts[name], 5) for name in sums}

    def _save(self, meter: Meter) -> None:
        self._check(meter)
        learner = self.learner
        with meter.pausing():
            write_state(
                self.state_file,
                {
                    "version": STATE_VERSION,
                    "config": config_to_dict(self.config),
                    "model": learner.model.state_dict(),
                    "average": learner.average.average,
                    "optimizers": learner.optimizers.state_dict(),
                    "progress": vars(learner.progress),
                    "rng": torch.get_rng_state(),
                    **learner.extra_state(),
                },
            )

    def _load(self) -> None:
        state = read_state(self.state_file)
        if state["config"] != config_to_dict(self.config):
            raise CheckpointError(f"{self.state_file} belongs to another configuration than this run's config.yaml")
        self.learner.load(state)
        torch.set_rng_state(state["rng"])
