# SPDX-License-Identifier: Apache-2.0
"""The word `default` where a policy is named."""

from __future__ import annotations

from pathlib import Path

import pytest

import omnistream.policy
from omnistream.errors import CheckpointError, ConfigError, ContractError
from omnistream.model.omnistream import OmniStream
from omnistream.policy import default, opening
from omnistream.policy.checkpoint import LoadedPolicy, load_policy, save_policy
from omnistream.policy.settings import DEFAULTS


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


def test_a_node_takes_the_default_weights_where_the_policy_was_trained_on_them(
    policy: LoadedPolicy, backbone: OmniStream, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert DEFAULTS["weights"] == "default"
    with pytest.raises(ContractError, match=r"the default \(.*\) is .*; load that backbone"):
        opening.open_session(policy, DEFAULTS)  # random weights, or shipped ones: not those of this test
    monkeypatch.setattr(opening, "default_model", lambda: (backbone, "those of this test"))
    assert opening.open_session(policy, DEFAULTS).frames_seen == 0
    with pytest.raises(ConfigError, match="weights is empty; expected .*'default'"):
        opening.open_session(policy, DEFAULTS | {"weights": ""})
