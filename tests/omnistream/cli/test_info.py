# SPDX-License-Identifier: Apache-2.0
"""omnistream-info: complete, readable by machines, and of use where things are broken."""

from __future__ import annotations

import json
import sys

import pytest

from omnistream.cli import info
from omnistream.engines.select import ENGINES, engine_report


def test_json_has_every_section(capsys: pytest.CaptureFixture[str]) -> None:
    assert info.main(["--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert {"software", "machine", "torch", "engines"} <= set(report)
    assert report["engines"]["values"]["torch"].startswith("yes")
    assert report["engines"]["values"] == {status.name: str(status) for status in engine_report()}
    assert report["machine"]["values"]["memory GB"] > 0


def test_every_engine_is_told_and_why_not(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    info.main(["--json"])
    told = json.loads(capsys.readouterr().out)["engines"]["values"]
    assert set(told) == set(ENGINES)
    assert told["onnxruntime"].startswith("no: not installed (pip install")


def test_the_ros_section_comes_by_entry_point(capsys: pytest.CaptureFixture[str]) -> None:
    info.main(["--json"])
    assert "rclpy" in json.loads(capsys.readouterr().out)["ros"]["values"]


def test_auto_names_device_and_number_format(capsys: pytest.CaptureFixture[str]) -> None:
    info.main([])
    line = next(line for line in capsys.readouterr().out.splitlines() if line.strip().startswith("auto"))
    assert any(dtype in line for dtype in ("float32", "bfloat16", "float16"))


def test_a_section_that_fails_is_a_problem_not_a_crash(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def broken() -> info.Section:
        raise OSError("libtorch_cpu.so: cannot open shared object file")

    monkeypatch.setattr(info, "torch_section", broken)
    assert info.main([]) == 0
    assert info.main(["--check"]) == 1
    assert "problem: torch could not be examined: OSError: libtorch_cpu.so" in capsys.readouterr().out


def test_a_thread_limit_is_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.sched_getaffinity", lambda _: {0, 1, 2, 3})
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    assert "OMP_NUM_THREADS=1" in info.machine().problems[0]


def test_wrong_usage_is_status_2() -> None:
    with pytest.raises(SystemExit) as stopped:
        info.main(["--jsno"])
    assert stopped.value.code == 2
