# SPDX-License-Identifier: Apache-2.0
"""The pre-training trainer: the geometry trainer's loop with more tasks and, under torchrun, more processes.

A micro-batch is a function of step and number, so that what a run computes does not depend on how many processes share
its micro-batches out (centring apart, `ssl.shared_centring`), and one that lost a process goes on with those there are.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from omnistream.errors import CheckpointError
from omnistream.model.omnistream import OmniStream
from omnistream_training.checkpointing import averaged, put_weights, save_weights
from omnistream_training.config_file import config_to_dict, same_config
from omnistream_training.data.batch import ClipBatch
from omnistream_training.distributed import Processes, whole
from omnistream_training.geometry import GeometryTrainer
from omnistream_training.journal import Journal, SilentJournal, began_by
from omnistream_training.meter import Meter
from omnistream_training.pretrain.config import PretrainConfig
from omnistream_training.pretrain.feed import PretrainFeed
from omnistream_training.pretrain.learner import PretrainLearner
from omnistream_training.pretrain.state import accept_state, named, state_plain, state_tensors
from omnistream_training.state_folder import Sizes, StateFolder
from omnistream_training.validate import Validation

AT_ONCE = 16
"""Pictures of a held-out caption batch."""


class PretrainTrainer(GeometryTrainer):
    """A run in a directory, as a geometry run is; its states are a `StateFolder`."""

    def __init__(
        self,
        config: PretrainConfig,
        run: Path,
        *,
        device: str = "cpu",
        tensorboard: bool = False,
        made_by: str = "",
        processes: Processes | None = None,
    ) -> None:
        """processes: this one among those that train; device is then its own."""
        self.config, self.run, self.device = config, run, torch.device(device)
        self.processes = processes or Processes(device=device)
        self.made_by = began_by(run) or made_by or "omnistream-train pretrain"
        self.pretrain = config
        self.learner: PretrainLearner = PretrainLearner(config, device)
        patch = self.learner.model.config.backbone.patch_size
        self.feed: PretrainFeed = PretrainFeed(config, device, patch, self.processes)
        sources = range(len(self.feed.sources)) if config.weights.geometry else ()
        self.validations = [Validation(self.feed, i, config.eval_clips, config.eval_frames) for i in sources]
        # Only now: a start that failed leaves no folder.
        self.journal = Journal(run, tensorboard) if self.processes.first else SilentJournal(run)
        self._damaged = self._cut = 0
        self.state_file = run / "state"
        self.states = StateFolder(
            self.state_file, self.processes, keep_last=config.keep_last, keep_every=config.keep_every
        )
        new = self.states.none_yet()
        self.processes.wait()  # before anybody writes one
        if new and config.weights.geometry:
            self.learner.calibrate(self.feed.batch(0))
        if self.processes.world > 1:
            self.learner.shard(self.processes.mesh())
        if not new:
            self.states.load(self._accept)

    def evaluate(self, meter: Meter, kind: str = "eval") -> dict[str, Any]:
        """What a geometry run says, and how well held-out questions are answered (`captions`), journalled."""
        results: dict[str, Any] = {}
        if self.feed.questions:
            self._check(meter)
            with meter.pausing(), averaged(self.learner.model, self.learner.average):
                results = self.captions()
            self.journal.write(f"{kind}_caption", self.progress.step, **results)
            self.journal.say(
                f"held-out answers at step {self.progress.step}: {results['caption']:.3f} nats per token, "
                f"{results['caption_strangers']:.3f} from another picture"
                + (f"; {results['caption_cut']} answers were cut" if results["caption_cut"] else "")
            )
        return results | super().evaluate(meter, kind)

    @torch.no_grad()
    def captions(self) -> dict[str, float]:
        """Mean loss per answer token of held-out questions: `caption`, and per kind of question `caption_KIND`.

        `*_strangers`: every question asked of the next picture instead. What a decoder earns by knowing how answers
        sound, it earns there too; the difference is what it reads in the picture.
        `caption_cut`: answers that were too long; their beginning counts.
        """
        captioner = self.learner.captioner
        assert captioner is not None
        before = captioner.cut
        sums: dict[str, float] = {}
        counts: dict[str, int] = {}
        total = self.pretrain.eval_questions
        for turn, first in enumerate(range(0, total, AT_ONCE)):
            count = min(AT_ONCE, total - first)
            asked = self.feed.held_out_asked(first, max(2, count), turn)
            strange = type(asked)(images=asked.images.roll(1, 0), questions=asked.questions)
            for suffix, pictures in (("", asked), ("_strangers", strange)):
                loss, terms = self.learner.caption(pictures)
                for name, value in {"caption": loss, **{f"caption_{k}": v for k, v in terms.items()}}.items():
                    sums[name + suffix] = sums.get(name + suffix, 0.0) + float(value)
                    counts[name + suffix] = counts.get(name + suffix, 0) + 1
        cut, captioner.cut = (captioner.cut - before) // 2, before  # each was asked twice
        return {name: round(sums[name] / counts[name], 5) for name in sums} | {"caption_cut": cut}

    def _gradient(self, batches: Iterator[ClipBatch], meter: Meter) -> tuple[dict[str, Tensor], int]:
        """Of all micro-batches of the step, this process's and the others'; values are the means over them."""
        own, sums, frames = len(self.feed.parts), {}, 0  # type: ignore[var-annotated]
        for _ in range(own):
            with meter.waiting():
                batch = next(batches)
            for name, value in self.learner.accumulate(batch, 1 / own).items():
                sums[name] = sums[name] + value if name in sums else value
            frames += batch.frames
        means = self.processes.mean(torch.stack([value.float() for value in sums.values()]) / own)
        values = dict(zip(sums, means.unbind(), strict=True))
        self.learner.count(frames * self.processes.world)
        return {"loss": values.pop("loss"), "norm": self.learner.clip(), **values}, frames * self.processes.world

    def _stopping(self, stop: Callable[[], bool], deadline: float | None) -> bool:
        return self.processes.any(super()._stopping(stop, deadline))

    def _bad_batch(self, step: int) -> tuple[Path, dict[str, Any]]:
        path, _ = super()._bad_batch(step)
        if not self.processes.first:
            path = path.with_stem(f"{path.stem}_process_{self.processes.rank}")
        return path, {"step": step, "batches": [self.feed.batch(step, part).state() for part in self.feed.parts]}

    def _save(self, meter: Meter) -> None:
        self._check(meter)
        damaged = self.feed.damaged()
        if damaged > self._damaged:
            self._damaged = damaged
            self.journal.write("damaged", self.progress.step, samples=damaged)
        self._say_cut()
        with meter.pausing():
            plain = {"config": config_to_dict(self.config), "processes": self.processes.world}
            plain["data"] = self.feed.digests()
            self.states.save(self.progress.step, state_tensors(self.learner), plain | state_plain(self.learner))

    def _say_cut(self) -> None:
        """Journal how many answers were too long since the start of this process, if there are more of them."""
        cut = 0 if self.learner.captioner is None else self.learner.captioner.cut
        if cut > self._cut:
            if not self._cut:
                limit = self.pretrain.caption.max_tokens
                self.journal.say(f"answers longer than caption.max_tokens, {limit}, are cut; log.jsonl counts them")
            self._cut = cut
            self.journal.write("cut", self.progress.step, answers=cut)

    def _accept(self, plain: Any, sizes: Sizes) -> dict[str, Tensor]:
        if not same_config(plain["config"], self.config):
            raise CheckpointError(f"{self.state_file} belongs to another configuration than this run's config.yaml")
        before = plain["data"]  # an older release did not look at recordings
        changed = [name for name, digest in self.feed.digests().items() if before.get(name, digest) != digest]
        if changed:  # shards are mended and sets grow in the middle of a run: it goes on, and says so
            self.journal.write("data_changed", plain["progress"]["step"], sources=changed)
            self.journal.say(f"other files than when the state was written, so other batches: {', '.join(changed)}")
        return accept_state(self.learner, plain, sizes)

    def _publish(self) -> None:
        if self.processes.world == 1:
            save_weights(self.run / "weights", self.learner, "float16", self.made_by)
            return
        learner = self.learner
        names = [name for name, _ in named(learner.model)]
        tensors = {}
        for name, average in zip(names, learner.average.average, strict=True):
            tensor = whole(average)  # all processes together, one tensor at a time
            if self.processes.first:
                tensors[name] = tensor.cpu()
        if self.processes.first:
            model = OmniStream(learner.model.config)
            model.load_state_dict(model.state_dict() | tensors)  # buffers are constants
            put_weights(self.run / "weights", model, learner, "float16", self.made_by)
