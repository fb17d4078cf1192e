# SPDX-License-Identifier: Apache-2.0
"""All sequences: what is done stays done, damage is skipped or stops, and the report adds up."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest

from omnistream.cli.report import write_report
from omnistream.errors import InputError
from omnistream.io.frames import Frame
from omnistream_training.evaluation.compare import compare, comparison_text, load_report
from omnistream_training.evaluation.depth_map import (
    load_map,
    other_sequences_map,
    save_map,
    total_map,
    training_map,
)
from omnistream_training.evaluation.predict import FramePrediction
from omnistream_training.evaluation.protocols import RECORDINGS
from omnistream_training.evaluation.results import baseline_scores, build_report
from omnistream_training.evaluation.run import Outcome, Plan, predict_all, survey_all
from omnistream_training.evaluation.survey import ALL
from omnistream_training.evaluation.table import table

METRIC = RECORDINGS.aligned("metric")


class Constant:
    """The same depth everywhere, the reference pose a little off; counts its steps."""

    def __init__(self, name: str, depth: float, noise: float = 0.01, stop_at: str = "") -> None:
        self.name, self.depth, self.noise, self.steps = name, depth, noise, 0
        self.stop_at = stop_at

    def start(self, sequence: str, frames: int) -> None:
        self.stopping = sequence == self.stop_at
        self._rng = np.random.default_rng(0)

    def step(self, frame: Frame) -> FramePrediction:
        self.steps += 1
        if self.stopping:
            raise KeyboardInterrupt
        pose = frame.T_world_camera.copy()
        pose[:3, 3] += self._rng.normal(size=3) * self.noise
        return FramePrediction(np.full((6, 8), self.depth, np.float32), pose)


def plan(data: Path, **changes) -> Plan:
    settings = {"out": data.parent / "out", "protocol": METRIC, "lengths": (4, 8)}
    return Plan(data=data, **{**settings, **changes})


def outcome_of(p: Plan, *predictors: Constant) -> Outcome:
    outcome = survey_all(p)
    predict_all(p, outcome, [(predictor, {"depth": predictor.depth}) for predictor in predictors])
    return outcome


def test_a_second_run_does_nothing_again_and_gives_the_same(data):
    first = Constant("two metres", 2.0)
    a = outcome_of(plan(data), first)
    again = Constant("two metres", 2.0)
    b = outcome_of(plan(data), again)
    assert first.steps == 24 and again.steps == 0
    assert a.scores == b.scores and a.positions == b.positions
    for x, y in zip(a.surveys, b.surveys, strict=True):
        assert (x.frames, x.first_image, x.paths) == (y.frames, y.first_image, y.paths)
        assert x.size == tuple(y.size) and (x.histograms[8].counts == y.histograms[8].counts).all()


def test_a_stopped_run_goes_on_where_it_was(data):
    with pytest.raises(KeyboardInterrupt):
        outcome_of(plan(data), Constant("two metres", 2.0, stop_at="c"))
    rest = Constant("two metres", 2.0)
    outcome_of(plan(data), rest)
    assert rest.steps == 8  # a and b were kept


@pytest.mark.parametrize("change", [{"lengths": (3, 8)}, {"protocol": RECORDINGS}, {"resume": False}])
def test_another_plan_does_not_take_over_old_numbers(data, change):
    outcome_of(plan(data), Constant("two metres", 2.0))
    other = Constant("two metres", 2.0)
    outcome_of(plan(data, **change), other)
    assert other.steps == 24


def test_another_model_under_the_same_name_is_run(data):
    outcome_of(plan(data), Constant("window:1", 2.0))
    other = Constant("window:1", 3.0)
    outcome_of(plan(data), other)
    assert other.steps == 24


def test_a_torn_result_file_is_done_again(data):
    outcome_of(plan(data), Constant("two metres", 2.0))
    for file in (data.parent / "out").rglob("*metres*.json"):
        file.write_text(file.read_text()[:-20])
    for file in (data.parent / "out").rglob("survey*.npz"):
        file.write_bytes(file.read_bytes()[:100])
    other = Constant("two metres", 2.0)
    outcome_of(plan(data), other)
    assert other.steps == 24


def test_damage_stops_or_is_counted(data):
    (data / "a" / "rgb" / "000003.png").write_bytes(b"")
    lines = (data / "b" / "poses.txt").read_text().splitlines()
    (data / "b" / "poses.txt").write_text("\n".join([*lines[:4], lines[4] + " 7", *lines[5:]]) + "\n")
    with pytest.raises(InputError, match=r"000003\.png"):
        survey_all(plan(data))
    found = outcome_of(plan(data, on_error="skip"), Constant("two metres", 2.0))
    assert [s.name for s in found.surveys] == ["a", "c"] and found.surveys[0].frames == 7
    kinds = {(finding.kind, finding.sequence) for finding in found.findings}
    assert kinds == {("frame", "a"), ("short", "a"), ("sequence", "b")}
    message = next(finding.message for finding in found.findings if finding.sequence == "b")
    assert "poses.txt: line 5 is" in message
    report = report_of(found)
    assert report["findings"]["counts"]["sequence"] == 1 and report["findings"]["counts"]["frame"] == 1
    assert "sequences left out because they cannot be opened: 1" in table(report)


def test_nothing_to_evaluate_says_why(data):
    for name in "abc":
        (data / name / "poses.txt").write_text("1 2 3\n")
    with pytest.raises(InputError, match=r"no sequence of .* can be evaluated: .*poses\.txt: line 1"):
        survey_all(plan(data, on_error="skip"))
    (data.parent / "empty").mkdir()
    with pytest.raises(InputError, match="no recordings in .*empty, 3 levels deep; expected recording.yaml"):
        survey_all(plan(data.parent / "empty"))


def report_of(outcome: Outcome, protocol=METRIC, lengths=(4, 8), streamed=("two metres",)) -> dict:
    return build_report(outcome, protocol, lengths, streamed, {"made_by": "test"})


def test_the_report_adds_up_and_is_json(data):
    (data / "a" / "depth" / "000000.png").unlink()  # fewer pixels in a
    outcome = outcome_of(plan(data), Constant("two metres", 2.0), Constant("three metres", 3.0, noise=0.05))
    report = report_of(outcome)
    row = next(row for row in report["rows"] if row["method"] == "two metres" and row["frames"] == 8)
    per = {name: scores[8]["depth"] for name, scores in outcome.scores["two metres"].items()}
    pixels = np.array([per[name]["pixels"] for name in "abc"])
    assert pixels[0] == 7 * 3056 and pixels[1] == 8 * 3056
    expected = np.average([per[name]["abs_rel"] for name in "abc"], weights=pixels)
    assert row["depth"]["abs_rel"]["value"] == pytest.approx(expected)
    assert row["depth"]["sequences"] == 3 and row["protocol"] == METRIC.line
    assert row["depth"]["abs_rel"]["low"] <= expected <= row["depth"]["abs_rel"]["high"]
    ates = [outcome.scores["two metres"][name][8]["pose"]["ate"] for name in "abc"]
    assert row["pose"]["ate"]["value"] == pytest.approx(np.mean(ates))
    strict = report_of(outcome, METRIC.made_strict())
    row = next(row for row in strict["rows"] if row["method"] == "two metres" and row["frames"] == 8)
    assert row["depth"]["abs_rel"]["value"] == pytest.approx(np.mean([per[name]["abs_rel"] for name in "abc"]))
    write_report(data.parent / "results.json", report)
    assert load_report(data.parent / "results.json")["rows"][0]["method"] == "two metres"
    text = table(json.loads((data.parent / "results.json").read_text()))
    flat = " ".join(text.split())
    assert METRIC.line in flat and "two metres minus three metres" in flat and "straight line" in flat


def test_baselines_beat_every_constant_and_stand_beside_the_numbers(data):
    outcome = outcome_of(plan(data), *(Constant(f"{c} m", c) for c in (1.5, 2.0, 2.5)))
    report = report_of(outcome, streamed=("2.0 m",))
    rows = {row["method"]: row for row in report["rows"] if row["frames"] == 8}
    best = rows["best constant for AbsRel, per set"]["depth"]["abs_rel"]["value"]
    most = rows["best constant for delta, per set"]["depth"]["delta1"]["value"]
    for name in ("1.5 m", "2.0 m", "2.5 m"):
        assert rows[name]["depth"]["abs_rel"]["value"] >= best
        assert rows[name]["depth"]["delta1"]["value"] <= most
    assert rows["straight line"]["pose"]["ate_percent"]["value"] > 0
    per_sequence = baseline_scores(outcome.surveys, RECORDINGS, 8)
    assert set(per_sequence) >= {"best constant for AbsRel, per sequence", "straight line", "standing still"}
    differences = {(found["method"], found["minus"]) for found in report["differences"] if found["frames"] == 8}
    assert ("2.0 m", "straight line") in differences and ("2.0 m", "1.5 m") in differences


def test_the_constants_of_a_strict_set_weigh_sequences(data):
    for frame in range(1, 8):
        (data / "c" / "depth" / f"{frame:06d}.png").unlink()  # c has an eighth of the pixels, and is the farthest
    surveys = survey_all(plan(data)).surveys
    constants = [
        baseline_scores(surveys, protocol, 8)["best constant for AbsRel, per set"]["a"]["depth"]["constant"]
        for protocol in (METRIC, METRIC.made_strict())
    ]
    assert constants[0] < constants[1]


def test_mean_depth_maps(data):
    outcome = survey_all(plan(data))
    others = other_sequences_map(outcome.surveys)
    others.start("a", 8)
    frame = Frame(image=np.zeros((48, 64, 3), np.uint8), stamp=0.0, index=0, name="x")
    b_and_c = total_map(outcome.surveys[1:]).mean()
    np.testing.assert_allclose(others.step(frame).depth, b_and_c)
    predict_all(plan(data), outcome, [(others, {"map": others.digest})])
    assert outcome.scores[others.name]["a"][8]["depth"]["abs_rel"] < 0.2
    assert outcome.scores[others.name]["a"][8]["pose"] is None
    save_map(data.parent / "map.npz", total_map(outcome.surveys), "test")
    given = training_map(outcome.surveys, load_map(data.parent / "map.npz"))
    given.start("b", 8)
    np.testing.assert_array_equal(given.step(frame).depth, load_map(data.parent / "map.npz"))
    (data.parent / "map.npz").write_bytes(b"?")
    with pytest.raises(InputError, match="not a depth map"):
        load_map(data.parent / "map.npz")


def test_strict_needs_every_sequence_in_every_mean(data):
    still = plan(data, protocol=METRIC.made_strict())
    (data / "b" / "poses.txt").unlink()
    outcome = outcome_of(still, _NoPose("two metres", 2.0))
    with pytest.raises(InputError, match="strict: pose of 'straight line' has 2 of 3 sequences"):
        report_of(outcome, still.protocol)


class _NoPose(Constant):
    def step(self, frame: Frame) -> FramePrediction:
        return FramePrediction(np.full((6, 8), self.depth, np.float32))


def test_all_frames_when_no_number_is_given(data, write_recording):
    write_recording(data / "d", frames=5, seed=4)
    outcome = outcome_of(plan(data, lengths=(ALL,)), Constant("two metres", 2.0))
    assert [found.frames for found in outcome.surveys] == [8, 8, 8, 5] and not outcome.findings
    assert {row["frames"] for row in report_of(outcome, lengths=(ALL,))["rows"]} == {"all"}
    short = outcome_of(plan(data, lengths=(8,), limit=4), Constant("two metres", 2.0))
    assert [(finding.kind, finding.sequence) for finding in short.findings] == [("short", "d")]


def test_two_reports_are_compared_over_seeds_and_sequences(data):
    def report(depth: float) -> dict:
        outcome = outcome_of(plan(data, resume=False), Constant("x", depth))
        write_report(data.parent / "r.json", report_of(outcome, streamed=("x",)))
        return load_report(data.parent / "r.json")

    better, worse = [report(2.4), report(2.5)], [report(3.4), report(3.5)]
    found = {(row["frames"], row["metric"]): row for row in compare(better, worse, "x", "x")}
    row = found["8", "abs_rel"]
    assert row["difference"]["high"] < 0 and row["excludes_zero"] and row["seeds"] == [2, 2] and row["sequences"] == 3
    assert row["difference"]["value"] == pytest.approx(row["a"] - row["b"])
    assert found["8", "ate"]["difference"]["value"] == pytest.approx(0) and not found["8", "ate"]["excludes_zero"]
    eight = [next(r for r in report["rows"] if (r["method"], r["frames"]) == ("x", 8)) for report in better]
    assert row["a_by_seed"] == pytest.approx([r["depth"]["abs_rel"]["value"] for r in eight])
    assert any("clear" in cells for cells in comparison_text(list(found.values())))
    with pytest.raises(InputError, match="no method 'y' in a report; there are x"):
        compare(better, worse, "x", "y")
    other = {**worse[0], "protocol": {**worse[0]["protocol"], "line": "another"}}
    with pytest.raises(InputError, match="2 protocols"):
        compare(better, [other], "x", "x")
    moved = {**worse[0], "surveys": [{**found, "first_image": "x"} for found in worse[0]["surveys"]]}
    with pytest.raises(InputError, match="shows other pictures"):
        compare(better, [moved], "x", "x")
    (data.parent / "r.json").write_text("{}")
    with pytest.raises(InputError, match="not a report"):
        load_report(data.parent / "r.json")


def test_every_constant_of_a_protocol_is_in_the_report(data):
    report = report_of(outcome_of(plan(data), Constant("two metres", 2.0)))
    assert report["protocol"]["depth"] == dataclasses.asdict(METRIC.depth)
    assert report["surveys"][0]["first_image"] and report["surveys"][0]["depth_frames"] == 8
