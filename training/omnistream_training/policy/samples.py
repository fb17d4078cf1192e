# SPDX-License-Identifier: Apache-2.0
"""Frames of all episodes as samples: features, words, state in; the coming chunk of recorded actions out.

A batch is a function of the seed and the step number, so that a run that was stopped goes on as if it had not been.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from omnistream.contract import Contract, require_same
from omnistream.episodes import EpisodeDataset
from omnistream.episodes.plans import Plans
from omnistream.episodes.statistics import RunningStatistics
from omnistream.errors import ConfigError, InputError
from omnistream.policy.scaling import SMALLEST_RANGE, ActionScaling
from omnistream.policy.tokens import PretrainedTokens, WordTokens
from omnistream_training.policy.config import Noise, PolicyData
from omnistream_training.policy.features import FeatureTable
from omnistream_training.policy.foresight import keyframes_of, of_goal, plans_by_episode

SEED_SPLIT, SEED_BATCH, SEED_OTHER = 1, 2, 3
"""So that held-out episodes, batches and counterfactual samples are drawn independently."""


@dataclass(frozen=True, eq=False)
class Track:
    """What of an episode is kept in memory."""

    dataset: int
    episode: int
    """Number in its data set."""
    first: int
    """Row of its first frame in the feature tables of its data set."""
    instruction: str
    state: NDArray[np.float32]
    """[T, S], as recorded."""
    action: NDArray[np.float32]
    """[T, A], as recorded."""
    plans: Plans | None = None
    """From its frames; None: the data set tells none."""

    def __len__(self) -> int:
        return len(self.action)


def used_contract(datasets: Sequence[EpisodeDataset], data: PolicyData) -> Contract:
    """What the policy reads and gives: the chosen cameras, and no state where it feels none. All sets must agree."""
    first = datasets[0].contract
    for other in datasets[1:]:
        require_same(first, other.contract, names=(datasets[0].path, other.path))
    names = data.cameras or tuple(camera.name for camera in first.cameras)
    if not names:
        raise InputError(f"{datasets[0].path} has no camera; a policy needs one")
    return dataclasses.replace(
        first,
        cameras=tuple(first.camera(name) for name in names),
        state=first.state if data.state else (),
        state_statistics=None,
        action_statistics=None,
        backbone=None,
    )


def read_tracks(datasets: Sequence[EpisodeDataset], data: PolicyData) -> list[Track]:
    """All episodes worth learning from. InputError if there are fewer than two, or numbers that are not finite."""
    tracks = []
    for number, dataset in enumerate(datasets):
        first = 0
        plans = plans_by_episode(dataset)
        for info in dataset.infos:
            if info.success is not False or data.failures:
                episode = dataset.read_episode(info)
                if not (np.isfinite(episode.action).all() and np.isfinite(episode.state).all()):
                    raise InputError(f"{dataset.path}: episode {info.index} has NaN or infinity in state or action")
                state = episode.state if data.state else episode.state[:, :0]
                told = plans.get(info.index)
                tracks.append(Track(number, info.index, first, episode.instruction, state, episode.action, told))
            first += info.length
    if len(tracks) < 2:
        raise InputError(f"{len(tracks)} usable episodes; expected at least two: one to learn from, one to hold out")
    return tracks


def split(tracks: Sequence[Track], share: float, seed: int) -> tuple[list[Track], list[Track]]:
    """(training, held out), by whole episodes, and of every instruction as evenly as the numbers allow."""
    draw = np.random.Generator(np.random.Philox(key=[seed, SEED_SPLIT]))
    order = draw.permutation(len(tracks))
    by_text = sorted(order, key=lambda i: tracks[i].instruction)  # stable: random within an instruction
    count = min(max(1, round(share * len(tracks))), len(tracks) - 1)
    held = {by_text[int((k + 0.5) * len(tracks) / count)] for k in range(count)}
    return [t for i, t in enumerate(tracks) if i not in held], [t for i, t in enumerate(tracks) if i in held]


def with_statistics(contract: Contract, tracks: Sequence[Track]) -> Contract:
    """The contract with the statistics of these episodes."""
    state, action = RunningStatistics(len(contract.state)), RunningStatistics(len(contract.action.dimensions))
    for track in tracks:
        state.add(track.state)
        action.add(track.action)
    told = state.statistics() if contract.state else None
    return dataclasses.replace(contract, state_statistics=told, action_statistics=action.statistics())


@dataclass(frozen=True)
class Batch:
    """Tensors of B samples on one device."""

    visual: list[Tensor]
    """Per camera, float16 [B, 1 + N, D]."""
    words: Tensor
    known: Tensor
    state: Tensor | None
    arm: Tensor
    """[B, K, A] normalised movements to learn."""
    opened: Tensor
    """[B, K, G]: 1 open, 0 closed."""
    valid: Tensor
    """[B, K]: False beyond the end of the episode."""
    keyframes: Tensor | None = None
    """[B, keyframes, goal] the state there, in the contract's units; None for policies without a goal."""

    def __len__(self) -> int:
        return len(self.words)

    def parts(self, size: int) -> list[Batch]:
        """The same samples in batches of at most `size`; 0: in one."""
        if not size or size >= len(self):
            return [self]
        return [self._rows(slice(i, i + size)) for i in range(0, len(self), size)]

    def _rows(self, rows: slice) -> Batch:
        return Batch(
            [tokens[rows] for tokens in self.visual],
            self.words[rows],
            self.known[rows],
            None if self.state is None else self.state[rows],
            self.arm[rows],
            self.opened[rows],
            self.valid[rows],
            None if self.keyframes is None else self.keyframes[rows],
        )


@dataclass(frozen=True, eq=False)
class _Sample:
    """A row of a batch, before the pictures' tokens are read."""

    track: int
    frame: int
    ids: Sequence[int]
    arm: NDArray[np.float32]
    opened: NDArray[np.float32]
    valid: NDArray[np.bool_]
    keyframes: NDArray[np.float32]


class Samples:
    """All frames of some episodes. `tables[dataset][camera]`."""

    def __init__(
        self,
        tracks: Sequence[Track],
        tables: Sequence[Sequence[FeatureTable]],
        tokens: WordTokens | PretrainedTokens,
        scaling: ActionScaling,
        chunk: int,
        device: str = "cpu",
        *,
        goal: Sequence[str] = (),
        state: Sequence[str] = (),
        keyframes: int = 0,
    ) -> None:
        """goal: which of the state's names are told of so many keyframes (`check_plans` has passed)."""
        self.tracks, self.tables, self.tokens, self.scaling = list(tracks), tables, tokens, scaling
        self.chunk, self.device = chunk, torch.device(device)
        self._ends = np.cumsum([len(track) for track in self.tracks])
        self._scaled = [scaling.normalise(track.action) for track in self.tracks]
        self._ids = {text: tokens.encode(text).ids for text in sentences(self.tracks, planned=True)}
        self._goal = tuple(goal)
        self._keys = [
            keyframes_of(track.state, opened, track.plans, self._goal, state, keyframes)
            for track, (_, opened) in zip(self.tracks, self._scaled, strict=True)
        ]
        known = [np.zeros(0, int) if t.plans is None else np.flatnonzero(t.plans.steps) for t in self.tracks]
        self.others = np.array([(i, row) for i, rows in enumerate(known) for row in rows], int).reshape(-1, 2)
        """[M, 2] (track, row of its plans) of all that was told otherwise."""

    def __len__(self) -> int:
        return int(self._ends[-1])

    def where(self, number: int) -> tuple[int, int]:
        """(track, frame) of sample `number`."""
        track = int(np.searchsorted(self._ends, number, side="right"))
        return track, number - (int(self._ends[track - 1]) if track else 0)

    def draw(
        self, step: int, count: int, seed: int, noise: Noise, state_std: Tensor, counterfactual: float = 0.0
    ) -> Batch:
        """The batch of a step: frames of all episodes, each as likely, with what `noise` does to words and state.

        counterfactual: the share that is told another sentence, where the episodes say what was to be done then.
        """
        random = np.random.Generator(np.random.Philox(key=[seed, SEED_BATCH], counter=[0, 0, 0, step]))
        other = round(count * counterfactual) if len(self.others) else 0
        numbers = random.integers(0, len(self), count)
        draw = np.random.Generator(np.random.Philox(key=[seed, SEED_OTHER], counter=[0, 0, 0, step]))
        rows = draw.integers(0, max(1, len(self.others)), other)
        batch = self._of([*self._recorded(numbers[other:]), *self._otherwise(rows)])
        words, state = batch.words, batch.state
        if noise.unknown_words and isinstance(self.tokens, WordTokens):
            blank = torch.from_numpy(random.random(words.shape) < noise.unknown_words).to(words.device) & batch.known
            words = words.masked_fill(blank, WordTokens.UNKNOWN)
        known = batch.known
        if (noise.dropped_words or noise.moved_words) and isinstance(self.tokens, WordTokens):
            words, known = _jumbled(words, known, noise, random)
        if noise.no_words:
            silent = torch.from_numpy(random.random((count, 1)) < noise.no_words).to(words.device)
            known = known & ~silent
        if state is not None and noise.state:
            jitter = torch.from_numpy(random.standard_normal(state.shape).astype(np.float32)).to(state.device)
            state = state + noise.state * state_std * jitter
        if state is not None and noise.no_state:
            blank = torch.from_numpy(random.random((count, 1)) < noise.no_state).to(state.device)
            state = torch.where(blank, self.mean_state.to(state.device), state)
        return dataclasses.replace(batch, words=words, known=known, state=state)

    @cached_property
    def mean_state(self) -> Tensor:
        """[S]: what a blanked state is replaced by."""
        return torch.from_numpy(np.concatenate([track.state for track in self.tracks]).mean(0))

    def batch(self, numbers: NDArray[np.integer], instructions: Sequence[str] | None = None) -> Batch:
        """The samples of these numbers. instructions: told instead of the recorded ones."""
        return self._of(list(self._recorded(numbers, instructions)))

    def otherwise(self, rows: NDArray[np.integer]) -> Batch:
        """The counterfactual samples of these rows of `others`: told another sentence, with what was to be done."""
        return self._of(list(self._otherwise(rows)))

    def _of(self, samples: Sequence[_Sample]) -> Batch:
        places = [(sample.track, sample.frame) for sample in samples]
        words, known = padded([sample.ids for sample in samples])
        state = np.stack([self.tracks[track].state[t] for track, t in places])
        keys = np.stack([sample.keyframes for sample in samples])

        def put(rows: Sequence[NDArray[Any]]) -> Tensor:
            return torch.from_numpy(np.stack(rows)).to(self.device)

        return Batch(
            [torch.from_numpy(self._tokens(places, camera)).to(self.device) for camera in range(len(self.tables[0]))],
            words.to(self.device),
            known.to(self.device),
            torch.from_numpy(state).to(self.device) if state.shape[1] else None,
            put([sample.arm for sample in samples]),
            put([sample.opened for sample in samples]),
            put([sample.valid for sample in samples]),
            torch.from_numpy(keys).to(self.device) if keys.size else None,
        )

    def _recorded(self, numbers: NDArray[np.integer], instructions: Sequence[str] | None = None) -> Iterator[_Sample]:
        for i, number in enumerate(numbers):
            track, t = self.where(int(number))
            told = None if instructions is None else instructions[i]
            ids = self._ids[self.tracks[track].instruction] if told is None else self.tokens.encode(told).ids
            yield _Sample(track, t, ids, *self._target(track, t), self._keys[track][t])

    def _otherwise(self, rows: NDArray[np.integer]) -> Iterator[_Sample]:
        for track, row in self.others[rows]:
            plans = self.tracks[track].plans
            assert plans is not None
            arm, opened = self.scaling.normalise(plans.actions[row])
            at = np.minimum(np.arange(self.chunk), plans.actions.shape[1] - 1)
            valid = np.arange(self.chunk) < plans.steps[row]
            keys = of_goal(plans, row, self._goal)[: self._keys[track].shape[1]]
            ids = self._ids[plans.instruction[row]]
            yield _Sample(int(track), int(plans.frame[row]), ids, arm[at], opened[at], valid, keys)

    def _tokens(self, places: Sequence[tuple[int, int]], camera: int) -> NDArray[np.float16]:
        """float16 [B, 1 + N, D], from the tables of all data sets."""
        wanted = [(self.tracks[track].dataset, self.tracks[track].first + t) for track, t in places]
        out = np.empty((len(wanted), *self.tables[0][camera].tokens.shape[1:]), np.float16)
        for dataset in {dataset for dataset, _ in wanted}:
            mine = [i for i, (other, _) in enumerate(wanted) if other == dataset]
            out[mine] = self.tables[dataset][camera].read([wanted[i][1] for i in mine])
        return out

    def _target(self, track: int, t: int) -> tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.bool_]]:
        arm, opened = self._scaled[track]
        rows = np.arange(t, t + self.chunk)
        inside = np.minimum(rows, len(arm) - 1)
        return arm[inside], opened[inside], rows < len(arm)

    def all_keyframes(self) -> Tensor:
        """[rows, keyframes, goal] of all frames and plans, in the contract's units."""
        plans = [track.plans for track in self.tracks if track.plans is not None]
        count = self._keys[0].shape[1]
        told = [of_goal(plan, slice(None), self._goal)[:, :count] for plan in plans]
        return torch.from_numpy(np.concatenate([*self._keys, *told]))

    def recorded(self) -> NDArray[np.float32]:
        """[frames, A] of all episodes after one another."""
        return np.concatenate([track.action for track in self.tracks])

    def visual_statistics(self, count: int = 1024) -> tuple[Tensor, Tensor]:
        """Mean and deviation [cameras, 2, D] of CLS and of patches, over frames spread evenly."""
        numbers = np.unique(np.linspace(0, len(self) - 1, min(count, len(self))).astype(int))
        means, stds = [], []
        for tokens in self.batch(numbers).visual:
            parts = [part.double().flatten(0, 1) for part in (tokens[:, :1], tokens[:, 1:])]
            means.append(torch.stack([part.mean(0) for part in parts]))
            stds.append(torch.stack([part.std(0).clamp(min=1e-3) for part in parts]))
        return torch.stack(means).float().cpu(), torch.stack(stds).float().cpu()

    def state_statistics(self) -> tuple[Tensor, Tensor]:
        """Mean and deviation [S] of the robot's state; 0 for what hardly moves (`SMALLEST_RANGE`), and is not read.

        In deviations, the least offset on another day would be larger than all that was ever learnt from.
        """
        rows = np.concatenate([track.state for track in self.tracks]).astype(np.float64)
        moves = rows.max(0) - rows.min(0) >= SMALLEST_RANGE
        return torch.from_numpy(rows.mean(0)).float(), torch.from_numpy(np.where(moves, rows.std(0), 0.0)).float()


def sentences(tracks: Sequence[Track], *, planned: bool) -> set[str]:
    """All that is told in these episodes; planned: in their plans too."""
    plans = [track.plans for track in tracks if planned and track.plans is not None]
    return {track.instruction for track in tracks} | {text for plan in plans for text in plan.instruction}


def padded(ids: Sequence[Sequence[int]]) -> tuple[Tensor, Tensor]:
    """Lists of token ids as [B, L] and which of them are real, [B, L]."""
    longest = max((len(row) for row in ids), default=0)
    words = torch.zeros(len(ids), longest, dtype=torch.long)
    known = torch.zeros(len(ids), longest, dtype=torch.bool)
    for i, row in enumerate(ids):
        words[i, : len(row)] = torch.tensor(row, dtype=torch.long)
        known[i, : len(row)] = True
    return words, known


def check_word_count(tokens: WordTokens | PretrainedTokens, tracks: Sequence[Track]) -> None:
    """ConfigError where no episode says what it is about: such a policy could never be told anything."""
    if isinstance(tokens, WordTokens) and not tokens.words:
        raise ConfigError(f"none of {len(tracks)} episodes has an instruction; a policy is told what to do by words")


def _jumbled(words: Tensor, known: Tensor, noise: Noise, random: np.random.Generator) -> tuple[Tensor, Tensor]:
    """Words [B, L] and their mask, some left out and the others a little out of order.

    Sorting places plus uniform numbers below `moved_words` + 1 moves none further than that, nor past one that was
    further away (Lample et al. 2018).
    """
    known = known & torch.from_numpy(random.random(words.shape) >= noise.dropped_words).to(known.device)
    places = np.arange(words.shape[1]) + random.uniform(0, noise.moved_words + 1, words.shape)
    order = torch.from_numpy(places.argsort(1)).to(words.device)
    return words.gather(1, order), known.gather(1, order)
