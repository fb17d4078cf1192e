# SPDX-License-Identifier: Apache-2.0
"""Our TensorRT code fits the real API of 10.16 and 11.4: the check is run, where its wheels can be downloaded."""

import importlib.util
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

SCRIPT = Path(__file__).parents[2] / "tools" / "verify_tensorrt_api.py"


@pytest.fixture(scope="module")
def tool() -> ModuleType:
    spec = importlib.util.spec_from_file_location("verify_tensorrt_api", SCRIPT)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.slow
def test_our_code_fits_the_real_api() -> None:
    done = subprocess.run([sys.executable, str(SCRIPT)], capture_output=True, text=True, timeout=280)
    if done.returncode == 2:
        pytest.skip(done.stdout.strip())
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.count("fit the API, removed members are found, base classes fit") == 2


def test_the_generators_output_becomes_python(tool: ModuleType) -> None:
    stub = (
        "class A:\n"
        "    def f(self, kind: B = <B.X: 0>) -> bool:\n        ...\n"
        "    def g(self, import: int, None = 3) -> int: ...\n"
        "bool: DataType\nint8: DataType\n"
    )
    repaired = tool.repair(stub)
    compile(repaired, "stub", "exec")
    assert "def f(self, kind: B = ...) -> bool:" in repaired and "bool: DataType" not in repaired
    assert "def g(self, *args: typing.Any, **kwargs: typing.Any) -> typing.Any: ..." in repaired


def test_what_is_missing_is_a_reason_and_no_failure(tool: ModuleType, monkeypatch, capsys, tmp_path) -> None:
    monkeypatch.setattr(tool, "BUILD", tmp_path)
    monkeypatch.setattr(tool, "VERSIONS", {"0.0.0": "no-such-package-of-ours"})
    failed = subprocess.CompletedProcess([], 1, "", "ERROR: no network\n")
    monkeypatch.setattr(tool.subprocess, "run", lambda *_, **__: failed)
    assert tool.main() == 2
    assert (
        "the wheel no-such-package-of-ours==0.0.0 cannot be downloaded (ERROR: no network)" in capsys.readouterr().out
    )
