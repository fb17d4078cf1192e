# SPDX-License-Identifier: Apache-2.0
"""The word `default` where a policy is named: the one that is shipped, trained on the shipped default weights."""

from __future__ import annotations

from pathlib import Path

from omnistream.errors import CheckpointError

DEFAULT = "default"
DEFAULT_POLICY = Path(__file__).resolve().parent.parent / "assets" / "default_policy"


def default_policy() -> Path:
    """The shipped policy's folder; CheckpointError, with the command that makes one, where none is shipped."""
    if not DEFAULT_POLICY.is_dir():
        raise CheckpointError(
            f"no default policy is shipped with this version ({DEFAULT_POLICY} does not exist); name a folder, or make "
            "one: make policy-default"
        )
    return DEFAULT_POLICY


def policy_folder(named: str | Path) -> Path:
    """The folder that `named` means: the shipped policy's for the word `default`, else itself, ~ expanded.

    A folder that has this very name is written ./default. CheckpointError where there is no default policy.
    """
    from omnistream.weights.files import home_expanded  # loads torch, which who starts nodes does not wait for

    return default_policy() if named == DEFAULT else home_expanded(named)
