# SPDX-License-Identifier: Apache-2.0
"""One exit code for each cause, and one sentence, for every command on recordings."""

from __future__ import annotations

import sys

import pytest

from omnistream.cli.exits import Exits
from omnistream.errors import CheckpointError, ConfigError, ContractError, EngineError, InputError, OptionError
from omnistream.io.extras import MissingExtra


@pytest.mark.parametrize(
    ("raised", "code", "said"),
    [
        (ConfigError("--rate is 0"), 2, "--rate is 0"),
        (OptionError("--topic is missing"), 2, "--topic is missing"),  # an InputError too
        (InputError("a.mp4 is no video"), 3, "a.mp4 is no video"),
        (CheckpointError("weights are damaged"), 4, "weights are damaged"),
        (ContractError("contracts differ"), 4, "contracts differ"),
        (EngineError("no CUDA"), 5, "no CUDA"),
        (MissingExtra("video needs av"), 5, "video needs av"),  # an InputError too
        (RuntimeError("CUDA error: device lost\nadvice"), 5, "cannot run here: CUDA error: device lost"),
        (MemoryError(), 5, "cannot run here: MemoryError"),
        (OSError("no space left"), 6, "out: no space left"),
        (BrokenPipeError(), 6, "standard output was closed by its reader"),
        (KeyboardInterrupt(), 130, "interrupted"),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, BaseException) else "",
)
def test_each_cause_has_its_code(
    raised: BaseException, code: int, said: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def command() -> int:
        raise raised

    monkeypatch.setattr(sys, "stdout", sys.stdout)  # a closed one is replaced
    assert Exits("omnistream-x").run(command, "out") == code
    assert capsys.readouterr().err == f"omnistream-x: {said}\n"


def test_what_a_command_returns_and_what_nobody_foresaw_pass_through() -> None:
    assert Exits("omnistream-x").run(lambda: 1) == 1
    with pytest.raises(ZeroDivisionError):
        Exits("omnistream-x").run(lambda: 1 // 0)
