# SPDX-License-Identifier: Apache-2.0
"""A run on two processes learns what one learns, its states fit any number of processes, and it survives losing one.

Really started by torchrun, on gloo; slow, because every process imports torch anew.
"""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import omnistream
from omnistream_training.config import ModelChoice
from omnistream_training.config_file import save_config
from omnistream_training.data.augment import AugmentConfig
from omnistream_training.pretrain.config import PretrainConfig
from omnistream_training.pretrain.trainer import PretrainTrainer
from omnistream_training.state_folder import read_state
from tests.omnistream_training.conftest import ROOT
from tests.omnistream_training.pretrain.test_pretrain import TOY

CHILD = "tests.omnistream_training.pretrain.process_child"


@pytest.fixture
def shared(micro: str) -> PretrainConfig:
    """A run of two micro-batches a step, whose centring knows one of them at a time."""
    return dataclasses.replace(
        TOY,
        model=ModelChoice(preset=micro),
        data=dataclasses.replace(TOY.data, live="tests.omnistream_training.scenes:Planes"),
        augment=AugmentConfig(),
        ssl=dataclasses.replace(TOY.ssl, shared_centring=False),
        optim=dataclasses.replace(TOY.optim, muon_lr=0.0),
        micro_batches=2,
        log_every=1,
        eval_every=0,
    )


def torchrun(config: PretrainConfig, run: Path, processes: int, until: int, kill: int = -1) -> None:
    """Start and await `processes` of them; one that is killed makes all start anew, once."""
    wanted = run.with_suffix(".yaml")
    save_config(config, wanted)
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join([str(ROOT), *sys.path])}
    words = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(processes)]
    words += ["--max-restarts", "1" if kill >= 0 else "0", "-m", CHILD, str(wanted), str(run), str(until), str(kill)]
    done = subprocess.run(words, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=850)
    assert done.returncode == 0, done.stderr[-4000:]


def curve(run: Path) -> list[float]:
    """Loss by step; of a step that was done again, the last."""
    lines = [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]
    by_step = {line["step"]: line["loss"] for line in lines if line["kind"] == "train"}
    return [by_step[step] for step in sorted(by_step)]


def longer(config: PretrainConfig, steps: int) -> PretrainConfig:
    """Of one stage."""
    return dataclasses.replace(config, stages=(dataclasses.replace(config.stages[0], steps=steps),))


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_states_of_two_processes_go_on_in_one_and_in_two(shared: PretrainConfig, tmp_path: Path) -> None:
    shared = longer(shared, 6)
    PretrainTrainer(shared, tmp_path / "one").train()
    torchrun(shared, tmp_path / "two", 2, until=3)
    assert read_state(tmp_path / "two" / "state" / "step_00000003")[0]["processes"] == 2
    shutil.copytree(tmp_path / "two", tmp_path / "alone")
    PretrainTrainer(shared, tmp_path / "alone").train()
    torchrun(shared, tmp_path / "two", 2, until=6)
    expected = curve(tmp_path / "one")
    assert len(expected) == 6 and expected[-1] != expected[0]
    for run in ("alone", "two"):
        assert curve(tmp_path / run) == pytest.approx(expected, rel=1e-4), run
    _, one = read_state(tmp_path / "one" / "state" / "step_00000006")
    _, two = read_state(tmp_path / "two" / "state" / "step_00000006")
    assert one.keys() == two.keys()
    for name in ("parts.model.backbone.norm.weight", "parts.ssl.teacher.heads.ibot.mlp.0.weight"):
        torch.testing.assert_close(two[name], one[name], rtol=1e-3, atol=1e-5)
    published = [omnistream.load_model(tmp_path / run / "weights").state_dict() for run in ("one", "two")]
    assert published[0].keys() == published[1].keys()
    for name, value in published[0].items():
        torch.testing.assert_close(published[1][name], value, rtol=1e-2, atol=1e-3, msg=lambda m, n=name: f"{n}: {m}")


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_two_processes_learn_what_one_learns_over_fifty_steps(shared: PretrainConfig, tmp_path: Path) -> None:
    shared = dataclasses.replace(longer(shared, 50), save_every=25)
    PretrainTrainer(shared, tmp_path / "one").train()
    torchrun(shared, tmp_path / "two", 2, until=50)
    assert curve(tmp_path / "two") == pytest.approx(curve(tmp_path / "one"), rel=1e-4)


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_losing_a_process_costs_the_steps_since_the_last_state(shared: PretrainConfig, tmp_path: Path) -> None:
    muon = dataclasses.replace(longer(shared, 5), optim=dataclasses.replace(shared.optim, muon_lr=1e-2))
    torchrun(muon, tmp_path / "lost", 2, until=5, kill=3)
    assert (tmp_path / "lost" / "killed").exists()
    starts = [
        json.loads(line)["step"]
        for line in (tmp_path / "lost" / "log.jsonl").read_text().splitlines()
        if json.loads(line)["kind"] == "start"
    ]
    assert starts == [0, 2]  # a state every two steps
    PretrainTrainer(muon, tmp_path / "one").train()
    assert curve(tmp_path / "lost") == pytest.approx(curve(tmp_path / "one"), rel=1e-3)


@pytest.mark.slow
@pytest.mark.timeout(300)
@pytest.mark.parametrize(("processes", "restarts"), [(2, 0), (2, 1), (1, 1)])
def test_a_run_that_was_stopped_is_no_failure_to_torchrun(tmp_path: Path, processes: int, restarts: int) -> None:
    """Its time was over: nothing is to be reported, and nobody started anew."""
    child = tmp_path / "child.py"
    child.write_text(
        "import sys\n"
        "from omnistream_training.distributed import exit_code, join\n"
        "processes = join('cpu')\n"
        f"open(rf'{tmp_path}/log', 'a').write(f'{{processes.rank}}\\n')\n"
        "processes.leave(exit_code(False))\n"
        "sys.exit(exit_code(False))\n"
    )
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join([str(ROOT), *sys.path])}
    words = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(processes)]
    words += ["--max-restarts", str(restarts), str(child)]
    done = subprocess.run(words, env=environment, capture_output=True, text=True, timeout=250)
    assert done.returncode == 0, done.stderr[-2000:]
    assert sorted((tmp_path / "log").read_text().split()) == ["0", "1"][:processes], "each was started once"
