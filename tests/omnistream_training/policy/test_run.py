# SPDX-License-Identifier: Apache-2.0
"""A whole run on files: it learns to listen, stops and goes on exactly, and leaves what a robot needs."""

from __future__ import annotations

import dataclasses
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from PIL import Image

from omnistream.episodes import EpisodeWriter, open_dataset
from omnistream.episodes.plans import Plans, read_plans, write_plans
from omnistream.errors import CheckpointError, ConfigError, InputError
from omnistream.model.omnistream import OmniStream
from omnistream.policy import PolicySession, load_policy
from omnistream.weights import model_hash, random_model, save_model
from omnistream_training import cli
from omnistream_training.config_file import load_config, save_config
from omnistream_training.journal import read_journal
from omnistream_training.policy.building import prepare
from omnistream_training.policy.command import PolicyWhere, run_policy
from omnistream_training.policy.config import PolicyRunConfig
from omnistream_training.policy.samples import read_tracks
from omnistream_training.policy.trainer import PolicyTrainer
from omnistream_training.robot_data.convert import convert_dataset
from omnistream_training.running import CONFIG
from tests.omnistream_training.policy.conftest import LEFT, RIGHT, train, write_pushes


def state_of(run: Path) -> dict:
    return torch.load(run / "state" / "latest.pt", weights_only=True)


def trainer_of(config: PolicyRunConfig, run: Path, where: PolicyWhere) -> PolicyTrainer:
    setup = prepare(config, where.cache, "cpu", say=lambda text: None)
    assert setup is not None
    return PolicyTrainer(config, run, setup)


def test_it_learns_to_do_what_it_is_told(
    config: PolicyRunConfig, where: PolicyWhere, tmp_path: Path, pushes: Path, backbone: OmniStream
) -> None:
    """One picture, two instructions, opposite actions; then from images through a session, as on the robot."""
    assert train(config, tmp_path / "run", where, steps=120)
    policy = load_policy(tmp_path / "run" / "best", contract=open_dataset(pushes).contract)
    session = PolicySession(policy, backbone, engine="torch", device="cpu")
    episode = open_dataset(pushes)[0]
    images = {name: episode.frame(name, 0) for name in episode.cameras}
    for text, sign in ((LEFT, -1), (RIGHT, 1)):
        session.reset()
        session.set_instruction(text)
        actions = session.step(images).actions
        assert actions[:, 0] == pytest.approx([0.8 * sign] * 3, abs=0.1)
        assert actions[:, 1] == pytest.approx([0.1 * sign] * 3, abs=0.1)
        assert actions[:, 2].tolist() == [float(sign < 0)] * 3
    report = json.loads((tmp_path / "run" / "report.json").read_text())["held_out"]
    assert report["error"] < 0.1 < report["mean_error"]
    assert report["other_error"] > 0.5 and report["blank_error"] > 3 * report["error"]
    assert set(report["dimensions"]) == {"dx", "dy", "gripper"}


def write_lefts(folder: Path, pushes: Path, **changes: object) -> Path:
    """The demonstrations that go left, with plans in which every frame is told to go right."""
    dataset, rows = open_dataset(pushes), []
    with EpisodeWriter(folder, dataset.contract, storage="image") as writer:
        for number, episode in enumerate(e for e in dataset if e.instruction == LEFT):
            writer.begin(LEFT)
            pictures = zip(episode.frames("front"), episode.frames("wrist"), strict=True)
            for t, (front, wrist) in enumerate(pictures):
                writer.add(episode.state[t], episode.action[t], {"front": front, "wrist": wrist})
                rows.append((number, t))
            writer.end(success=True)
        plans = Plans(
            goal=("x",),
            episode=np.array([number for number, _ in rows]),
            frame=np.array([t for _, t in rows]),
            instruction=[RIGHT] * len(rows),
            keyframes=np.full((len(rows), 1, 1), 0.9, np.float32),
            actions=np.full((len(rows), 3, 3), (0.8, 0.1, 0.0), np.float32),
            steps=np.full(len(rows), 3),
        )
        writer.add_plans(dataclasses.replace(plans, **changes))  # type: ignore[arg-type]
    return folder


def test_state_that_never_moved_is_named_and_not_read(
    config: PolicyRunConfig, where: PolicyWhere, tmp_path: Path, backbone: OmniStream
) -> None:
    """In deviations of noise, a millimetre on another day would be more than all that was learnt from."""
    folder = write_pushes(tmp_path / "still", still=True)
    config = dataclasses.replace(config, data=dataclasses.replace(config.data, folders=(str(folder),), state=True))
    said: list[str] = []
    assert prepare(config, where.cache, "cpu", say=said.append) is not None
    assert "state that moves by less than 0.0001 in these data, and is not read: x" in said
    assert train(config, tmp_path / "run", where, steps=3)
    session = PolicySession(load_policy(tmp_path / "run" / "best"), backbone, engine="torch", device="cpu")
    session.set_instruction(LEFT)
    pictures = {"front": np.zeros((32, 48, 3), np.uint8), "wrist": np.zeros((32, 32, 3), np.uint8)}
    told = []
    for x in (0.3, 0.31, 5.0):
        session.reset()
        told.append(session.step(pictures, [x]).actions)
    assert np.array_equal(told[0], told[1]) and np.array_equal(told[0], told[2])


def planned(config: PolicyRunConfig, folder: Path) -> PolicyRunConfig:
    return dataclasses.replace(
        config,
        policy=dataclasses.replace(config.policy, goal=("x",), keyframes=1),
        data=dataclasses.replace(config.data, folders=(str(folder),), counterfactual=0.5, state=True),
    )


def test_it_learns_what_it_never_saw_done_from_plans(
    config: PolicyRunConfig, where: PolicyWhere, tmp_path: Path, pushes: Path
) -> None:
    """All demonstrations go left. What to do when told right is in the plans alone, and so is where that leads."""
    config = planned(config, write_lefts(tmp_path / "lefts", pushes))
    assert train(config, tmp_path / "run", where, steps=150)
    report = json.loads((tmp_path / "run" / "report.json").read_text())["held_out"]
    assert report["error"] < 0.1 and report["counterfactual_error"] < 0.1 < report["blank_error"]
    assert report["keyframe_mae"]["x"] < 0.1
    policy = load_policy(tmp_path / "run" / "best", contract=open_dataset(pushes).contract)
    assert policy.config.goal == ("x",) and policy.shape.goal == (0,)


def test_plans_that_do_not_fit_are_refused_before_anything_is_computed(
    config: PolicyRunConfig, where: PolicyWhere, tmp_path: Path, pushes: Path
) -> None:
    def refused(error: type[Exception], match: str, goal: int = 1, **changes: object) -> None:
        folder = write_lefts(tmp_path / "set", pushes, **changes)
        wanted = planned(config, folder)
        wanted = dataclasses.replace(wanted, policy=dataclasses.replace(wanted.policy, keyframes=goal))
        with pytest.raises(error, match=match):
            prepare(wanted, where.cache, "cpu", say=lambda text: None)
        assert not where.cache.exists() or "deviates" in match
        shutil.rmtree(folder)

    n = len(write_plans_rows(tmp_path, pushes))
    refused(ConfigError, "set: plans.parquet tells 1 keyframes; policy.keyframes is 2", goal=2)
    refused(InputError, r"plans.parquet, episode 0: frames 1 to 99; it has \d", frame=np.array([99, *range(1, n)]))
    refused(InputError, r"episode \d+; the data set has 6", episode=np.full(n, 40))
    refused(InputError, "its recorded actions are said to be for {'push the block right'}", steps=np.zeros(n, int))
    refused(ConfigError, "policy.goal has 'x', which deviates by", keyframes=np.full((n, 1, 1), 1e3, np.float32))


def write_plans_rows(tmp_path: Path, pushes: Path) -> Plans:
    folder = write_lefts(tmp_path / "probe", pushes)
    found = read_plans(folder, open_dataset(folder).contract)
    assert found is not None
    shutil.rmtree(folder)
    return found


def test_no_plans_at_all_is_said_and_trained_without(
    config: PolicyRunConfig, where: PolicyWhere, tmp_path: Path, pushes: Path
) -> None:
    said: list[str] = []
    assert prepare(planned(config, pushes), where.cache, "cpu", say=said.append) is not None
    assert any("has no plans.parquet: nothing counterfactual is learnt from it" in text for text in said)
    folder = write_lefts(tmp_path / "lefts", pushes)
    found = read_plans(folder, open_dataset(folder).contract)
    assert found is not None
    write_plans(folder, found.rows(np.zeros(0, int)))
    setup = prepare(planned(config, folder), where.cache, "cpu", say=lambda text: None)
    assert setup is not None and not len(setup.train.others)
    # New plans are another run, but no other features.
    assert "plans 0" in setup.identity
    write_plans(folder, found)
    said.clear()
    again = prepare(planned(config, folder), where.cache, "cpu", say=said.append)
    assert again is not None and again.identity["data 0"] == setup.identity["data 0"]
    assert again.identity["plans 0"] != setup.identity["plans 0"]
    assert not said


def test_plans_follow_their_episodes_when_others_are_lost(
    config: PolicyRunConfig, tmp_path: Path, pushes: Path
) -> None:
    pytest.importorskip("av", reason='needs PyAV: pip install "omnistream[io]"')
    folder = write_lefts(tmp_path / "lefts", pushes)
    dataset = open_dataset(folder)
    found = read_plans(folder, dataset.contract)
    assert found is not None
    rows = np.flatnonzero(found.episode == 2)
    video = tmp_path / "video"
    with EpisodeWriter(video, dataset.contract, storage="video") as writer:
        for episode in dataset:
            writer.begin(LEFT)
            for t, (front, wrist) in enumerate(zip(episode.frames("front"), episode.frames("wrist"), strict=True)):
                writer.add(episode.state[t], episode.action[t], {"front": front, "wrist": wrist})
            writer.end(success=True)
        writer.add_plans(found)
    next(video.rglob("*front*/**/file-001.mp4")).unlink()
    tracks = read_tracks([open_dataset(video)], config.data)
    assert [len(track) for track in tracks] == [info.length for info in dataset.infos if info.index != 1]
    plans = tracks[1].plans
    assert plans is not None and plans.frame.tolist() == found.frame[rows].tolist()


def test_plans_go_along_when_a_data_set_is_converted(tmp_path: Path, pushes: Path) -> None:
    folder = write_lefts(tmp_path / "lefts", pushes)
    source = open_dataset(folder)
    source.infos = [info for info in source.infos if info.index != 1]  # as if that one were lost
    assert convert_dataset(source, tmp_path / "copy") == []
    before, after = read_plans(folder, source.contract), read_plans(tmp_path / "copy", source.contract)
    assert before is not None and after is not None
    kept = before.rows(np.flatnonzero(before.episode != 1))
    assert after.episode.tolist() == [number - (number > 1) for number in kept.episode]
    assert after.frame.tolist() == kept.frame.tolist() and after.instruction == kept.instruction
    assert np.array_equal(after.keyframes, kept.keyframes) and np.array_equal(after.actions, kept.actions)
    assert convert_dataset(open_dataset(folder), tmp_path / "rlds", to="rlds") == [
        "plans.parquet is left out: RLDS has no place for plans"
    ]


def test_a_run_from_before_there_were_goals_goes_on(
    config: PolicyRunConfig, where: PolicyWhere, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    save_config(config, run / CONFIG)
    trainer_of(config, run, where).train(3)
    state, stored = state_of(run), yaml.safe_load((run / CONFIG).read_text())
    for found in (state["config"], stored):
        del (
            found["policy"]["goal"],
            found["policy"]["keyframes"],
            found["data"]["counterfactual"],
            found["loss"]["goal"],
        )
    torch.save(state, run / "state" / "latest.pt")
    (run / CONFIG).write_text(yaml.safe_dump(stored))
    assert run_policy(config, run, where)
    # What it had before is no goal, whatever is asked for now.
    with pytest.raises(ConfigError, match="differs in data"):
        run_policy(dataclasses.replace(config, data=dataclasses.replace(config.data, counterfactual=0.5)), run, where)


def test_a_session_gives_what_training_computed(
    config: PolicyRunConfig, where: PolicyWhere, tmp_path: Path, pushes: Path, backbone: OmniStream
) -> None:
    """Streamed images against cached features, along an episode, state and two cameras included: 1e-4."""
    config = dataclasses.replace(config, data=dataclasses.replace(config.data, state=True))
    trainer = trainer_of(config, tmp_path / "run", where)
    trainer.train(3)
    policy = load_policy(tmp_path / "run" / "last")
    session = PolicySession(policy, backbone, engine="torch", device="cpu")
    samples = trainer.setup.held_out
    track = samples.tracks[1]
    episode = open_dataset(pushes)[track.episode]
    session.set_instruction(episode.instruction)
    first = len(samples.tracks[0])
    with torch.no_grad():
        batch = samples.batch(np.arange(first, first + len(track)))
        out = policy.network(batch.visual, batch.words, batch.known, batch.state)
    expected = policy.scaling.restore(out.arm.numpy(), out.gripper.sigmoid().numpy())
    readers = {name: episode.frames(name) for name in episode.cameras}
    for t in range(len(episode)):
        images = {name: next(reader) for name, reader in readers.items()}
        assert np.abs(session.step(images, episode.state[t]).actions - expected[t]).max() < 1e-4, t


@pytest.fixture(params=["recorded", "planned"])
def either(request: pytest.FixtureRequest, config: PolicyRunConfig, tmp_path: Path, pushes: Path) -> PolicyRunConfig:
    """A run on recorded actions alone, and one with a goal and counterfactual plans."""
    return config if request.param == "recorded" else planned(config, write_lefts(tmp_path / "lefts", pushes))


def test_stopping_anywhere_changes_nothing(either: PolicyRunConfig, where: PolicyWhere, tmp_path: Path) -> None:
    config = either
    trainer_of(config, tmp_path / "whole", where).train()
    whole = state_of(tmp_path / "whole")
    for stop in (1, 7, 20, 33):
        run = tmp_path / f"cut{stop}"
        trainer_of(config, run, where).train(stop)
        assert state_of(run)["progress"]["step"] == stop
        trainer_of(config, run, where).train()
        state = state_of(run)
        assert all(torch.equal(whole["network"][name], tensor) for name, tensor in state["network"].items())
        assert all(torch.equal(a, b) for a, b in zip(whole["average"], state["average"], strict=True))
        assert state["best"] == whole["best"]


def test_gradients_of_parts_add_up(either: PolicyRunConfig, where: PolicyWhere, tmp_path: Path) -> None:
    config = either
    whole = trainer_of(config, tmp_path / "whole", where)
    parts = trainer_of(dataclasses.replace(config, micro_batch=5), tmp_path / "parts", where)
    batch = whole.setup.draw(config, 0)
    assert len({int(steps) for steps in batch.valid.sum(1)}) > 1
    a, b = whole.learner.gradient(batch), parts.learner.gradient(batch)
    assert float(a["loss"]) == pytest.approx(float(b["loss"]), rel=1e-5)
    for x, y in zip(whole.learner.optimizers.parameters, parts.learner.optimizers.parameters, strict=True):
        assert (x.grad is None) == (y.grad is None)
        assert x.grad is None or torch.allclose(x.grad, y.grad, atol=1e-6)


def test_a_run_leaves_curves_pictures_and_a_report(config: PolicyRunConfig, where: PolicyWhere, tmp_path: Path) -> None:
    run = tmp_path / "run"
    assert train(config, run, where)
    names = {path.name for path in run.iterdir()}
    assert {"best", "last", "config.yaml", "curve.png", "log.jsonl", "overlay.png", "report.json", "state"} <= names
    for name in ("curve.png", "overlay.png"):
        with Image.open(run / name) as picture:
            assert picture.width > 300
    av = pytest.importorskip("av")
    with av.open(str(run / "overlay.mp4")) as video:
        assert 5 <= sum(1 for _ in video.decode(video=0)) <= 8
    kinds = [record["kind"] for record in read_journal(run / "log.jsonl")]
    assert kinds.count("eval") == 1 and kinds.count("end") == 1


def test_asking_again_for_a_finished_run_does_no_harm(
    config: PolicyRunConfig, where: PolicyWhere, tmp_path: Path
) -> None:
    assert train(config, tmp_path / "run", where)
    before = state_of(tmp_path / "run")
    assert train(config, tmp_path / "run", where)
    after = state_of(tmp_path / "run")
    assert all(torch.equal(before["network"][n], after["network"][n]) for n in before["network"])
    kinds = [record["kind"] for record in read_journal(tmp_path / "run" / "log.jsonl")]
    assert kinds.count("end") == 1


def test_another_configuration_backbone_or_data_set_does_not_go_on(
    config: PolicyRunConfig, where: PolicyWhere, tmp_path: Path, backbone: OmniStream
) -> None:
    """Hashes decide: the names of the folders are the same."""
    weights, data = tmp_path / "backbone", tmp_path / "pushes"
    save_model(backbone, weights)
    write_pushes(data)
    config = dataclasses.replace(
        config, backbone=str(weights), data=dataclasses.replace(config.data, folders=(str(data),)), steps=2
    )
    run = tmp_path / "run"
    assert run_policy(config, run, where)
    with pytest.raises(ConfigError, match="differs in seed"):
        train(config, run, where, seed=3)
    other = random_model(backbone.config, 1)
    save_model(other, weights, overwrite=True)
    with pytest.raises(CheckpointError) as error:
        run_policy(config, run, where)
    assert model_hash(backbone.backbone) in str(error.value) and model_hash(other.backbone) in str(error.value)
    save_model(backbone, weights, overwrite=True)
    shutil.rmtree(data)
    write_pushes(data, seed=1)
    with pytest.raises(CheckpointError, match="data 0"):
        run_policy(config, run, where)


def test_a_new_run_is_cut_down_and_goes_on_as_it_was_cut(
    config: PolicyRunConfig, where: PolicyWhere, tmp_path: Path
) -> None:
    long = dataclasses.replace(config, steps=10**7, eval_every=0)
    assert run_policy(long, tmp_path / "run", where, fit_minutes=0.02)
    kept = load_config(tmp_path / "run" / CONFIG, config)
    assert 1 <= kept.steps < 10**4 and kept.data == config.data
    assert run_policy(kept, tmp_path / "run", where, fit_minutes=5)
    with pytest.raises(ConfigError, match="differs in .*steps"):
        run_policy(long, tmp_path / "run", where, fit_minutes=5)


def test_a_damaged_state_falls_back_to_the_one_before(
    config: PolicyRunConfig, where: PolicyWhere, tmp_path: Path
) -> None:
    trainer_of(config, tmp_path, where).train(10)
    path = tmp_path / "state" / "latest.pt"
    path.write_bytes(path.read_bytes()[:500])
    assert trainer_of(config, tmp_path, where).progress.step == 7


def test_failed_episodes_are_left_out_unless_asked_for(
    config: PolicyRunConfig, where: PolicyWhere, tmp_path: Path
) -> None:
    from omnistream_training.policy.samples import read_tracks

    dataset = open_dataset(config.data.folders[0])
    dataset.infos = [dataclasses.replace(info, success=info.index != 3) for info in dataset.infos]
    kept = read_tracks([dataset], config.data)
    assert len(kept) == 11 and 3 not in [track.episode for track in kept]
    assert kept[3].first == sum(info.length for info in dataset.infos[:4])  # rows of the table do not shift
    assert len(read_tracks([dataset], dataclasses.replace(config.data, failures=True))) == 12


def test_no_data_is_said(config: PolicyRunConfig, where: PolicyWhere, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="name data sets"):
        train(config, tmp_path / "run", where, data=dataclasses.replace(config.data, folders=()))
    with pytest.raises(InputError):
        train(config, tmp_path / "run", where, data=dataclasses.replace(config.data, folders=(str(tmp_path),)))
    assert not (tmp_path / "run" / "config.yaml").exists()


def test_the_command_trains_and_its_exit_codes_tell(
    config: PolicyRunConfig, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    from omnistream_training.config_file import save_config

    save_config(config, tmp_path / "wanted.yaml")
    where = ["--cache", str(tmp_path / "cache"), "--device", "cpu", "--threads", "1"]
    run = str(tmp_path / "run")
    words = ["policy", run, "--config", str(tmp_path / "wanted.yaml"), *where]
    assert cli.main([*words, "--steps", "3", "--stop-after", "0"]) == 1  # stopped before the end
    assert cli.main([*words, "--steps", "3"]) == cli.FINISHED
    assert "told nothing" in capsys.readouterr().err
    assert cli.main(["policy", run, *where, "--steps", "4"]) == cli.USAGE
    assert "differs in steps" in capsys.readouterr().err
    assert cli.main(["policy", str(tmp_path / "r2"), *where, "--preset", "nope"]) == cli.USAGE
    assert cli.main(["policy", str(tmp_path / "r2"), *where, "--data.folders", str(tmp_path)]) == cli.DATA
    assert cli.main(["policy", str(tmp_path / "r2"), *where, "--preset", "calvin_abc"]) == cli.USAGE
