# SPDX-License-Identifier: Apache-2.0
"""Units to network and back: known answers, and what is refused."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from omnistream.contract import Contract
from omnistream.errors import ConfigError
from omnistream.policy.scaling import ActionScaling, scaling_from
from tests.omnistream.policy.conftest import statistics


def test_calvins_squeeze_by_hand() -> None:
    """rel_actions are clipped to +-0.65 and stretched to +-1; the gripper's -1 / 1 become 0 / 1 (VLM4VLA)."""
    scaling = ActionScaling(arm=(0, 1), low=(-1, -1), high=(1, 1), grippers=((2, 1.0, -1.0),), squeeze=0.65)
    arm, gripper = scaling.normalise(np.array([[0.325, -0.9, 1.0], [0.0, 0.65, -1.0]]))
    assert arm == pytest.approx(np.array([[0.5, -1], [0, 1]]))
    assert gripper.tolist() == [[1], [0]]
    assert scaling.restore(arm, gripper) == pytest.approx(np.array([[0.325, -0.65, 1], [0, 0.65, -1]]))


def test_quantiles_become_plus_and_minus_one(contract: Contract) -> None:
    contract = dataclasses.replace(contract, action_statistics=statistics(7, -2.0, 4.0))
    scaling = scaling_from(contract, "quantile")
    assert scaling.low == pytest.approx((-1.8,) * 6) and scaling.high == pytest.approx((3.6,) * 6)
    arm, _ = scaling.normalise(np.array([-1.8, 3.6, 0.9, 99, -99, 0, 1]))
    assert arm == pytest.approx([-1, 1, 0, 1, -1, -1 / 3])


def test_the_inverse_gives_back_what_was_not_clipped() -> None:
    scaling = ActionScaling(arm=(1, 2), low=(-3, 0), high=(1, 0.5), grippers=((0, 0.0, 0.8),), squeeze=0.65)
    draw = np.random.default_rng(0)
    actions = np.stack([draw.choice([0.0, 0.8], 50), draw.uniform(-2.3, 0.3, 50), draw.uniform(0.0875, 0.4125, 50)], -1)
    assert scaling.restore(*scaling.normalise(actions)) == pytest.approx(actions, abs=1e-6)
    assert scaling.clipped(actions).tolist() == [0, 0]
    assert scaling.clipped(np.array([[0, 1.0, 0.25], [0, -1, 0.25]])).tolist() == [0.5, 0]


def test_a_dimension_that_hardly_moves_is_refused_by_name(contract: Contract) -> None:
    flat = statistics(7)
    flat = dataclasses.replace(flat, q01=(0.0,) * 7, q99=(1.0, 1.0, 5e-5, 1.0, 1.0, 1.0, 1.0))
    contract = dataclasses.replace(contract, action_statistics=flat)
    with pytest.raises(ConfigError, match="'z' goes from 0 to 5e-05"):
        scaling_from(contract, "quantile")
    assert scaling_from(contract, "quantile", unscaled=("z",)).low[2] == -1
    held = scaling_from(contract, "quantile", still="hold")
    actions = np.array([[0.0, 0.3, 7.0, 0, 0, 0, 1], [0.5, 0.0, 0.0, 0, 0, 0, -1]])
    arm, gripper = held.normalise(actions)
    assert arm[:, 2].tolist() == [0, 0] and held.clipped(actions)[2] == 0
    assert held.restore(arm + 0.5, gripper)[:, 2].tolist() == [0, 0]  # the mean, whatever the network says
    with pytest.raises(ConfigError, match="unscaled names q"):
        scaling_from(contract, "quantile", unscaled=("q",))


def test_none_refuses_actions_that_are_not_scaled(contract: Contract) -> None:
    contract = dataclasses.replace(contract, action_statistics=statistics(7, -3.0, 3.0))
    with pytest.raises(ConfigError, match="'x' goes from -3 to 3; scaling 'none' expects -1 to 1"):
        scaling_from(contract, "none")


def test_none_refuses_metres(contract: Contract) -> None:
    contract = dataclasses.replace(contract, action_statistics=statistics(7, -0.02, 0.02))
    with pytest.raises(ConfigError, match=r"no movement exceeds 0.02.*use range or quantile"):
        scaling_from(contract, "none")


def test_without_statistics_there_is_no_scaling(contract: Contract) -> None:
    with pytest.raises(ConfigError, match="no action statistics"):
        scaling_from(dataclasses.replace(contract, action_statistics=None), "none")


@pytest.mark.parametrize(
    "change", [{"squeeze": 0.0}, {"arm": (0, 3)}, {"low": (0.0, 2.0)}, {"high": (float("nan"), 1.0)}]
)
def test_bad_scalings_are_refused(change: dict) -> None:
    good = {"arm": (0, 1), "low": (-1.0, -1.0), "high": (1.0, 1.0)}
    with pytest.raises(ConfigError):
        ActionScaling(**(good | change))
    with pytest.raises(ConfigError, match="actions have 3 dimensions"):
        ActionScaling(**good).normalise(np.zeros(3))
