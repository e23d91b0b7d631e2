"""The distribution of the propensity score within resamples, whose objectives are minimised anew.

Flows in: the replicates of the full sample, multiplicities of the rows in m resamples, their own propensity fits. Flows
out: the importance weights of the resamples, and under the replicates of each. Within resample j, whose own fit is
gamma_j, replicate b is at gamma_j + delta_b, delta_b = gamma_b - gamma of the full sample ("shifted"), or drawn and
fitted afresh from the resample ("nested").
"""

from __future__ import annotations

import copy
import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Protocol

import numpy as np

from causalrisk.numerics.blocks import KEPT
from causalrisk.numerics.failures import Failure
from causalrisk.numerics.linalg import UNDER_RESAMPLES, Array, part_slices, row_blocks
from causalrisk.propensity.replicates import (
    BlockwiseWeights,
    Replicates,
    ReplicateWeights,
    ShiftedLogitWeights,
    ShiftFactors,
    kept_bytes,
)
from causalrisk.propensity.row_weights import ImportanceWeights
from causalrisk.propensity.weights import TargetSums, WeightFit

NEGLIGIBLE = 1e-12  # share of a sum of squares that may be left out of the objective


class ResampleReplicates(Protocol):
    """The distribution of the propensity score within resamples."""

    @property
    def at_once(self) -> int | None:
        """Number of resamples worked on at a time, whose importance weights are kept between passes; None for any."""

    def places(self, n: int) -> list[slice]:
        """Blocks of the n rows in which their importance weights under resamples can be worked on."""

    def part(self, rows: slice) -> ResampleReplicates:
        """Return that of some of the rows, one of the `places`."""

    def whole(self, counts: Array) -> TargetSums | None:
        """Sum over all rows, under multiplicities (n, m), what their weights are divided by; None if not in blocks."""

    def for_resamples(
        self, counts: Array, gamma: Array, first: int, whole: TargetSums | None = None
    ) -> tuple[ImportanceWeights, ReplicateWeights]:
        """Weigh the rows of resamples, and weigh them under the replicates of each.

        Parameters
        ----------
        counts : ndarray, shape (n, m)
            Multiplicities.
        gamma : ndarray, shape (S, m)
            Propensity coefficients fitted under them.
        first : int
            Number of the first resample.
        whole : TargetSums, optional
            Where these are a part of the rows, sums over all of them.
        """


class ShiftedLogitReplicates:
    """Shifted replicates of a log-linear model: their excess is the resample's times one matrix for all resamples.

    Parameters
    ----------
    slices : tuple of slice
        Rows of each arm.
    weight_fit : WeightFit
        The full-sample fit.
    replicates : Replicates
        The replicates of the full sample.
    penalty : float, optional
        Weight of the sums of squares over replicates in the objective. Orthogonal combinations of the replicates
        have the same sums, and few suffice; by default the replicates are kept.
    """

    at_once = None

    def places(self, n: int) -> list[slice]:
        """As in `ResampleReplicates`: blocks that stay in the cache."""
        return row_blocks(n, UNDER_RESAMPLES)

    def __init__(
        self,
        slices: tuple[slice, ...],
        weight_fit: WeightFit,
        replicates: Replicates,
        penalty: float | None = None,
    ) -> None:
        self.slices, self.model = slices, weight_fit.model
        delta = replicates.gamma - weight_fit.gamma[:, None]
        self.shifts = ShiftFactors.of(self.model.odds(self.model.predictors(delta)))
        if penalty is not None:
            tolerance = np.sqrt(NEGLIGIBLE / penalty)
            if fewest_combinations(delta, len(self.shifts.K_b), tolerance) < self.shifts.count:
                self.shifts = self.shifts.combined(tolerance)

    def part(self, rows: slice) -> ShiftedLogitReplicates:
        """As in `ResampleReplicates`."""
        found = copy.copy(self)
        found.slices, found.model = part_slices(self.slices, rows), self.model.part(rows)
        found.shifts = self.shifts.part(rows)
        return found

    def whole(self, counts: Array) -> TargetSums:
        """As in `ResampleReplicates`."""
        return self.model.fixed_sums(counts)

    def for_resamples(
        self, counts: Array, gamma: Array, first: int, whole: TargetSums | None = None
    ) -> tuple[ImportanceWeights, ReplicateWeights]:
        """As in `ResampleReplicates`."""
        terms, at = self.model.terms(self.model.predictors(gamma), counts, whole)
        return at, ShiftedLogitWeights(self.slices, terms, at.tilt, self.shifts)


class BlockwiseReplicates(ABC):
    """Replicates of any model and target: one resample at a time.

    Parameters
    ----------
    slices : tuple of slice
        Rows of each arm.
    weight_fit : WeightFit
        The full-sample fit.
    count : int
        Number of replicates, B.
    """

    def __init__(self, slices: tuple[slice, ...], weight_fit: WeightFit, count: int) -> None:
        self.slices, self.weight_fit, self.count = slices, weight_fit, count
        self.at_once = max(KEPT // kept_bytes(weight_fit.model, len(weight_fit.excess), count), 1)

    def places(self, n: int) -> list[slice]:
        """As in `ResampleReplicates`: all rows together."""
        return [slice(0, n)]

    @abstractmethod
    def gamma_of(self, counts: Array, gamma: Array, number: int) -> Array:
        """Coefficients of the usable replicates of resample `number`, shape (S, B_j).

        Parameters
        ----------
        counts : ndarray, shape (n,)
            Its multiplicities.
        gamma : ndarray, shape (S,)
            Its own propensity coefficients.
        number : int
            Number of the resample.
        """

    def part(self, rows: slice) -> BlockwiseReplicates:
        """As in `ResampleReplicates`: all of them."""
        return self

    def whole(self, counts: Array) -> TargetSums | None:
        """As in `ResampleReplicates`."""
        return None

    def for_resamples(
        self, counts: Array, gamma: Array, first: int, whole: TargetSums | None = None
    ) -> tuple[ImportanceWeights, ReplicateWeights]:
        """As in `ResampleReplicates`."""
        model = self.weight_fit.model
        at = model.weights_at(model.predictors(gamma), counts)
        gammas = [self.gamma_of(counts[:, j], gamma[:, j], first + j) for j in range(counts.shape[1])]
        return at, BlockwiseWeights(slices=self.slices, model=model, counts=counts, gammas=gammas, count=self.count)


class ShiftedReplicates(BlockwiseReplicates):
    """The replicates of the full sample, moved along with the resample's own fit.

    Parameters
    ----------
    slices, weight_fit
        As in `BlockwiseReplicates`.
    replicates : Replicates
        The replicates of the full sample.
    """

    def __init__(self, slices: tuple[slice, ...], weight_fit: WeightFit, replicates: Replicates) -> None:
        super().__init__(slices, weight_fit, replicates.count)
        self.delta = replicates.gamma - weight_fit.gamma[:, None]

    def gamma_of(self, counts: Array, gamma: Array, number: int) -> Array:
        """As in `BlockwiseReplicates`."""
        return gamma[:, None] + self.delta


class NestedReplicates(BlockwiseReplicates):
    """Replicates drawn from the resample itself and fitted afresh.

    Parameters
    ----------
    slices, weight_fit, count
        As in `BlockwiseReplicates`.
    draw : callable
        Multiplicities (n,) and number of a resample -> multiplicities of its replicates, (n, B).
    """

    def __init__(
        self, slices: tuple[slice, ...], weight_fit: WeightFit, count: int, draw: Callable[[Array, int], Array]
    ) -> None:
        super().__init__(slices, weight_fit, count)
        self.draw = draw

    def gamma_of(self, counts: Array, gamma: Array, number: int) -> Array:
        """As in `BlockwiseReplicates`."""
        fits = self.weight_fit.refit(self.draw(counts, number), gamma)
        return fits.coefficients[:, fits.failures == Failure.OK]


def fewest_combinations(delta: Array, n_terms: int, tolerance: float) -> int:
    """Bound from below how many combinations of exp(columns @ delta) matter, with delta of shape (S, B).

    Their number is about that of the monomials of the Taylor series, in as many variables as there are columns without
    the constant; of the last degree that is not negligible some may be.
    """
    size, variables = float(np.sqrt((delta**2).sum(axis=0).mean())), max(len(delta) - n_terms, 1)
    degree = 0
    while size ** (degree + 1) > tolerance * math.sqrt(math.factorial(degree + 1)):
        degree += 1
    return math.comb(variables + max(degree - 1, 0), variables)
