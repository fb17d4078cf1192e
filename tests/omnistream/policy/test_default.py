# SPDX-License-Identifier: Apache-2.0
"""The word `default` where a policy is named."""

from __future__ import annotations

from pathlib import Path

import pytest

import omnistream.policy
from omnistream.errors import CheckpointError
from omnistream.policy import default
from omnistream.policy.checkpoint import LoadedPolicy, load_policy, save_policy


def test_the_word_means_the_shipped_one_and_a_folder_of_that_name_is_spelt_out(
    policy: LoadedPolicy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shipped = save_policy(policy, tmp_path / "shipped")
    monkeypatch.setattr(default, "DEFAULT_POLICY", shipped)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "default").mkdir()
    assert load_policy("default").path == shipped == omnistream.policy.default_policy()
    assert load_policy(Path("shipped")).path == Path("shipped")
    with pytest.raises(CheckpointError, match=r"default/policy.json does not exist"):
        load_policy("./default")


def test_without_a_shipped_one_the_command_that_makes_it_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(default, "DEFAULT_POLICY", tmp_path / "nothing")
    with pytest.raises(CheckpointError, match=r"nothing does not exist.*make policy-default"):
        load_policy("default")
