# SPDX-License-Identifier: Apache-2.0
"""The probe itself: it finds what is there, whichever of samples and inputs are more, and classes count alike."""

from __future__ import annotations

import numpy as np
import pytest

from omnistream_training.evaluation.probe.ridge import fit, one_hot


@pytest.mark.parametrize("inputs", [5, 80])
def test_both_forms_solve_the_normal_equations(inputs: int) -> None:
    rng = np.random.default_rng(inputs)
    x, y, w = rng.normal(size=(40, inputs)), rng.normal(size=(40, 2)), rng.uniform(0.5, 2, 40)
    ridge = fit(x, y, w)
    share = w / w.sum()
    a, b = x - share @ x, y - share @ y
    penalty = 0.3 * float(share @ np.square(a).sum(1))
    expected = np.linalg.solve(a.T @ (a * share[:, None]) + penalty * np.eye(inputs), a.T @ (b * share[:, None]))
    np.testing.assert_allclose(ridge.coefficients(0.3), expected, atol=1e-9)
    np.testing.assert_allclose(ridge.predict(x, 0.3), a @ expected + share @ y, atol=1e-9)


def test_a_linear_answer_is_found_and_noise_is_not() -> None:
    rng = np.random.default_rng(1)
    x = rng.normal(size=(300, 20))
    y = x @ rng.normal(size=(20, 3)) + 4
    np.testing.assert_allclose(fit(x[:200], y[:200]).predict(x[200:], 1e-9), y[200:], atol=1e-5)
    nothing = fit(rng.normal(size=(200, 20)), y[:200]).predict(rng.normal(size=(100, 20)), 1e3)
    np.testing.assert_allclose(nothing, np.broadcast_to(y[:200].mean(0), (100, 3)), atol=0.02)


def test_inputs_that_say_nothing_answer_with_the_mean() -> None:
    y = np.arange(6.0)[:, None]
    np.testing.assert_allclose(fit(np.zeros((6, 1)), y).predict(np.zeros((2, 1)), 1.0), 2.5)


def test_a_rare_class_weighs_as_much_as_a_frequent_one() -> None:
    targets, weights = one_hot(np.array([0] * 9 + [1]), 2)
    assert weights[:9].sum() == pytest.approx(weights[9])
    assert targets[0].tolist() == [1, -1] and targets[9].tolist() == [-1, 1]
