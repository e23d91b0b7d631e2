"""The distribution of the propensity score: replicated importance weights, and sums over them.

An operator stands for the importance weights omega[i, b, j] of row i under replicate b within resample j, without ever
holding them all.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from causalrisk.ledger import Reason
from causalrisk.linalg import Array
from causalrisk.weighting import Weighting, Weights, some_columns

BLOCK = 64  # replicates worked on at a time
KEPT = 2**27  # bytes of importance weights that are kept between passes


@dataclass(frozen=True)
class Replicates:
    """The distribution of the propensity score.

    Parameters
    ----------
    states : ndarray, shape (S, B)
        States of the usable replicates.
    reasons : ndarray of int8, shape (B_drawn,)
        A `Reason` for each replicate drawn.
    """

    states: Array
    reasons: NDArray[np.int8]

    @property
    def count(self) -> int:
        """Number of usable replicates, B."""
        return self.states.shape[1]

    @classmethod
    def single(cls, state: Array) -> Replicates:
        """Return the distribution that has one value."""
        return cls(state[:, None], np.full(1, Reason.OK, dtype=np.int8))


class WeightOperator(Protocol):
    """Importance weights under B replicates within m resamples.

    Attributes
    ----------
    reasons : ndarray of int8, shape (m,)
        NO_REPLICATES where none was usable, else OK.
    count : int
        B.
    """

    reasons: NDArray[np.int8]
    count: int

    def sums(self, share: Array, rows: Array) -> Array:
        """Sum omega times share (n, m) times rows (n, m, d) or (n, 1, d) over each arm, shape (K, B, m, d)."""

    def adjoint(self, values: Array) -> Array:
        """Sum omega times values, shape (K, B, m), of a row's arm over the replicates, shape (n, m)."""

    def mean(self) -> Array:
        """Average of omega over the replicates, shape (n, m)."""

    def subset(self, columns: NDArray[np.bool_]) -> WeightOperator:
        """Return that of some of the resamples."""


def replicate_blocks(weighting: Weighting, states: Array, weights: Array) -> Iterator[tuple[slice, Array, Weights]]:
    """Yield the importance weights under the replicates, a block of replicates at a time.

    Parameters
    ----------
    weighting : Weighting
        Model and target.
    states : ndarray, shape (S, B)
        States of the replicates.
    weights : ndarray, shape (n,)
        Weights of the rows.

    Yields
    ------
    columns : slice
        The replicates of this block.
    eta : ndarray, shape (L, n, b)
        Linear predictors.
    at : Weights
        Importance weights.
    """
    for first in range(0, states.shape[1], BLOCK):
        columns = slice(first, min(first + BLOCK, states.shape[1]))
        eta = weighting.predictors(states[:, columns])
        yield columns, eta, weighting.weights(eta, weights[:, None])


class SeparableWeights:
    """Shifted replicates whose excess is that of the resample times one matrix for all resamples.

    Parameters
    ----------
    slices : sequence of slice
        Rows of each arm.
    terms : ndarray, shape (T, n, m)
        Terms of the resamples' excess.
    tilt : ndarray, shape (n, m) or (n, 1)
        Their tilt.
    spread : ndarray, shape (T, n, B)
        What each replicate multiplies the terms by.
    mean_spread : ndarray, shape (T, n, 1)
        Its average over the replicates.

    Notes
    -----
    An odds term is the exponential of a linear predictor, so with eta_cb = eta_c + (eta_b - eta_hat) it is the product
    of that of resample c and exp(eta_b - eta_hat), which is the same for every resample.
    """

    def __init__(self, slices: tuple[slice, ...], terms: Array, tilt: Array, spread: Array, mean_spread: Array) -> None:
        self.slices, self.terms, self.tilt, self.spread, self.mean_spread = slices, terms, tilt, spread, mean_spread
        self.reasons, self.count = np.zeros(terms.shape[2], dtype=np.int8), spread.shape[2]

    def sums(self, share: Array, rows: Array) -> Array:
        """One matrix product an arm and term."""
        n_rep, m, d = self.count, self.terms.shape[2], rows.shape[2]
        total = np.zeros((len(self.slices), n_rep, m, d))
        for arm, members in enumerate(self.slices):
            for term, spread in zip(self.terms, self.spread, strict=True):
                scaled = ((term * share)[members, :, None] * rows[members]).reshape(-1, m * d)
                total[arm] += (spread[members].T @ scaled).reshape(n_rep, m, d)
            total[arm] += weighted_sums((self.tilt * share)[members], rows[members])
        return total

    def adjoint(self, values: Array) -> Array:
        """One matrix product an arm and term."""
        total = np.empty(self.terms.shape[1:])
        for arm, members in enumerate(self.slices):
            total[members] = self.tilt[members] * values[arm].sum(axis=0)
            for term, spread in zip(self.terms, self.spread, strict=True):
                total[members] += term[members] * (spread[members] @ values[arm])
        return total

    def mean(self) -> Array:
        """Average over the replicates."""
        return (self.terms * self.mean_spread).sum(axis=0) + self.tilt

    def subset(self, columns: NDArray[np.bool_]) -> SeparableWeights:
        """Return that of some of the resamples."""
        tilt = some_columns(self.tilt, columns)
        return SeparableWeights(self.slices, self.terms[:, :, columns], tilt, self.spread, self.mean_spread)


def weighted_sums(weights: Array, rows: Array) -> Array:
    """Sum over n weights (n, m) times rows (n, m, d) or (n, 1, d), shape (m, d)."""
    return weights.T @ rows[:, 0] if rows.shape[1] == 1 else np.einsum("nm,nmd->md", weights, rows)


class DenseWeights:
    """Replicates of any model and target, shifted or nested: one resample at a time.

    Parameters
    ----------
    slices : sequence of slice
        Rows of each arm.
    weighting : Weighting
        Model and target.
    weights : ndarray, shape (n, m)
        Weights of the rows in each resample.
    states : sequence of ndarray, shape (S, B_j)
        States of the replicates of each resample.
    count : int
        B; where fewer are usable, sums are scaled so that mean squares over B are those over the usable ones.
    """

    def __init__(
        self, slices: tuple[slice, ...], weighting: Weighting, weights: Array, states: list[Array], count: int
    ) -> None:
        self.slices, self.weighting, self.weights, self.states, self.count = slices, weighting, weights, states, count
        self.scale = np.array([np.sqrt(count / max(s.shape[1], 1)) for s in states])
        self._kept: list[tuple[int, slice, Array]] | None = None
        empty = np.array([s.shape[1] == 0 for s in states])
        self.reasons = np.where(empty, Reason.NO_REPLICATES, Reason.OK).astype(np.int8)

    def _blocks(self) -> Iterator[tuple[int, slice, Array]]:
        """Yield importance weights, a block of replicates at a time; kept for the next pass where they are few."""
        if self._kept is not None:
            yield from self._kept
            return
        keep = 8 * self.weights.size * self.count <= KEPT
        kept = []
        for j, states in enumerate(self.states):
            for columns, _, at in replicate_blocks(self.weighting, states, self.weights[:, j]):
                block = j, columns, at.total
                if keep:
                    kept.append(block)
                yield block
        self._kept = kept if keep else None

    def subset(self, columns: NDArray[np.bool_]) -> DenseWeights:
        """Return that of some of the resamples."""
        states = [states for states, wanted in zip(self.states, columns, strict=True) if wanted]
        return DenseWeights(self.slices, self.weighting, self.weights[:, columns], states, self.count)

    def sums(self, share: Array, rows: Array) -> Array:
        """Products within each block of replicates; rows of unusable ones stay zero."""
        total = np.zeros((len(self.slices), self.count, len(self.states), rows.shape[2]))
        shared = rows.shape[1] == 1
        for j, columns, omega in self._blocks():
            own = share[:, j, None] * rows[:, 0 if shared else j]
            for arm, members in enumerate(self.slices):
                total[arm, columns, j] = omega[members].T @ own[members]
        return total * self.scale[:, None]

    def adjoint(self, values: Array) -> Array:
        """Products within each block of replicates."""
        total = np.zeros(self.weights.shape)
        for j, columns, omega in self._blocks():
            for arm, members in enumerate(self.slices):
                total[members, j] += omega[members] @ values[arm, columns, j]
        return total * self.scale

    def mean(self) -> Array:
        """Average over the usable replicates."""
        total = np.zeros(self.weights.shape)
        for j, _, omega in self._blocks():
            total[:, j] += omega.sum(axis=1) / self.states[j].shape[1]
        return total


class GroupWeights:
    """Importance weights of a group: those of all rows times a factor.

    Parameters
    ----------
    operator : WeightOperator
        Those of all rows.
    factor : ndarray, shape (n, m)
        Zero outside of the group.
    """

    def __init__(self, operator: WeightOperator, factor: Array) -> None:
        self.operator, self.factor = operator, factor
        self.reasons, self.count = operator.reasons, operator.count

    def sums(self, share: Array, rows: Array) -> Array:
        """Return those of all rows, with the factor in the share."""
        return self.operator.sums(share * self.factor, rows)

    def adjoint(self, values: Array) -> Array:
        """Return that of all rows times the factor."""
        return self.factor * self.operator.adjoint(values)

    def mean(self) -> Array:
        """Return that of all rows times the factor."""
        return self.factor * self.operator.mean()

    def subset(self, columns: NDArray[np.bool_]) -> GroupWeights:
        """Return that of some of the resamples."""
        return GroupWeights(self.operator.subset(columns), some_columns(self.factor, columns))


class FittedWeights:
    """The propensity fit of each resample, alone: a distribution with one value.

    Parameters
    ----------
    slices : sequence of slice
        Rows of each arm.
    omega : ndarray, shape (n, m)
        Importance weights.
    """

    def __init__(self, slices: tuple[slice, ...], omega: Array) -> None:
        self.slices, self.omega = slices, omega
        self.reasons, self.count = np.zeros(omega.shape[1], dtype=np.int8), 1

    def sums(self, share: Array, rows: Array) -> Array:
        """Sum over each arm."""
        weights = self.omega * share
        return np.stack([weighted_sums(weights[members], rows[members]) for members in self.slices])[:, None]

    def adjoint(self, values: Array) -> Array:
        """Omega times the value of a row's arm."""
        total = np.empty(self.omega.shape)
        for arm, members in enumerate(self.slices):
            total[members] = self.omega[members] * values[arm, 0]
        return total

    def mean(self) -> Array:
        """Return omega itself."""
        return self.omega

    def subset(self, columns: NDArray[np.bool_]) -> FittedWeights:
        """Return that of some of the resamples."""
        return FittedWeights(self.slices, self.omega[:, columns])


StatesOf = Callable[[Array, Array, int], Array]


@dataclass(frozen=True)
class ShiftedStates:
    """Replicates of a resample: its own fit plus the spread of the full sample's replicates.

    Parameters
    ----------
    spread : ndarray, shape (S, B)
        States of the replicates less that of the full sample.
    """

    spread: Array

    def __call__(self, weights: Array, state: Array, number: int) -> Array:
        """States of the replicates, shape (S, B)."""
        return state[:, None] + self.spread
