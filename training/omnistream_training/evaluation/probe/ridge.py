# SPDX-License-Identifier: Apache-2.0
"""Ridge regression in closed form, for every strength at once. A probe that has no training of its own to get wrong.

Classes are regressed to -1 and 1 with samples weighed so that every class counts the same; the largest answer wins.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Matrix = NDArray[np.float64]

STRENGTHS = tuple(float(10.0**e) for e in np.arange(-6, 3.5, 0.5))
"""Relative to the mean square of a sample's inputs."""


@dataclass(frozen=True)
class Ridge:
    """Minimises sum_i w_i |y_i - b - x_i W|^2 + strength * scale * |W|^2."""

    mean_x: Matrix
    mean_y: Matrix
    left: Matrix
    """[d, r] or, with `samples`, [n, r]: the basis that diagonalises the problem."""
    values: NDArray[np.float64]
    """[r] eigenvalues."""
    right: Matrix
    """[r, k]"""
    scale: float
    samples: Matrix | None
    """[n, d] weighted and centred inputs, where there are fewer samples than inputs."""

    def coefficients(self, strength: float) -> Matrix:
        """W [d, k]."""
        inner = self.left @ (self.right / (self.values + strength * self.scale)[:, None])
        return inner if self.samples is None else self.samples.T @ inner

    def predict(self, x: Matrix, strength: float) -> Matrix:
        """[n, d] -> [n, k]"""
        return (x - self.mean_x) @ self.coefficients(strength) + self.mean_y


def fit(x: Matrix, y: Matrix, weights: NDArray[np.float64] | None = None) -> Ridge:
    """x [n, d], y [n, k], weights [n]. The work is that of the smaller of n and d, cubed."""
    w = np.ones(len(x)) if weights is None else weights
    w = w / w.sum()
    mean_x, mean_y = w @ x, w @ y
    root = np.sqrt(w)[:, None]
    a, b = (x - mean_x) * root, (y - mean_y) * root
    scale = max(float(np.square(a).sum()), 1e-30)
    if a.shape[1] <= a.shape[0]:
        values, basis = np.linalg.eigh(a.T @ a)
        return Ridge(mean_x, mean_y, basis, np.maximum(values, 0), basis.T @ (a.T @ b), scale, None)
    values, basis = np.linalg.eigh(a @ a.T)
    return Ridge(mean_x, mean_y, basis, np.maximum(values, 0), basis.T @ b, scale, a)


def one_hot(classes: NDArray[np.int64], count: int) -> tuple[Matrix, NDArray[np.float64]]:
    """Targets [n, count] of -1 and 1, and weights [n] under which every class counts the same."""
    targets = np.full((len(classes), count), -1.0)
    targets[np.arange(len(classes)), classes] = 1.0
    sizes = np.maximum(np.bincount(classes, minlength=count), 1)
    return targets, 1.0 / sizes[classes]
