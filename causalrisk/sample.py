"""The numbers of a design in the form the estimators work on: rows grouped by arm, designs as orthonormal bases."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from causalrisk.linalg import Array, Basis, orthonormal_basis


@dataclass(frozen=True)
class Sample:
    """Rows sorted by arm, so that each arm is a slice.

    Parameters
    ----------
    y : ndarray, shape (n,)
        Outcome.
    outcome : Basis
        Basis of the outcome design; columns of shape (n, p).
    propensity : Basis
        Basis of the propensity design; columns of shape (n, q).
    arm : ndarray of int, shape (n,)
        Arm of each row, ascending.
    weights : ndarray, shape (n,)
        Observation weights.
    slices : tuple of slice
        Rows of each arm.
    order : ndarray of int, shape (n,)
        Position in the design of each row here.
    """

    y: Array
    outcome: Basis
    propensity: Basis
    arm: NDArray[np.intp]
    weights: Array
    slices: tuple[slice, ...]
    order: NDArray[np.intp]

    @property
    def n(self) -> int:
        """Number of rows."""
        return len(self.y)

    @property
    def total(self) -> float:
        """Sum of the observation weights, N."""
        return float(self.weights.sum())

    @property
    def n_arms(self) -> int:
        """Number of arms, K."""
        return len(self.slices)

    @property
    def treated(self) -> Array:
        """1.0 in the treated arm, 0.0 in the reference arm, shape (n,)."""
        return (self.arm > 0).astype(float)

    @property
    def sign(self) -> Array:
        """Sign with which a row's arm enters the effect: +1 treated, -1 reference, shape (n,)."""
        return np.where(self.arm > 0, 1.0, -1.0)

    def mean(self, values: Array) -> Array:
        """Weighted mean over rows of values of shape (n, ...)."""
        return np.tensordot(self.weights, values, axes=(0, 0)) / self.total

    def blocks(self, rows: Array) -> Array:
        """Spread rows of shape (n, p) to (n, K, p), each in the block of its arm and zero elsewhere."""
        spread = np.zeros((self.n, self.n_arms, rows.shape[1]))
        spread[np.arange(self.n), self.arm] = rows
        return spread

    def arm_products(self, left: Array, right: Array) -> Array:
        """For each arm the product left' diag(s) right over its rows / N, shape (K, a, b)."""
        weighted = right * (self.weights / self.total)[:, None]
        return np.stack([left[rows].T @ weighted[rows] for rows in self.slices])

    def restore(self, values: NDArray[Any]) -> NDArray[Any]:
        """Values of shape (n, ...) in this order, put back into the order of the design."""
        restored = np.empty_like(values)
        restored[self.order] = values
        return restored


def make_sample(y: Array, X: Array, Z: Array, arm: NDArray[np.intp], weights: Array) -> Sample:
    """Sort the rows by arm and orthonormalise the designs.

    Parameters
    ----------
    y : ndarray, shape (n,)
        Outcome.
    X, Z : ndarray, shape (n, p) and (n, q)
        Outcome and propensity designs of full column rank.
    arm : ndarray of int, shape (n,)
        Arm codes 0 .. K-1, each present.
    weights : ndarray, shape (n,)
        Positive observation weights.

    Returns
    -------
    Sample
        The sorted sample.
    """
    order = np.argsort(arm, kind="stable")
    ends = np.cumsum(np.bincount(arm))
    slices = tuple(slice(int(a), int(b)) for a, b in zip(np.r_[0, ends[:-1]], ends, strict=True))
    s = weights[order]
    return Sample(
        y[order], orthonormal_basis(X[order], s), orthonormal_basis(Z[order], s), arm[order], s, slices, order
    )
