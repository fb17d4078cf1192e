# SPDX-License-Identifier: Apache-2.0
"""One sequence: predictors that know the answer get no error, prefixes are honest, and damage is named."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from omnistream.engines.select import make_engine
from omnistream.errors import InputError
from omnistream.io.frames import Frame
from omnistream.model.omnistream import OmniStream
from omnistream_training.evaluation.findings import Findings, summary
from omnistream_training.evaluation.folders import folder_sequences
from omnistream_training.evaluation.predict import (
    FramePrediction,
    StreamPredictor,
    Track,
    read_frames,
    resize_bicubic,
    run_sequence,
)
from omnistream_training.evaluation.protocols import RECORDINGS, TABLETOP, InputRule, PoseRule
from omnistream_training.evaluation.score import score


class Oracle:
    """Gives the reference back, changed as told."""

    name = "oracle"

    def __init__(self, factor: float = 1.0, pose_factor: float = 1.0, broken_from: int = 1 << 30) -> None:
        self.factor, self.pose_factor, self.broken_from = factor, pose_factor, broken_from
        self.started: list[tuple[str, int]] = []

    def start(self, sequence: str, frames: int) -> None:
        self.started.append((sequence, frames))

    def step(self, frame: Frame) -> FramePrediction:
        depth = np.nan_to_num(frame.depth, nan=9.0) * np.float32(self.factor)
        if frame.index >= self.broken_from:
            depth[10, 10] = np.nan
        pose = frame.T_world_camera.copy()
        pose[:3, 3] *= self.pose_factor
        return FramePrediction(depth, pose, 2.0)


def run(folder, predictor, protocol=RECORDINGS, frames=8, on_error="stop", strict=False) -> tuple[Track, Findings]:
    findings = Findings("a", on_error, strict)
    ref = folder_sequences(folder, protocol)[0]
    return run_sequence(ref, protocol, predictor, findings, frames=frames), findings


def test_the_answer_itself_has_no_error(data):
    oracle = Oracle(factor=0.5, pose_factor=3.0)
    track, findings = run(data, oracle)
    assert oracle.started == [("a", 8)] and len(track) == 8
    found = score(track, RECORDINGS, 8, findings)
    assert found["frames"] == 8 and found["depth"]["pixels"] == 8 * (48 * 64 - 16)
    assert found["depth"]["abs_rel"] == pytest.approx(0, abs=1e-6) and found["depth"]["scale"] == pytest.approx(2)
    assert found["pose"]["ate"] == pytest.approx(0, abs=1e-8) and found["pose"]["scale"] == pytest.approx(1 / 3)
    assert found["pose"]["fov_error"] == 2.0 and found["pose"]["poses"] == 8
    assert not findings.list


def test_without_alignment_a_factor_is_an_error(data):
    found = score(run(data, Oracle(factor=1.1))[0], RECORDINGS.aligned("metric"), 8, Findings("a", "stop"))
    assert found["depth"]["abs_rel"] == pytest.approx(0.1, abs=1e-5) and found["depth"]["delta1"] == 1
    found = score(run(data, Oracle(factor=1.3))[0], RECORDINGS.aligned("metric"), 8, Findings("a", "stop"))
    assert found["depth"]["delta1"] == 0 and found["depth"]["delta2"] == 1


def test_clip_and_range(data):
    depth = dataclasses.replace(RECORDINGS.depth, alignment="metric", max_depth=2.0, clip=2.2)
    protocol = dataclasses.replace(RECORDINGS, depth=depth)
    track, findings = run(data, Oracle(factor=10.0), protocol)
    assert max(values.max() for values in track.reference) < 2.0
    found = score(track, protocol, 8, findings)["depth"]
    assert found["rmse"] < 1.0  # 10 x 2 m would be far off; the clip holds it at 2.2 m


def test_the_first_frames_of_a_track_are_the_track_of_the_first_frames(data, model):
    def predictor() -> StreamPredictor:
        want = frozenset({"depth", "pose"})
        engine = make_engine(model, "auto", "cpu", "float32")
        return StreamPredictor(model, engine, policy="sink_window:1,3", rule=InputRule(), want=want)

    long, findings = run(data, predictor())
    short, _ = run(data, predictor(), frames=5)
    assert len(short) == 5
    a, b = (score(track, RECORDINGS, 5, findings) for track in (long, short))
    for part in ("depth", "pose"):
        assert a[part] == pytest.approx(b[part], rel=1e-6), part
    assert a != score(long, RECORDINGS, 8, findings)


def test_frame_by_frame_forgets_and_full_remembers(data, model):
    engine = make_engine(model, "auto", "cpu", "float32")
    want, tracks = frozenset({"depth"}), {}
    for policy, alone in (("window:1", True), ("window:1", False), ("full", False)):
        predictor = StreamPredictor(
            model, engine, policy=policy, rule=InputRule(long_side=64), want=want, frame_by_frame=alone
        )
        tracks[predictor.name] = run(data, predictor)[0]
    assert list(tracks) == ["frame by frame", "window:1", "full"]
    first = [track.predicted[0] for track in tracks.values()]
    np.testing.assert_allclose(first[0], first[2], rtol=1e-5)
    last = [track.predicted[-1] for track in tracks.values()]
    assert np.abs(last[0] - last[2]).max() > 1e-6  # with memory the same frame gives another depth
    assert all(pose is None for pose in tracks["frame by frame"].poses)


@pytest.mark.parametrize(
    ("lens", "known_lens", "guessed"), [("guessed", True, True), ("known", False, True), ("known", True, False)]
)
def test_the_field_of_view_is_scored_where_it_is_guessed(data, model, lens, known_lens, guessed):
    """One that was told has no error to be proud of."""
    other = OmniStream(dataclasses.replace(model.config, lens=lens)).eval()
    other.load_state_dict(model.state_dict())
    predictor = StreamPredictor(
        other,
        make_engine(other, "torch", "cpu", "float32"),
        policy="window:2",
        rule=InputRule(),
        want=frozenset({"depth", "pose"}),
        known_lens=known_lens,
    )
    track, findings = run(data, predictor, frames=4)
    error = score(track, RECORDINGS, 4, findings)["pose"]["fov_error"]
    assert (error is not None and error > 0) == guessed


def test_a_prediction_that_is_not_finite_stops_or_counts(data):
    track, findings = run(data, Oracle(broken_from=6), on_error="skip")
    assert score(track, RECORDINGS, 5, findings)["depth"] is not None and not findings.list
    assert score(track, RECORDINGS, 8, findings)["depth"] is None
    assert [finding.kind for finding in findings.list] == ["prediction"] and "2 of" in findings.list[0].message
    with pytest.raises(InputError, match="a: 2 of .* predicted depths are not finite"):
        score(track, RECORDINGS, 8, Findings("a", "stop"))


def test_a_predictor_that_does_not_move_is_dropped_or_scored_as_such(data):
    track, _ = run(data, Oracle(pose_factor=0.0))
    findings = Findings("a", "stop")
    assert score(track, RECORDINGS, 8, findings)["pose"] is None
    assert [finding.kind for finding in findings.list] == ["degenerate"]
    strict = RECORDINGS.made_strict()
    found = score(track, strict, 8, Findings("a", "stop", strict=True))["pose"]
    assert found["ate"] > 0.05 and found["scale"] == 0.0


def test_short_paths_are_left_out_and_in_strict_mode_refused(data):
    track, _ = run(data, Oracle())
    findings = Findings("a", "stop")
    assert score(track, TABLETOP.aligned("scale"), 8, findings)["pose"] is None
    assert "the camera moves 0.35" in findings.list[0].message or "at least 1 m" in findings.list[0].message
    with pytest.raises(InputError, match="2 reference poses; at least 3"):
        score(track, RECORDINGS.made_strict(), 2, Findings("a", "stop", strict=True))


def test_the_least_path_is_asked_of_all_frames_that_are_used(data):
    track, found = run(data, Oracle())
    rules = dataclasses.replace(TABLETOP.aligned("scale"), pose=PoseRule(min_path=0.3))
    for frames in (4, 8):  # 0.35 m in 8 frames, 0.15 m in 4: the same sequences count at both
        assert score(track, rules, frames, found)["pose"]["path"] == pytest.approx(0.05 * (frames - 1), rel=0.02)
    track.poses, track.reference_poses = track.poses[:4], track.reference_poses[:4]
    assert score(track, rules, 4, Findings("a", "skip"))["pose"] is None


def test_frames_of_a_folder_follow_the_protocol(data):
    protocol = dataclasses.replace(RECORDINGS, start=1, stride=3, count=2)
    ref = folder_sequences(data, protocol)[1]
    assert [frame.index for frame in read_frames(ref, protocol, Findings("b", "stop"))] == [1, 4]


def test_a_depth_map_without_any_value_is_named(data):
    from PIL import Image

    Image.fromarray(np.zeros((48, 64), np.uint16)).save(data / "a" / "depth" / "000002.png")
    with pytest.raises(InputError, match=r"a: 000002\.png: its depth has no finite value"):
        run(data, Oracle())
    (data / "a" / "depth" / "000002.png").unlink()
    assert score(run(data, _NoDepth())[0], RECORDINGS, 8, Findings("a", "stop"))["depth"]["pixels"] == 7 * 3056


class _NoDepth(Oracle):
    def step(self, frame: Frame) -> FramePrediction:
        return FramePrediction(np.ones((6, 8), np.float32), frame.T_world_camera)


def test_bicubic_keeps_constants_and_ramps():
    np.testing.assert_allclose(resize_bicubic(np.full((5, 7), 2.5, np.float32), (20, 21)), 2.5, rtol=1e-6)
    ramp = np.tile(np.arange(16, dtype=np.float32), (4, 1))
    out = resize_bicubic(ramp, (4, 64))
    expected = (np.arange(64) + 0.5) / 4 - 0.5  # pixel edges on pixel edges
    np.testing.assert_allclose(out[1, 10:-10], expected[10:-10], atol=0.05)
    assert resize_bicubic(ramp, (4, 16)) is ramp


def test_summary_counts_by_kind_and_once():
    findings = Findings("a", "skip")
    findings.add("frame", "x.png: broken")
    findings.add("frame", "x.png: broken")
    findings.add("short", "8 frames; 16 were asked for")
    found = summary(findings.list)
    assert found["counts"]["frame"] == 1 and found["counts"]["short"] == 1 and found["counts"]["depth"] == 0
    assert set(found["meaning"]) == {"frame", "short"} and len(found["list"]) == 2
