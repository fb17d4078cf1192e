# SPDX-License-Identifier: Apache-2.0
"""Tasks: words, what is possible, chains, oracle; experts who do them; what evaluations are made of."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("gymnasium", reason='needs gymnasium: pip install "omnistream[sim]"')
pytest.importorskip("pybullet", reason='needs PyBullet: pip install "omnistream[sim]" on Python 3.11')

from omnistream.errors import ConfigError
from omnistream.model.config import BackboneConfig, ModelConfig
from omnistream.policy.tokens import words_of
from omnistream.weights import random_model, save_model
from omnistream_sim.cli import main
from omnistream_sim.evaluation.episode import run_episode
from omnistream_sim.evaluation.protocols import Episode, Observation
from omnistream_sim.evaluation.scores import Rate
from omnistream_sim.tabletop.benchmark import by_kind, chance, tabletop_benchmark
from omnistream_sim.tabletop.control import OPEN
from omnistream_sim.tabletop.env import EnvConfig, TabletopEnv
from omnistream_sim.tabletop.expert import Expert
from omnistream_sim.tabletop.layout import BLOCK_SIZE, BLOCKS, DRAWER_TRAVEL
from omnistream_sim.tabletop.rehearsal import rehearse
from omnistream_sim.tabletop.simulation import resting
from omnistream_sim.tabletop.situation import DRAWER, HAND, situation_of
from omnistream_sim.tabletop.starts import chain, possible_tasks, situation_at, start_for
from omnistream_sim.tabletop.state import Start
from omnistream_sim.tabletop.task_env import TaskEnvironment, View, instruction
from omnistream_sim.tabletop.tasks import KINDS, TASKS, tasks_of

NOTHING = np.array([0, 0, 0, 0, 0, 0, OPEN])
SPREAD = {"red": (0.31, -0.21), "green": (0.39, -0.07), "blue": (0.31, 0.08), "yellow": (0.39, 0.22)}


@pytest.fixture(scope="module")
def env() -> Iterator[TabletopEnv]:
    env = TabletopEnv(EnvConfig(pictures=False))
    yield env
    env.close()


def start(**places: tuple[float, float, float]) -> Start:
    """Blocks side by side, some elsewhere (x, y, height of the surface); all shut and off."""
    blocks = {name: resting(xy) for name, xy in SPREAD.items()}
    blocks |= {name: resting((x, y), on=on) for name, (x, y, on) in places.items()}
    return Start(blocks=blocks, drawer=0.0, slider=0.06, lamp=False)


def test_seven_kinds_34_tasks_and_at_least_two_new_sentences_for_each() -> None:
    assert {task.kind for task in TASKS.values()} == set(KINDS) and len(TASKS) == 34
    for task in TASKS.values():
        wording = task.wording
        assert len(wording.seen) == 11 and len(wording.unseen) >= 2
        assert not set(wording.seen) & set(wording.unseen)
        assert task.block in " ".join(wording.unseen) and task.base in " ".join(wording.unseen)


def test_every_sentence_belongs_to_one_task() -> None:
    sentences = [text for task in TASKS.values() for text in (*task.wording.seen, *task.wording.unseen)]
    assert len(set(sentences)) == len(sentences)


def test_new_sentences_have_only_words_that_were_seen() -> None:
    known = {word for task in TASKS.values() for text in task.wording.seen for word in words_of(text)}
    new = {word for task in TASKS.values() for text in task.wording.unseen for word in words_of(text)}
    assert new <= known


def test_tasks_are_named_by_name_or_by_kind() -> None:
    assert [task.name for task in tasks_of(("lift_red", "drawer"))] == ["lift_red", "open_drawer", "close_drawer"]
    assert len(tasks_of(())) == 34
    with pytest.raises(ConfigError, match="'juggle' is unknown; expected a kind"):
        tasks_of(("juggle",))


def test_what_is_possible() -> None:
    now = situation_at(start())
    names = {task.name for task in possible_tasks(now)}
    assert {"lift_red", "open_drawer", "turn_on_lamp", "move_slider_right", "stack_red_on_blue"} <= names
    assert not names & {"close_drawer", "turn_off_lamp", "move_slider_left", "place_red_in_drawer"}
    opened = TASKS["open_drawer"].result(now)
    assert TASKS["place_red_in_drawer"].possible(opened)
    lifted = TASKS["lift_red"].result(opened)
    assert {task.name for task in possible_tasks(lifted)} == {
        "place_red_in_drawer", *(f"stack_red_on_{base}" for base in ("green", "blue", "yellow"))
    }  # fmt: skip
    stacked = TASKS["stack_red_on_blue"].result(lifted)
    assert not TASKS["lift_blue"].possible(stacked) and not TASKS["stack_green_on_blue"].possible(stacked)
    stored = TASKS["place_red_in_drawer"].result(lifted)
    assert stored.blocks["red"].on == DRAWER and not TASKS["lift_red"].possible(stored)


def test_a_push_needs_room() -> None:
    now = situation_at(start())
    assert TASKS["push_green_left"].possible(now)
    blocked = situation_at(start(red=(0.39, 0.0, 0.0)))
    assert not TASKS["push_green_left"].possible(blocked) and not TASKS["push_yellow_left"].possible(
        situation_at(start(yellow=(0.39, 0.27, 0.0)))
    )


def test_a_state_in_words_is_what_was_put_there(env: TabletopEnv) -> None:
    env.reset(seed=0, options={"start": start(red=(*SPREAD["blue"], BLOCK_SIZE))})
    now = situation_of(env.state())
    assert now.blocks["red"].on == "blue" and now.blocks["blue"].on == "table" and now.held is None
    assert now.lamp is False and now.slider == pytest.approx(0.06) and now.drawer == pytest.approx(0.0, abs=1e-4)


def test_starts_allow_their_task_and_are_the_same_for_a_seed() -> None:
    for task in TASKS.values():
        drawn = start_for(task, 5)
        assert task.possible(situation_at(drawn))
        assert drawn == start_for(task, 5) != start_for(task, 6)
        assert Start.from_plain(drawn.plain()) == drawn


def test_chains_are_possible_step_by_step_and_of_different_kinds() -> None:
    kinds = set()
    for seed in range(60):
        whole = chain(seed)
        now = situation_at(whole.start)
        assert len({TASKS[name].kind for name in whole.tasks}) == 5
        for name in whole.tasks:
            assert TASKS[name].possible(now)
            now = TASKS[name].result(now)
            kinds.add(TASKS[name].kind)
    assert kinds == set(KINDS) and chain(3) == chain(3)
    with pytest.raises(ConfigError, match="chains of 8; expected 1 to 7"):
        chain(0, 8)


def test_nothing_is_solved_by_doing_nothing_or_by_undoing_it(env: TabletopEnv) -> None:
    env.reset(seed=2, options={"start": start()})
    begin = env.state()
    for _ in range(5):
        env.step(NOTHING)
    now = env.state()
    assert not any(task.solved(begin, now) for task in TASKS.values())
    opened = replace(begin, drawer=DRAWER_TRAVEL)
    assert TASKS["open_drawer"].solved(begin, opened) and not TASKS["open_drawer"].solved(opened, opened)
    assert TASKS["close_drawer"].solved(opened, begin) and not TASKS["close_drawer"].solved(begin, opened)


@pytest.mark.parametrize("kind", KINDS)
def test_the_expert_does_every_kind(kind: str) -> None:
    episodes = tabletop_benchmark(episodes=2, tasks=(kind,), seed=9).episodes
    found = rehearse(episodes, lambda done, total: None)
    assert found[kind].rate == Rate(2, 2), found[kind].failed


def test_after_lifting_the_expert_goes_on_with_what_it_holds(env: TabletopEnv) -> None:
    env.reset(seed=4, options={"start": replace(start(), drawer=DRAWER_TRAVEL)})
    for name, before in (("lift_red", None), ("place_red_in_drawer", HAND), ("close_drawer", DRAWER)):
        task, begin = TASKS[name], env.state()
        if before:
            assert situation_of(begin).blocks["red"].on == before
        expert = Expert(task)
        for _ in range(120):
            action = expert.action(env.state())
            assert action is not None
            env.step(action.astype(np.float32))
            if task.solved(begin, env.state()):
                break
        assert task.solved(begin, env.state()), name


def test_the_expert_gives_up_what_cannot_be_done(env: TabletopEnv) -> None:
    env.reset(seed=4, options={"start": start()})
    expert = Expert(TASKS["close_drawer"])
    for _ in range(600):
        action = expert.action(env.state())
        if action is None:
            return
        env.step(action.astype(np.float32))
    pytest.fail("it went on for 30 s")


def test_the_evaluator_runs_a_task_and_says_whether_the_other_was_done() -> None:
    benchmark = tabletop_benchmark(episodes=1, tasks=("button", "slider"), told="swapped")
    episode = benchmark.episodes[0]
    meant = episode.state["instead"]
    assert TASKS[meant].kind == "button" and episode.tasks != (meant,)
    environment = TaskEnvironment(View(static=32, gripper=0))
    expert: list[Expert] = []

    def does_what_it_was_not_told(observation: Observation, text: str) -> np.ndarray:
        assert text in TASKS[episode.tasks[0]].wording.unseen and observation["rgb_static"].shape == (32, 32, 3)
        expert.extend([] if expert else [Expert(TASKS[meant])])
        action = expert[0].action(environment._world.env.state())
        return NOTHING if action is None else action

    record = run_episode(environment, does_what_it_was_not_told, episode, replace(benchmark.rules, max_steps=40))
    environment.close()
    assert not record.done[0].solved and record.done[0].metrics == {"did_the_other": True}


def test_blanked_instructions_are_empty_and_others_are_drawn_from_the_seed() -> None:
    task = TASKS["lift_red"]
    assert instruction(task, "blank", 3) == ""
    assert {instruction(task, "unseen", seed) for seed in range(20)} == set(task.wording.unseen)
    assert {instruction(task, "seen", seed) for seed in range(40)} == set(task.wording.seen)


def test_benchmarks_are_balanced_and_refuse_what_makes_no_sense() -> None:
    benchmark = tabletop_benchmark(episodes=3)
    kinds = [TASKS[episode.tasks[0]].kind for episode in benchmark.episodes]
    assert {kind: kinds.count(kind) for kind in KINDS} == dict.fromkeys(KINDS, 3)
    assert 1 / 34 < chance(benchmark) < 0.2
    with pytest.raises(ConfigError, match="is the only possible one of the tasks"):
        tabletop_benchmark(episodes=1, tasks=("button",), told="swapped")
    with pytest.raises(ConfigError, match="chains are of all tasks"):
        tabletop_benchmark(chains=2, told="swapped")
    report = {"task_info": {"lift_red": {"success": 1, "total": 2}, "lift_blue": {"success": 2, "total": 2}}}
    assert by_kind(report) == {"lift": Rate(3, 4)}
    assert set(BLOCKS) == {task.block for task in TASKS.values() if task.block}


def test_the_command_scores_a_policy_by_kind(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "run"
    words = ["tabletop", "--policy", "omnistream_sim.tabletop.policies:random", "--out", str(out), "--episodes", "1"]
    words += ["--tasks", "button", "lift", "--static", "32", "--gripper", "0", "--max-steps", "6", "--videos", "0"]
    assert main(words) == 0
    said = capsys.readouterr().out
    assert "kind of task" in said and "expert that picks at random" in said
    kinds = json.loads((out / "kinds.json").read_text())
    assert set(kinds["kinds"]) == {"button", "lift"} and 0 < kinds["picked_at_random"] < 0.2
    assert main([*words, "--told", "blank"]) == 1  # another run lies there
    assert "told" in capsys.readouterr().err


def test_the_command_checks_the_experts(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["check", "tabletop", "--episodes", "1", "--chains", "0", "--tasks", "button"]) == 0
    assert "100.0%" in capsys.readouterr().out


def test_the_expert_does_not_take_along_what_it_has_just_let_go_of() -> None:
    # After stacking, the fingers are half open about the block: closing them for a push would take it along.
    whole = chain(97)
    assert [TASKS[name].kind for name in whole.tasks[2:4]] == ["stack", "push"]
    episode = Episode(index=0, tasks=whole.tasks, state={"start": whole.start.plain()}, seed=97)
    found = rehearse([episode], lambda done, total: None)
    assert not any(one.failed for one in found.values())


def test_the_probe_compares_features_random_ones_and_pixels(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    backbone = BackboneConfig(dim=32, depth=1, heads=2)
    save_model(random_model(ModelConfig(backbone=backbone, image_size=32), 1), tmp_path / "weights")
    out = tmp_path / "report.json"
    words = ["probe", "tabletop", "--weights", str(tmp_path / "weights"), "--out", str(out), "--pictures", "10"]
    assert main([*words, "--steps", "2", "--static", "32", "--image-size", "32"]) == 0
    rows = json.loads(out.read_text())["rows"]
    assert list(rows) == ["weights", "random weights", "pixels"]
    assert all(0 < row["median_cm"] < 60 and 0 <= row["within"] <= 1 for row in rows.values())
    assert "closer than 1.5 cm" in capsys.readouterr().out
