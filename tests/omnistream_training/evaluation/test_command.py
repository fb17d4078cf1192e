# SPDX-License-Identifier: Apache-2.0
"""`omnistream-eval` as a user meets it: from a folder and a checkpoint to a table, a report and pictures."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path

import pytest
from PIL import Image

from omnistream.io.tum_folder import LIST
from omnistream.model.config import BackboneConfig, HeadConfig, ModelConfig
from omnistream.weights import random_model, save_model
from omnistream_training.evaluation.cli import main
from omnistream_training.evaluation.folders import folder_sequences
from omnistream_training.evaluation.protocols import RECORDINGS

CPU = ("--device", "cpu", "--dtype", "float32")


def geometry(data: Path, out: Path, weights: Path, *more: str) -> int:
    return main(["geometry", str(data), "--out", str(out), "--weights", str(weights), *CPU, *more])


def test_a_data_set_from_command_to_report(data, weights, tmp_path, capsys):
    out = tmp_path / "out"
    arguments = ("--policy", "window:2", "full", "--frames", "4", "8")
    assert geometry(data, out, weights, *arguments) == 0
    text = capsys.readouterr().out
    report = json.loads((out / "results.json").read_text())
    methods = [row["method"] for row in report["rows"] if row["frames"] == 8]
    assert methods == [
        "window:2",
        "full",
        "frame by frame",
        "mean depth map (other sequences)",
        "best constant for AbsRel, per sequence",
        "best constant for delta, per sequence",
        "straight line",
        "standing still",
    ]
    for name in methods:
        assert name in text
    rows = {(row["method"], row["frames"]): row for row in report["rows"]}
    # In a window of 2 and in a full cache the first two frames see the same; by frame 8 they do not.
    assert rows["window:2", 8]["depth"] != rows["full", 8]["depth"]
    assert report["model"]["scale"] == "relative" and "float32" in report["model"]["engine"]
    assert report["environment"]["machine"]["cores usable"] and report["environment"]["software"]["omnistream"]
    assert report["options"]["policy"] == ["window:2", "full"] and report["findings"]["list"] == []
    assert "per-sequence scale_exact" in " ".join(text.split())
    with Image.open(out / "plots" / "depth_a.png") as picture:
        assert picture.width > 4 * 300
    if importlib.util.find_spec("matplotlib"):
        assert (out / "plots" / "paths.png").stat().st_size > 5000
        assert (out / "plots" / "lengths.png").stat().st_size > 5000
    before = {path: path.stat().st_mtime_ns for path in (out / "sequences").rglob("*.*")}
    assert geometry(data, out, weights, *arguments) == 0
    assert before == {path: path.stat().st_mtime_ns for path in (out / "sequences").rglob("*.*")}


def test_one_recording_strict_and_without_the_extra_runs(data, weights, tmp_path, capsys):
    out = tmp_path / "out"
    assert geometry(data / "b", out, weights, "--strict", "--no-frame-by-frame", "--pictures", "0") == 0
    report = json.loads((out / "results.json").read_text())
    assert report["protocol"]["strict"] and "STRICT" in capsys.readouterr().out
    assert not any("frame by frame" in row["method"] or "map" in row["method"] for row in report["rows"])
    assert not list((out / "plots").glob("depth*"))


def test_exit_codes_and_one_line_errors(data, weights, tmp_path, capsys):
    out = tmp_path / "out"

    def fails(code: int, words: str, *arguments: object) -> None:
        assert main([str(argument) for argument in arguments]) == code
        error = capsys.readouterr().err
        assert words in error and "Traceback" not in error and error.startswith("omnistream-eval: "), error

    base = ("geometry", data, "--out", out, "--weights", weights)
    fails(2, "protocol 'nyu' is unknown", *base, "--protocol", "nyu")
    fails(2, "compares metric depth, but the checkpoint's scale is relative", *base, "--protocol", "tabletop")
    fails(2, "cache policy 'best' is not understood", *base, "--policy", "best")
    fails(2, "at least 2 each", *base, "--frames", "1")
    fails(2, "has at most 110 frames", *base, "--protocol", "bonn-depth", "--frames", "200")
    fails(3, "does not exist; expected a recording", "geometry", data / "x", "--out", out, "--weights", weights)
    fails(3, "rgbd_bonn_balloon2", *base, "--protocol", "bonn-depth")
    fails(4, "nothing", "geometry", data, "--out", out, "--weights", tmp_path / "nothing")
    (data / "a" / "depth" / "000001.png").write_bytes(b"png?")
    fails(3, "000001.png: cannot be read as a depth image", *base)
    (tmp_path / "file").write_text("")
    (data / "a" / "depth" / "000001.png").unlink()
    fails(6, "file", "geometry", data, "--out", tmp_path / "file" / "out", "--weights", weights)
    with pytest.raises(SystemExit) as stop:
        main(["geometry"])
    assert stop.value.code == 2


def test_skipped_damage_is_counted_in_table_and_report(data, weights, tmp_path, capsys):
    (data / "a" / "depth" / "000001.png").write_bytes(b"png?")
    (data / "b" / "recording.yaml").write_text("format: something else\n")
    (data / "c" / "rgb" / "000004.png").unlink()
    (data / "c" / "stamps.txt").unlink()
    assert geometry(data, tmp_path / "out", weights, "--on-error", "skip", "--no-frame-by-frame") == 0
    text = capsys.readouterr().out
    assert "cannot be opened: 1" in text and "recording.yaml: not a recording" in text
    assert "000001.png" in text and "1 frame(s) missing between 000003.png and 000005.png" in text
    counts = json.loads((tmp_path / "out" / "results.json").read_text())["findings"]["counts"]
    assert counts["sequence"] == 1 and counts["frame"] == 2


def test_check(data, tmp_path, capsys):
    assert main(["check", str(data), "--out", str(tmp_path / "check")]) == 0
    text = capsys.readouterr().out
    assert "64x48" in text and "nothing was damaged" in text and "1.28..2.98" in text
    (data / "b" / "rgb" / "000002.png").write_bytes(b"")
    assert main(["check", str(data), "--out", str(tmp_path / "check2")]) == 1
    assert "000002.png" in capsys.readouterr().out


def test_depth_map_of_a_training_set_is_a_baseline(data, weights, tmp_path, write_recording, capsys):
    train = write_recording(tmp_path / "train" / "x", seed=7).parent
    assert main(["depth-map", str(train), "--out", str(tmp_path / "map.npz")]) == 0
    out = tmp_path / "out"
    more = ("--depth-map", str(tmp_path / "map.npz"), "--no-frame-by-frame", "--limit", "2")
    assert geometry(data, out, weights, *more) == 0
    report = json.loads((out / "results.json").read_text())
    assert "mean depth map (training set)" in [row["method"] for row in report["rows"]]
    assert report["data"] == {"path": str(data), "sequences": 2, "limit": 2}


def test_compare_two_policies_of_one_report(data, weights, tmp_path, capsys):
    out = tmp_path / "out"
    assert geometry(data, out, weights, "--policy", "window:2", "full") == 0
    capsys.readouterr()
    sides = ["--a", str(out), "--b", str(out / "results.json"), "--method-a", "full", "--method-b", "window:2"]
    assert main(["compare", *sides, "--out", str(tmp_path / "compare.json")]) == 0
    assert "A - B, 95 % interval" in capsys.readouterr().out
    found = json.loads((tmp_path / "compare.json").read_text())
    assert found["methods"] == ["full", "window:2"] and found["comparison"][0]["sequences"] == 3


def test_two_number_formats_are_held_within_a_per_cent(data, weights, tmp_path, capsys):
    outs = {dtype: tmp_path / dtype for dtype in ("float32", "bfloat16")}
    for dtype, out in outs.items():
        assert geometry(data, out, weights, "--policy", "full", "--no-frame-by-frame", "--dtype", dtype) == 0
    capsys.readouterr()
    sides = ["--a", str(outs["bfloat16"]), "--b", str(outs["float32"]), "--method-a", "full", "--method-b", "full"]
    assert main(["compare", *sides, "--within", "50"]) == 0
    assert "all within 50 %" in capsys.readouterr().out
    assert main(["compare", *sides, "--within", "1e-9"]) == 1
    printed = capsys.readouterr().out
    assert "more than 1e-09 % apart:" in printed and "abs_rel over all frames" in printed


def test_protocols_are_listed_with_their_sources_and_layouts(capsys):
    assert main(["protocols"]) == 0
    text = capsys.readouterr().out
    for words in ("sintel-depth:", "TTT3R, long variant", "training/camdata_left", "omnistream-sim generate"):
        assert words in text


def test_folders_of_all_kinds_are_found(data, tmp_path, write_recording):
    assert [ref.name for ref in folder_sequences(data, RECORDINGS)] == ["a", "b", "c"]
    assert [ref.name for ref in folder_sequences(data / "a", RECORDINGS)] == ["a"]
    tum = tmp_path / "mixed" / "deep" / "tum"
    tum.mkdir(parents=True)
    Image.new("RGB", (8, 8)).save(tum / "0.png")
    (tum / LIST).write_text("0.0 0.png\n")
    kitchen = tmp_path / "mixed" / "kitchen"
    kitchen.mkdir()
    Image.new("RGB", (8, 8)).save(kitchen / "frame-000000.color.png")
    write_recording(tmp_path / "mixed" / "ours", frames=2)
    names = [ref.name for ref in folder_sequences(tmp_path / "mixed", RECORDINGS)]
    assert names == ["deep/tum", "kitchen", "ours"]
    for ref in folder_sequences(tmp_path / "mixed", RECORDINGS):
        assert len(list(ref.open().source)) in (1, 2)


def test_a_metric_checkpoint_is_also_scored_after_scale_alignment(data, tmp_path):
    config = ModelConfig(
        backbone=BackboneConfig(dim=32, depth=4, heads=2),
        heads=HeadConfig(taps=(0, 1, 2, 3), projections=(8, 8, 8, 8), features=8),
        camera_token=True,
        image_size=32,
        scale="metric",
    )
    metric = save_model(random_model(config, seed=1), tmp_path / "metric", made_by="test")
    found = {}
    for name, more in (("metric", ()), ("scale_exact", ("--align", "scale_exact"))):
        assert geometry(data, tmp_path / name, metric, *more, "--pictures", "0", "--limit", "1") == 0
        report = json.loads((tmp_path / name / "results.json").read_text())
        assert report["protocol"]["depth"]["alignment"] == name
        found[name] = {row["method"]: row["depth"]["abs_rel"]["value"] for row in report["rows"] if "depth" in row}
    assert found["scale_exact"]["sink_window:1,15"] < found["metric"]["sink_window:1,15"]
    assert "best constant for AbsRel, per sequence" in found["scale_exact"]


@pytest.mark.realdata
def test_the_red_kitchen_through_the_command(real_data, weights, tmp_path, capsys):
    out = tmp_path / "out"
    assert geometry(real_data / "redkitchen_a", out, weights, "--frames", "16", "--policy", "window:4") == 0
    report = json.loads((out / "results.json").read_text())
    rows = {row["method"]: row for row in report["rows"]}
    for name in ("window:4", "frame by frame", "best constant for AbsRel, per sequence"):
        assert 0 < rows[name]["depth"]["abs_rel"]["value"] < 1
    assert rows["straight line"]["pose"]["ate"]["value"] < rows["standing still"]["pose"]["ate"]["value"] < 0.1
    assert rows["window:4"]["pose"]["fov_error"]["value"] > 0
    survey = report["surveys"][0]
    assert survey["size"] == [480, 640] and survey["depth_frames"] == survey["pose_frames"] == 16
    assert report["findings"]["list"] == []


@pytest.mark.realdata
def test_the_data_check_knows_the_red_kitchen(real_data, tmp_path, capsys):
    assert main(["check", str(real_data / "redkitchen_a"), "--out", str(tmp_path / "out")]) == 0
    line = next(line for line in capsys.readouterr().out.splitlines() if line.startswith("redkitchen_a"))
    assert line.split()[1:4] == ["150", "640x480", "150"]
