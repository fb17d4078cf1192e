# SPDX-License-Identifier: Apache-2.0
"""Whole runs in worker processes: same results for any number of workers, crashes, hangs, kills, full disks."""

from __future__ import annotations

import io
import json
import os
import signal
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import line_world
import pytest
from line_world import LineWorld, benchmark, walker

from omnistream.errors import ConfigError, InputError
from omnistream_sim.evaluation.policies import make_policy
from omnistream_sim.evaluation.pool import PoolOptions, run_pool
from omnistream_sim.evaluation.progress import LiveLine
from omnistream_sim.evaluation.protocols import EvaluationError
from omnistream_sim.evaluation.report import table
from omnistream_sim.evaluation.run import RunOptions, evaluate
from omnistream_sim.evaluation.store import Store
from omnistream_sim.evaluation.worker import Finished, Ready, Work

CHAINS = [("right 1", "right 2"), ("right 3", "right 9"), ("right 9", "right 1"), ("right 2", "right 3")] * 2


def options(out: Path, workers: int = 1, where: str = "processes", **pool) -> RunOptions:
    return RunOptions(out=out, where=where, pool=PoolOptions(workers=workers, **pool))


def without_times(report: dict) -> dict:
    return {key: value for key, value in report.items() if key != "timings"}


def test_same_results_for_any_number_of_workers(tmp_path):
    reports = [
        evaluate(benchmark(*CHAINS), "line_world:Drunkard", options(tmp_path / where, workers, where.rstrip("12")))
        for where, workers in (("here", 1), ("processes1", 1), ("processes2", 2))
    ]
    assert without_times(reports[0]) == without_times(reports[1]) == without_times(reports[2])
    assert len(set(reports[0]["digests"].values())) == len(CHAINS)


def test_a_known_score_and_its_files(tmp_path):
    report = evaluate(benchmark(*CHAINS), walker, options(tmp_path, where="here"))
    assert report["avg_seq_len"] == pytest.approx((2 + 1 + 0 + 2) / 4)
    assert report["chain_sr"] == {"1": 0.75, "2": 0.5}
    on_disk = json.loads((tmp_path / "results.json").read_text())
    assert on_disk["chain_sr"] == report["chain_sr"]
    assert on_disk["environment"]["machine"]
    text = (tmp_path / "results.txt").read_text()
    assert "Avg. Len" in text and "right 9" in text and "line world" in text
    assert "NOT FINISHED" not in text


def test_a_finished_run_is_not_run_again_and_can_be_made_longer(tmp_path):
    first = evaluate(benchmark(*CHAINS[:3]), walker, options(tmp_path, where="here"))
    lines = (tmp_path / "episodes.jsonl").read_bytes()
    again = evaluate(benchmark(*CHAINS[:3], environment=line_world.no_renderer), walker, options(tmp_path))
    assert without_times(again) == without_times(first)
    longer = evaluate(benchmark(*CHAINS), walker, options(tmp_path, where="here"))
    assert (tmp_path / "episodes.jsonl").read_bytes().startswith(lines)
    assert longer["episodes"] == len(CHAINS)
    shorter = evaluate(benchmark(*CHAINS[:3]), walker, options(tmp_path, where="here"))
    assert shorter["chain_sr"] == first["chain_sr"]


def test_another_run_in_the_folder_is_refused(tmp_path):
    evaluate(benchmark(("right 1",)), walker, options(tmp_path, where="here"))
    with pytest.raises(InputError, match=r"rules.max_steps was 5, now 6"):
        evaluate(benchmark(("right 1",), steps=6), walker, options(tmp_path, where="here"))
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "thesis.tex").touch()
    with pytest.raises(InputError, match="is not empty"):
        evaluate(benchmark(("right 1",)), walker, options(tmp_path / "other"))


def test_a_killed_run_goes_on_where_it_was(tmp_path):
    """SIGKILL in the middle; what was finished is kept, a half-written line is dropped, the result is the same."""
    program = (
        "from pathlib import Path; import sys, time; sys.path.insert(0, sys.argv[1]); import line_world\n"
        "from omnistream_sim.evaluation.run import RunOptions, evaluate\n"
        "class Slow(line_world.Drunkard):\n"
        "    def __call__(self, *a):\n"
        "        time.sleep(0.05); return super().__call__(*a)\n"
        "Slow.__qualname__ = 'Drunkard'\n"
        f"evaluate(line_world.benchmark(*{CHAINS!r}), Slow, RunOptions(out=Path(sys.argv[2]), where='here'))\n"
    )
    out = tmp_path / "run"
    process = subprocess.Popen([sys.executable, "-c", program, str(Path(line_world.__file__).parent), str(out)])
    lines = out / "episodes.jsonl"
    while not lines.exists() or lines.read_bytes().count(b"\n") < 2:
        assert process.poll() is None
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
    kept = lines.read_bytes()
    assert 2 <= kept.count(b"\n") < len(CHAINS)
    with lines.open("ab") as file:
        file.write(kept[:40])
    report = evaluate(benchmark(*CHAINS), line_world.Drunkard, options(out, where="here"))
    assert lines.read_bytes().startswith(kept)
    whole = evaluate(benchmark(*CHAINS), line_world.Drunkard, options(tmp_path / "whole", where="here"))
    assert without_times(report) == without_times(whole)


def test_a_crash_is_tried_again_then_reported_and_the_rest_is_done(tmp_path):
    chains = [("right 1",), ("crash once",), ("crash",), ("right 2",), ("raise",)]
    report = evaluate(
        benchmark(*chains, environment=partial(LineWorld, str(tmp_path))), walker, options(tmp_path / "run", 2)
    )
    assert report["episodes"] == 3
    assert set(report["not_finished"]) == {"2", "4"}
    assert "SIGKILL in episode 2" in report["not_finished"]["2"]
    assert report["not_finished"]["4"] == "the simulator lost its renderer"
    assert "3 of 5 episodes" in table(report)


def test_a_hang_costs_its_time_limit(tmp_path):
    begin = time.monotonic()
    report = evaluate(
        benchmark(("hang once",), ("right 1",), environment=partial(LineWorld, str(tmp_path))),
        walker,
        options(tmp_path / "run", 1, hang_s=12.0),
    )
    assert report["episodes"] == 2
    assert time.monotonic() - begin < 60


def test_no_simulator_is_one_clear_message(tmp_path):
    with pytest.raises(EvaluationError, match="worker 0 ended with 1 at its start: no renderer: install libegl1"):
        evaluate(benchmark(("right 1",), environment=line_world.no_renderer), walker, options(tmp_path))
    assert evaluate(benchmark(("right 1",)), walker, options(tmp_path))["episodes"] == 1  # once that was mended


def test_a_crash_is_told_by_what_its_own_worker_said(tmp_path):
    """Not by the last line of a log of an earlier run."""
    with pytest.raises(EvaluationError, match="no renderer"):
        evaluate(benchmark(("crash",), environment=line_world.no_renderer), walker, options(tmp_path))
    with pytest.raises(EvaluationError, match="SIGKILL in episode 0: it said nothing"):
        evaluate(benchmark(("crash",)), walker, options(tmp_path, retries=0))


def test_an_episode_that_raised_costs_its_worker_too(tmp_path):
    """A CUDA error, say, makes a process useless: it must not eat the episodes that others could run."""
    chains = [("right 1",), ("break",), ("right 2",), ("right 3",)]
    report = evaluate(benchmark(*chains), walker, options(tmp_path))
    assert set(report["not_finished"]) == {"1"} and report["episodes"] == 3


def test_the_last_episodes_of_a_run_may_fail_without_taking_its_report(tmp_path):
    chains = [("right 1",)] * 2 + [("raise",)] * 3
    evaluate(benchmark(*chains[:2]), walker, options(tmp_path, where="here"))
    report = evaluate(benchmark(*chains), walker, options(tmp_path, where="here"))
    assert report["episodes"] == 2 and set(report["not_finished"]) == {"2", "3", "4"}


def test_what_an_evaluation_costs_includes_its_films_and_checks(tmp_path):
    pytest.importorskip("av")
    filmed = RunOptions(out=tmp_path, where="here", videos=1)
    report = evaluate(benchmark(("right 3",), environment=line_world.Checked), walker, filmed)
    seconds = json.loads((tmp_path / "episodes.jsonl").read_text())["timing"]["seconds"]
    assert seconds["checks"] >= 3 * line_world.Checked.SECONDS and seconds["simulator"] < seconds["checks"]
    assert report["timings"]["share_outside"] > 0.5


def test_a_policy_that_never_works_stops_the_run(tmp_path):
    with pytest.raises(EvaluationError, match="no episode could be run.*the simulator lost"):
        evaluate(benchmark(*[("raise",)] * 50), walker, options(tmp_path, where="here"))


def test_a_full_disk_loses_no_finished_episode(tmp_path, monkeypatch):
    evaluate(benchmark(*CHAINS[:2]), walker, options(tmp_path, where="here"))
    kept = (tmp_path / "episodes.jsonl").read_bytes()

    def full(number):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(EvaluationError, match="No space left on device; 2 finished episodes are kept"):
        evaluate(benchmark(*CHAINS), walker, options(tmp_path, where="here"))
    assert (tmp_path / "episodes.jsonl").read_bytes() == kept


def test_a_disk_that_fills_up_is_one_clear_message_and_the_run_goes_on_later(tmp_path):
    """The write itself fails, in the middle of a line; what was finished stays, and with room it is finished."""
    program = (
        "from pathlib import Path; import sys; sys.path.insert(0, sys.argv[1]); import line_world\n"
        "from omnistream_sim.evaluation.run import RunOptions, evaluate\n"
        f"chains = {CHAINS!r}\n"
        "out = Path(sys.argv[2])\n"
        "evaluate(line_world.benchmark(*chains[:2]), line_world.Drunkard, RunOptions(out=out, where='here'))\n"
        "line_world.NoRoom((out / 'episodes.jsonl').stat().st_size + 100)\n"
        "evaluate(line_world.benchmark(*chains), line_world.Drunkard, RunOptions(out=out, where='here'))\n"
    )
    out = tmp_path / "run"
    done = subprocess.run(
        [sys.executable, "-c", program, str(Path(line_world.__file__).parent), str(out)], capture_output=True, text=True
    )
    assert done.returncode != 0
    assert "2 finished episodes are kept. Make room, then run it again" in done.stderr
    kept = (out / "episodes.jsonl").read_bytes()
    assert kept.count(b"\n") == 2 and kept.endswith(b"\n")
    report = evaluate(benchmark(*CHAINS), line_world.Drunkard, options(out, where="here"))
    assert report["episodes"] == len(CHAINS)
    assert (out / "episodes.jsonl").read_bytes().startswith(kept)


def test_no_room_for_films_costs_no_episode(tmp_path, capfd):
    pytest.importorskip("av")
    full = RunOptions(out=tmp_path / "full", videos=2, pool=PoolOptions())
    report = evaluate(benchmark(*CHAINS[:3], environment=partial(line_world.NoRoom, 900)), walker, full)
    assert report["episodes"] == 3 and not report["not_finished"]
    assert "no film of episode 0" in capfd.readouterr().err
    assert list((tmp_path / "full").glob("videos/*")) == []
    roomy = evaluate(benchmark(*CHAINS[:3]), walker, options(tmp_path / "roomy"))
    assert report["digests"] == roomy["digests"]


def test_a_simulator_that_quits_is_one_clear_message(tmp_path):
    with pytest.raises(EvaluationError, match=r"worker 0 ended with 0 at its start: Plugin Failed to load!"):
        evaluate(benchmark(("right 1",), environment=line_world.quits), walker, options(tmp_path))


def test_a_damaged_line_is_named(tmp_path):
    evaluate(benchmark(*CHAINS[:2]), walker, options(tmp_path, where="here"))
    path = tmp_path / "episodes.jsonl"
    first, second = path.read_text().splitlines()
    path.write_text(f"{first[:50]}\n{second}\n")
    with pytest.raises(InputError, match="line 1 is damaged"):
        Store(tmp_path, json.loads((tmp_path / "run.json").read_text())["run"])


@pytest.mark.parametrize("name", ["nowhere", "line_world:nobody", "line_world:os.nope", "no_module:x"])
def test_an_unknown_policy_is_named(tmp_path, name):
    with pytest.raises(ConfigError, match=name):
        evaluate(benchmark(("right 1",)), name, options(tmp_path, where="here"))


def test_films_and_sheet(tmp_path):
    av = pytest.importorskip("av")
    films = RunOptions(out=tmp_path, where="here", videos=2)
    evaluate(benchmark(*CHAINS[:3]), walker, films)
    names = sorted(path.name for path in (tmp_path / "videos").iterdir())
    assert names == ["episode_00000.mp4", "episode_00001.mp4"]
    with av.open(str(tmp_path / "videos" / names[0])) as container:
        assert sum(1 for _ in container.decode(video=0)) == (1 + 1) + (2 + 1)  # every step's picture, and the last
    assert (tmp_path / "sheet.png").stat().st_size > 1000


def test_the_live_line_knows_how_long_it_takes():
    line = LiveLine(10, 2, "chains", io.StringIO())
    assert line.line(2, "", 0.0) == "[####................] 2/10 chains, 0.0 steps/s, ? left"
    assert line.line(6, "Avg. Len 1.50", 60.0).endswith("6/10 chains, Avg. Len 1.50, 0.0 steps/s, 1:00 left")


def two_loops_beside_one() -> float:
    """What the machine can give: rounds of two processes in two seconds, over those of one."""
    program = "import time\nend, n = time.monotonic() + 2, 0\nwhile time.monotonic() < end: n += 1\nprint(n)"
    rounds = []
    for count in (1, 2):
        loops = [subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE) for _ in range(count)]
        rounds.append(sum(int(loop.communicate()[0]) for loop in loops))
    return rounds[1] / rounds[0]


@pytest.mark.slow
def test_two_workers_take_half_the_time(tmp_path):
    """On two free cores, from the moment that the first worker is ready."""
    if (free := two_loops_beside_one()) < 1.9:
        pytest.skip(f"needs two free cores: two loops that share nothing do {free:.2f} times what one does")
    work = benchmark(*[("right 99",)] * 8, steps=60, environment=line_world.Heavy)
    rates = []
    for workers in (1, 2):
        (tmp_path / str(workers)).mkdir()
        told = Work(work.environment, partial(make_policy, "line_world:walker"), work.rules, 0, tmp_path / str(workers))
        ready = finished = steps = 0.0
        for event in run_pool(told, work.episodes, PoolOptions(workers=workers)):
            if isinstance(event, Ready):
                ready = ready or time.monotonic()
            elif isinstance(event, Finished):
                finished, steps = time.monotonic(), steps + 60
        rates.append(steps / (finished - ready))
    assert rates[1] / rates[0] >= 1.8


@pytest.mark.slow
def test_with_ray_a_hang_costs_its_time_limit(tmp_path):
    pytest.importorskip("ray", reason='pip install "omnistream[ray]"')
    world = partial(LineWorld, str(tmp_path))
    report = evaluate(
        benchmark(("hang once",), ("right 1",), environment=world),
        walker,
        options(tmp_path / "run", 1, where="ray", hang_s=15.0),
    )
    assert report["episodes"] == 2 and not report["not_finished"]


@pytest.mark.slow
def test_with_ray_workers_that_never_start_are_one_clear_message(tmp_path):
    pytest.importorskip("ray", reason='pip install "omnistream[ray]"')
    with pytest.raises(EvaluationError, match=r"did not start within .*; the cluster has \d+ CPUs, a worker needs 999"):
        evaluate(benchmark(("right 1",)), walker, options(tmp_path, where="ray", hang_s=5.0, threads=999))


@pytest.mark.slow
def test_with_ray_the_same_results(tmp_path):
    pytest.importorskip("ray", reason='pip install "omnistream[ray]"')
    ours = evaluate(benchmark(*CHAINS), "line_world:Drunkard", options(tmp_path / "here", where="here"))
    rays = evaluate(benchmark(*CHAINS), "line_world:Drunkard", options(tmp_path / "ray", 2, where="ray"))
    assert without_times(ours) == without_times(rays)


@pytest.mark.slow
def test_with_ray_a_crash_is_tried_again_and_reported(tmp_path):
    pytest.importorskip("ray", reason='pip install "omnistream[ray]"')
    chains = [("right 1",), ("crash once",), ("crash",), ("raise",)]
    world = partial(LineWorld, str(tmp_path))
    report = evaluate(benchmark(*chains, environment=world), walker, options(tmp_path / "run", 1, where="ray"))
    assert report["episodes"] == 2
    assert set(report["not_finished"]) == {"2", "3"}
