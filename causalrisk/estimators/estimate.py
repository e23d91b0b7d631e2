"""A point estimate with its influence function: what every estimator returns."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from causalrisk.design.scan.rowless import Rowless
from causalrisk.numerics.linalg import Array


class EstimateRows(Protocol):
    """What an estimate has of every row, in the order of the sample."""

    @property
    def predicted(self) -> Array:
        """Predicted outcome of every row in every arm, shape (K, n)."""

    @property
    def influence(self) -> Array:
        """Influence function of (params, theta, gamma), shape (n, 2 K - 1 + K p + Q)."""

    def blocks(self) -> Iterator[tuple[slice, Array]]:
        """Begin a pass over the influence function: rows, and its values there."""


@dataclass(frozen=True)
class KnownRows:
    """What an estimate has of every row, in memory.

    Parameters
    ----------
    predicted, influence
        As in `EstimateRows`.
    """

    predicted: Array
    influence: Array

    def blocks(self) -> Iterator[tuple[slice, Array]]:
        """As in `EstimateRows`: one block."""
        yield slice(0, len(self.influence)), self.influence


@dataclass(frozen=True)
class Estimate:
    """A point estimate with its influence function; rows in the order of the sample.

    Parameters
    ----------
    params : ndarray, shape (2 K - 1,)
        Effects of the arms against the reference, then the mean of each arm.
    theta : ndarray, shape (K, p)
        Outcome coefficients of the basis columns.
    gamma : ndarray, shape (Q,)
        Propensity coefficients of the basis columns; empty without a propensity model.
    model_means : ndarray, shape (K,)
        Averages of `predicted` over the target.
    rows : EstimateRows
        Predictions and influence function.
    failed : tuple of int
        For each arm OK, or why its outcome model has no fit; empty for a joint fit.
    """

    params: Array
    theta: Array
    gamma: Array
    model_means: Array
    rows: EstimateRows
    failed: tuple[int, ...] = ()

    @property
    def predicted(self) -> Array:
        """Predicted outcome of every row in every arm, shape (K, n)."""
        return self.rows.predicted

    @property
    def influence(self) -> Array:
        """Influence function of (params, theta, gamma), shape (n, 2 K - 1 + K p + Q)."""
        return self.rows.influence

    def block(self, name: str, arm: int | None = None) -> slice:
        """Columns of `influence`, and entries of `values`, that belong to one kind of estimate.

        Parameters
        ----------
        name : {"effects", "means", "theta", "gamma"}
            Effects, arm means, outcome or propensity coefficients.
        arm : int, optional
            One arm's outcome coefficients; by default those of all arms.
        """
        n_arms, p = self.theta.shape
        first = len(self.params)
        if name == "theta" and arm is not None:
            return slice(first + arm * p, first + (arm + 1) * p)
        last = first + self.theta.size
        return {
            "effects": slice(0, n_arms - 1),
            "means": slice(n_arms - 1, first),
            "theta": slice(first, last),
            "gamma": slice(last, last + len(self.gamma)),
        }[name]

    @property
    def values(self) -> Array:
        """All estimates in the order of the columns of `influence`."""
        return np.concatenate([self.params, self.theta.ravel(), self.gamma])


class ScannedEstimate(Rowless, Estimate):
    """A point estimate on rows that come in blocks; predictions and influence function are not kept."""

    @classmethod
    def of(cls, estimate: Estimate) -> ScannedEstimate:
        """Return an estimate without what goes by rows."""
        kept = ("params", "theta", "gamma", "model_means", "failed")
        return cls(**{name: getattr(estimate, name) for name in kept})
