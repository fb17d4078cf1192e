# SPDX-License-Identifier: Apache-2.0
"""Loss, targets, batches, split and offline errors: known answers by hand."""

from __future__ import annotations

import dataclasses
import math
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from omnistream.contract import Contract
from omnistream.episodes import open_dataset
from omnistream.episodes.plans import Plans
from omnistream.errors import ConfigError, ContractError, InputError
from omnistream.policy.config import PolicyConfig
from omnistream.policy.network import PolicyOutput
from omnistream.policy.scaling import ActionScaling
from omnistream.policy.tokens import WordTokens
from omnistream_training.ahead import read_ahead
from omnistream_training.policy.config import Noise, PolicyData, PolicyLoss, PolicyRunConfig
from omnistream_training.policy.features import FeatureTable
from omnistream_training.policy.fitting import shortened
from omnistream_training.policy.foresight import keyframe_rows
from omnistream_training.policy.loss import goal_loss, policy_loss
from omnistream_training.policy.presets import PRESETS, preset
from omnistream_training.policy.samples import (
    Batch,
    Samples,
    Track,
    read_tracks,
    sentences,
    split,
    used_contract,
    with_statistics,
)


def make_track(number: int, length: int, text: str = "go", first: int = 0) -> Track:
    steps = np.arange(length, dtype=np.float32)
    action = np.stack([steps / 10, (steps % 2) * 2 - 1], -1)  # a ramp, and a gripper that opens every second step
    return Track(0, number, first, text, steps[:, None] + 100, action)


SCALING = ActionScaling(arm=(0,), low=(-1.0,), high=(1.0,), grippers=((1, 1.0, -1.0),))


def test_keyframes_are_where_the_gripper_switches_next_and_at_the_end() -> None:
    opened = np.array([[1], [1], [0], [0], [1]], np.float32)
    assert keyframe_rows(opened, 2).tolist() == [[2, 4], [2, 4], [4, 4], [4, 4], [4, 4]]
    assert keyframe_rows(np.zeros((3, 0), np.float32), 1).tolist() == [[2], [2], [2]]
    samples = make_samples(make_track(0, 4), make_track(1, 3, first=4), goal=2)  # the gripper switches at every step
    found = samples.batch(np.arange(7)).keyframes
    assert found is not None and found.shape == (7, 2, 1)
    assert found[..., 0].tolist() == [
        [101, 102],
        [102, 103],
        [103, 103],
        [103, 103],
        [101, 102],
        [102, 102],
        [102, 102],
    ]


def make_samples(*tracks: Track, chunk: int = 3, goal: int = 0) -> Samples:
    frames = sum(len(track) for track in tracks)
    tokens = np.arange(frames, dtype=np.float16)[:, None, None] * np.ones((1, 2, 1), np.float16)
    words = WordTokens.of(sentences(tracks, planned=True))
    told: dict[str, Any] = {"goal": ("x",), "state": ("x",), "keyframes": goal} if goal else {}
    return Samples(tracks, [[FeatureTable(tokens, (1, 1))]], words, SCALING, chunk, **told)


def test_the_loss_is_hubers_plus_a_hundredth_of_the_grippers() -> None:
    """Two samples of two steps; the last step is beyond the episode and must not count, however wrong."""
    arm = torch.tensor([[[0.5], [0.0]], [[2.0], [99.0]]])
    target = torch.zeros(2, 2, 1)
    logits = torch.zeros(2, 2, 1)
    logits[1, 1] = 99.0
    opened = torch.tensor([[[1.0], [0.0]], [[1.0], [0.0]]])
    valid = torch.tensor([[True, True], [True, False]])
    loss, terms = policy_loss(PolicyOutput(arm, logits), target, opened, valid, PolicyLoss())
    huber = (0.5 * 0.5**2 + 0 + (2 - 0.5)) / 3
    assert float(terms["arm"]) == pytest.approx(huber)
    assert float(terms["gripper"]) == pytest.approx(math.log(2))
    assert float(loss) == pytest.approx(huber + 0.01 * math.log(2))


def test_the_goals_loss_is_hubers_over_samples_keyframes_and_dimensions() -> None:
    predicted = torch.tensor([[[0.5, 0.0]], [[0.0, 3.0]]])
    assert float(goal_loss(predicted, torch.zeros(2, 1, 2), PolicyLoss())) == pytest.approx((0.125 + 2.5) / 4)


def test_hubers_delta_is_where_the_square_ends() -> None:
    out = PolicyOutput(torch.full((1, 1, 2), 0.5), torch.zeros(1, 1, 0))
    loss, terms = policy_loss(
        out, torch.zeros(1, 1, 2), torch.zeros(1, 1, 0), torch.ones(1, 1, dtype=torch.bool), PolicyLoss(delta=0.1)
    )
    assert float(loss) == pytest.approx(0.1 * (0.5 - 0.05)) and "gripper" not in terms


def test_targets_are_the_coming_actions_and_end_with_the_episode() -> None:
    samples = make_samples(make_track(0, 4), make_track(1, 5, first=4))
    batch = samples.batch(np.array([2, 4, 8]))
    assert batch.arm[..., 0] == pytest.approx(np.array([[0.2, 0.3, 0.3], [0.0, 0.1, 0.2], [0.4, 0.4, 0.4]]), abs=1e-6)
    assert batch.opened[..., 0].tolist() == [[0, 1, 1], [0, 1, 0], [0, 0, 0]]
    assert batch.valid.tolist() == [[True, True, False], [True, True, True], [True, False, False]]
    assert batch.visual[0][:, 0, 0].tolist() == [2, 4, 8]
    assert batch.state is not None and batch.state[:, 0].tolist() == [102, 100, 104]


def test_a_batch_is_a_function_of_seed_and_step() -> None:
    samples = make_samples(make_track(0, 30, "lift the cube"), make_track(1, 30, "drop it", first=30))
    noise, std = Noise(unknown_words=0.3, state=0.1, no_words=0.2, no_state=0.2), torch.ones(1)
    a, b = (samples.draw(5, 16, 3, noise, std) for _ in range(2))
    assert torch.equal(a.words, b.words) and torch.equal(a.visual[0], b.visual[0]) and torch.equal(a.state, b.state)
    for other in (samples.draw(6, 16, 3, noise, std), samples.draw(5, 16, 4, noise, std)):
        assert not torch.equal(a.visual[0], other.visual[0])
    told = samples.draw(5, 16, 3, dataclasses.replace(noise, no_words=0.0), std).known
    silent = ~a.known.any(1)
    assert (a.words == WordTokens.UNKNOWN).any() and not (a.words[~told] != 0).any()
    assert 0 < silent.sum() < 16 and torch.equal(a.known[~silent], told[~silent])
    mean = samples.mean_state
    assert (a.state == mean).any() and not (a.state == mean).all()


def test_what_hardly_moves_has_no_deviation_and_gets_no_noise() -> None:
    samples = make_samples(make_track(0, 30))
    moves = samples.state_statistics()[1]
    assert moves == pytest.approx(np.arange(30).std())
    for track in samples.tracks:
        track.state[:] = 100 + np.random.default_rng(0).uniform(-4e-5, 4e-5, track.state.shape)
    mean, std = samples.state_statistics()
    assert mean == pytest.approx(100) and std == 0
    drawn = samples.draw(0, 16, 0, Noise(state=0.5), std).state
    assert drawn is not None and (drawn - 100).abs().max() < 1e-4


def test_words_are_left_out_and_moved_but_none_past_one_that_was_far() -> None:
    sentence = "put the red cube on top of blue"
    samples = make_samples(make_track(0, 30, sentence))
    said = list(samples.tokens.encode(sentence).ids)
    batch = samples.draw(0, 200, 0, Noise(unknown_words=0.0, dropped_words=0.25, moved_words=3), torch.ones(1))
    heard = [words[known].tolist() for words, known in zip(batch.words, batch.known, strict=True)]
    assert np.mean([len(words) for words in heard]) == pytest.approx(0.75 * len(said), rel=0.05)
    order = [[said.index(word) for word in words] for words in heard]
    swapped = {(a, b) for places in order for i, b in enumerate(places) for a in places[i:] if a < b}
    assert all(len(set(places)) == len(places) for places in order)
    assert swapped == {(a, b) for a in range(8) for b in range(a + 1, min(8, a + 4))}  # no further, and all of these


def with_plans(track: Track) -> Track:
    """From its frame 1, told otherwise: 0.5, 0.6 and then nobody knows; and where its frame 0 is going."""
    plans = Plans(
        goal=("x",),
        episode=np.zeros(2, int),
        frame=np.array([0, 1]),
        instruction=[track.instruction, "stop"],
        keyframes=np.array([[[7], [8]], [[9], [10]]], np.float32),
        actions=np.array([[[0, 0], [0, 0]], [[0.5, 1.0], [0.6, -1.0]]], np.float32),
        steps=np.array([0, 2]),
    )
    return dataclasses.replace(track, plans=plans)


def test_a_share_of_a_batch_is_told_otherwise_and_learns_what_was_to_be_done() -> None:
    bare = make_samples(make_track(0, 4), make_track(1, 30, first=4), goal=2)
    samples = make_samples(with_plans(make_track(0, 4)), make_track(1, 30, first=4), goal=2)
    assert samples.others.tolist() == [[0, 1]] and not len(bare.others)
    noise, std = Noise(unknown_words=0.0), torch.ones(1)
    batch = samples.draw(3, 8, 0, noise, std, counterfactual=0.25)
    stop = torch.tensor(samples.tokens.encode("stop").ids)
    told = (batch.words == stop).all(1)
    assert told.tolist() == [False] * 6 + [True] * 2
    assert batch.arm[told, :, 0] == pytest.approx(np.array([[0.5, 0.6, 0.6]] * 2))
    assert (
        batch.opened[told, :, 0].tolist() == [[1, 0, 0]] * 2 and batch.valid[told].tolist() == [[True, True, False]] * 2
    )
    assert batch.visual[0][told, 0, 0].tolist() == [1, 1] and batch.state is not None
    assert batch.state[told].flatten().tolist() == [101, 101]
    assert batch.keyframes is not None and batch.keyframes[told, :, 0].tolist() == [[9, 10]] * 2
    # What was recorded keeps its sentence; where it is going is as planned, else where its gripper switches.
    assert samples.batch(np.array([0, 1])).keyframes[..., 0].tolist() == [[7, 8], [102, 103]]  # type: ignore[index]
    # Without plans, or a share of them, batches are what they were.
    for one, share in ((bare, 0.25), (samples, 0.0)):
        again, plain = one.draw(3, 8, 0, noise, std, share), bare.draw(3, 8, 0, noise, std)
        assert torch.equal(again.visual[0], plain.visual[0]) and torch.equal(again.arm, plain.arm)


def test_every_sample_sees_the_picture_of_its_own_data_set(tmp_path: Path) -> None:
    tables = []
    for number in range(2):
        np.save(tmp_path / f"{number}.npy", (100 * number + np.arange(6, dtype=np.float16))[:, None, None])
        tables.append([FeatureTable(np.load(tmp_path / f"{number}.npy", mmap_mode="r"), (0, 0))])
    tracks = [make_track(0, 3), make_track(1, 3, first=3), dataclasses.replace(make_track(0, 4, first=2), dataset=1)]
    samples = Samples(tracks, tables, WordTokens.of(["go"]), SCALING, 2)
    seen = samples.batch(np.array([9, 0, 6, 5, 2])).visual[0].flatten()
    assert seen.tolist() == [105, 0, 102, 5, 2]


def test_batches_made_ahead_are_the_same_ones_and_so_is_what_goes_wrong() -> None:
    samples, std = make_samples(make_track(0, 20), make_track(1, 30, first=20)), torch.ones(1)

    def draw(step: int) -> Batch:
        if step == 9:
            raise InputError("the disk is gone")
        return samples.draw(step, 8, 3, Noise(state=0.1), std)

    with closing(read_ahead(draw, range(4, 12), threads=1, depth=2)) as batches:
        for step in range(4, 9):
            found, alone = next(batches), draw(step)
            assert torch.equal(found.visual[0], alone.visual[0])
            assert found.state is not None and alone.state is not None and torch.equal(found.state, alone.state)
        with pytest.raises(InputError, match="disk is gone"):
            next(batches)


def test_a_run_is_cut_down_to_the_time_there_is() -> None:
    whole = dataclasses.replace(preset("tabletop_default"), steps=12000)
    assert shortened(whole, 0.1, 1000) == whole
    short = shortened(whole, 0.1, 10)
    assert short.steps == 5520 and short.eval_every == 460 and short.save_every == 230 and short.optim.warmup == 23
    assert dataclasses.replace(short, steps=1) == dataclasses.replace(
        whole, steps=1, eval_every=460, save_every=230, optim=short.optim
    )
    with pytest.raises(ConfigError, match="too short for a step"):
        shortened(whole, 10.0, 0.1)


def test_whole_episodes_of_every_instruction_are_held_out() -> None:
    tracks = [make_track(i, 5, f"task {i % 4}") for i in range(40)]
    train, held = split(tracks, 0.1, seed=0)
    assert sorted(t.instruction for t in held) == ["task 0", "task 1", "task 2", "task 3"]
    assert {t.episode for t in train} | {t.episode for t in held} == set(range(40)) and len(train) == 36
    assert [t.episode for t in split(tracks, 0.1, seed=0)[1]] == [t.episode for t in held]
    assert [t.episode for t in split(tracks, 0.1, seed=1)[1]] != [t.episode for t in held]
    assert [len(part) for part in split(tracks[:2], 0.1, seed=0)] == [1, 1]


def test_the_contract_keeps_what_the_policy_uses(pushes: Path) -> None:
    dataset = open_dataset(pushes)
    data = PolicyData(cameras=("wrist",), state=False)
    contract = with_statistics(used_contract([dataset], data), read_tracks([dataset], data))
    assert [camera.name for camera in contract.cameras] == ["wrist"] and contract.state == ()
    assert contract.action_statistics is not None and contract.state_statistics is None
    assert contract.action_statistics.maximum[0] == pytest.approx(0.8)
    with pytest.raises(ContractError, match="no camera 'rear'"):
        used_contract([dataset], PolicyData(cameras=("rear",)))


def test_data_sets_of_different_robots_are_not_mixed(pushes: Path) -> None:
    one, other = open_dataset(pushes), open_dataset(pushes)
    other.contract = dataclasses.replace(other.contract, rate=5.0)
    with pytest.raises(ContractError, match=r"(?s)rate.*10.0.*5.0"):
        used_contract([one, other], PolicyData())


def test_the_papers_presets_are_theirs() -> None:
    """VLM4VLA, arXiv 2601.03309: its configuration files."""
    calvin, bridge = preset("calvin_abc"), preset("bridge")
    for run, chunk, batch, steps in ((calvin, 10, 128, 30000), (bridge, 4, 512, 50000)):
        assert (run.policy.chunk, run.batch, run.steps) == (chunk, batch, steps)
        assert run.optim.lr == 2e-5 and run.optim.weight_decay == 0 and run.optim.clip == 1
        assert run.loss == PolicyLoss(delta=1.0, gripper=0.01) and run.data.squeeze == 0.65 and not run.data.state
        assert run.policy.trunk == "decoder" and run.policy.head.widths == (1024, 512, 256)
    assert bridge.data.scaling == "quantile"
    assert set(PRESETS) == {"tabletop_tiny", "tabletop", "tabletop_default", "calvin_abc", "calvin_small", "bridge"}


GOAL_ALONE = {"policy": PolicyConfig(goal=("x",)), "data": PolicyData(state=False)}


@pytest.mark.parametrize(
    "change", [{"steps": 0}, {"micro_batch": -1}, {"seed": 1 << 15}, {"policy": preset("bridge").policy}, GOAL_ALONE]
)
def test_bad_configurations_are_refused(change: dict) -> None:
    with pytest.raises(ValueError, match="expected|language model|goal"):
        PolicyRunConfig(**change)


@pytest.mark.parametrize(
    "change", [{"goal": ("x", "x")}, {"goal": ("x",), "keyframes": 0}, {"goal": ("x",), "trunk": "decoder"}]
)
def test_bad_goals_are_refused(change: dict) -> None:
    with pytest.raises(ConfigError, match="goal is|keyframes is"):
        PolicyConfig(**change)
    with pytest.raises(ConfigError, match="counterfactual is 1"):
        PolicyData(counterfactual=1.0)
    with pytest.raises(ConfigError, match="goal -1"):
        PolicyLoss(goal=-1.0)


def test_offline_errors_by_hand(contract_of_ramp: Contract) -> None:
    from omnistream_training.policy.offline import Offline

    train, held = make_samples(make_track(0, 4)), make_samples(make_track(1, 3), chunk=2)
    offline = Offline(held, contract_of_ramp, train, frames=100)
    # Frames 0, 1, 2 of the ramp 0, .1, .2 and gripper closed, open, closed; five valid steps of a chunk of two.
    ones = np.concatenate([np.zeros((3, 2, 1)), np.ones((3, 2, 1))], -1)
    arm, grip = [0.0, 0.1, 0.1, 0.2, 0.2], [1, 0, 0, 1, 1]
    assert offline._error(ones) == pytest.approx((sum(arm) + sum(grip)) / 10)
    assert offline._before(scaled=False).tolist() == pytest.approx(np.array([[0.15, 0], [0, -1], [0.1, 1]]), abs=1e-6)
    rows = offline._dimensions(np.array([[0.0, 1], [0.0, 1], [0.5, 0]], np.float32))
    assert rows["ramp"] == {"mae": 0.1333, "rmse": 0.1826, "mean_mae": 0.08333, "repeat_mae": 0.1167}
    assert rows["gripper"]["mae"] == pytest.approx(2 / 3, abs=1e-3)


@pytest.fixture
def contract_of_ramp() -> Contract:
    from omnistream.contract import Action, Camera, Dimension, Gripper

    return Contract(
        rate=10.0,
        cameras=(Camera("front", 16, 16),),
        state=(Dimension("s"),),
        action=Action((Dimension("ramp"), Dimension("gripper")), grippers=(Gripper(1, 1.0, -1.0),)),
    )
