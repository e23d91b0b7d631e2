"""The distribution of the propensity score: replicated importance weights, and sums over them.

Flows in: a weight fit, multiplicities of B replicates. Flows out: gamma_b, and the sums over the rows that training
needs of the importance weights w[i, b, j] of row i under replicate b within resample j, which are never all held.

Within resample j, whose own fit is gamma_j, replicate b is at gamma_j + delta_b, delta_b = gamma_b - gamma of the full
sample ("shifted"), or drawn and fitted afresh from the resample ("nested").
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from causalrisk.numerics.failures import Failure
from causalrisk.numerics.linalg import Array
from causalrisk.propensity.weights import ImportanceWeights, WeightFit, WeightModel, some_columns

BLOCK = 64  # replicates worked on at a time
KEPT = 2**27  # bytes of importance weights that are kept between passes


@dataclass(frozen=True)
class Replicates:
    """The distribution of the propensity score.

    Parameters
    ----------
    gamma : ndarray, shape (S, B)
        Coefficients of the usable replicates.
    failures : ndarray of int8, shape (B_drawn,)
        A `Failure` for each replicate drawn.
    """

    gamma: Array
    failures: NDArray[np.int8]

    @property
    def count(self) -> int:
        """Number of usable replicates, B."""
        return self.gamma.shape[1]

    @classmethod
    def single(cls, gamma: Array) -> Replicates:
        """Return the distribution that has one value."""
        return cls(gamma[:, None], np.full(1, Failure.OK, dtype=np.int8))


def draw_replicates(weight_fit: WeightFit, draw: Callable[[int], Array], n_blocks: int) -> Replicates:
    """Fit the propensity replicates block by block.

    Parameters
    ----------
    weight_fit : WeightFit
        The full-sample fit.
    draw : callable
        Multiplicities of block j, shape (n, m).
    n_blocks : int
        Number of blocks.

    Returns
    -------
    Replicates
        The usable replicates, and the failure of each.
    """
    fits = [weight_fit.refit(draw(j)) for j in range(n_blocks)]
    failures = np.concatenate([f.failures for f in fits])
    gamma = np.concatenate([f.coefficients for f in fits], axis=1)
    return Replicates(gamma[:, failures == Failure.OK], failures)


def replicate_blocks(
    model: WeightModel, gamma: Array, counts: Array
) -> Iterator[tuple[slice, Array, ImportanceWeights]]:
    """Yield the importance weights under the replicates, a block of replicates at a time.

    Parameters
    ----------
    model : WeightModel
        Propensity model and target.
    gamma : ndarray, shape (S, B)
        Coefficients of the replicates.
    counts : ndarray, shape (n,)
        Multiplicities of the rows.

    Yields
    ------
    columns : slice
        The replicates of this block.
    eta : ndarray, shape (L, n, b)
        Linear predictors.
    at : ImportanceWeights
        Importance weights.
    """
    for first in range(0, gamma.shape[1], BLOCK):
        columns = slice(first, min(first + BLOCK, gamma.shape[1]))
        eta = model.predictors(gamma[:, columns])
        yield columns, eta, model.weights_at(eta, counts[:, None])


# --- sums over the replicates ------------------------------------------------------------------------------------


class ReplicateWeights(Protocol):
    """Importance weights under B replicates within m resamples.

    Attributes
    ----------
    failures : ndarray of int8, shape (m,)
        NO_REPLICATES where none was usable, else OK.
    count : int
        B.
    """

    failures: NDArray[np.int8]
    count: int

    def sums(self, share: Array, rows: Array) -> Array:
        """Sum w times share (n, m) times rows (n, m, d) or (n, 1, d) over each arm, shape (K, B, m, d)."""

    def adjoint(self, values: Array) -> Array:
        """Sum w times values, shape (K, B, m), of a row's arm over the replicates, shape (n, m)."""

    def mean(self) -> Array:
        """Average of w over the replicates, shape (n, m)."""

    def subset(self, resamples: NDArray[np.bool_]) -> ReplicateWeights:
        """Return that of some of the resamples."""


class ShiftedLogitWeights:
    """Shifted replicates whose excess is that of the resample times one matrix for all resamples.

    Parameters
    ----------
    slices : sequence of slice
        Rows of each arm.
    terms : ndarray, shape (T, n, m)
        Terms of the resamples' excess.
    tilt : ndarray, shape (n, m) or (n, 1)
        Their tilt.
    K_b : ndarray, shape (T, n, B)
        What each replicate multiplies the terms by.
    mean_K : ndarray, shape (T, n, 1)
        Its average over the replicates.

    Notes
    -----
    An odds term is the exponential of a linear predictor, so with eta_jb = eta_j + (eta_b - eta) it is the product of
    that of resample j and K_b = exp(eta_b - eta), which is the same for every resample.
    """

    def __init__(self, slices: tuple[slice, ...], terms: Array, tilt: Array, K_b: Array, mean_K: Array) -> None:
        self.slices, self.terms, self.tilt, self.K_b, self.mean_K = slices, terms, tilt, K_b, mean_K
        self.failures, self.count = np.zeros(terms.shape[2], dtype=np.int8), K_b.shape[2]

    def sums(self, share: Array, rows: Array) -> Array:
        """One matrix product an arm and term."""
        n_rep, m, d = self.count, self.terms.shape[2], rows.shape[2]
        total = np.zeros((len(self.slices), n_rep, m, d))
        for arm, members in enumerate(self.slices):
            for term, K_b in zip(self.terms, self.K_b, strict=True):
                scaled = ((term * share)[members, :, None] * rows[members]).reshape(-1, m * d)
                total[arm] += (K_b[members].T @ scaled).reshape(n_rep, m, d)
            total[arm] += weighted_sums((self.tilt * share)[members], rows[members])
        return total

    def adjoint(self, values: Array) -> Array:
        """One matrix product an arm and term."""
        total = np.empty(self.terms.shape[1:])
        for arm, members in enumerate(self.slices):
            total[members] = self.tilt[members] * values[arm].sum(axis=0)
            for term, K_b in zip(self.terms, self.K_b, strict=True):
                total[members] += term[members] * (K_b[members] @ values[arm])
        return total

    def mean(self) -> Array:
        """Average over the replicates."""
        return (self.terms * self.mean_K).sum(axis=0) + self.tilt

    def subset(self, resamples: NDArray[np.bool_]) -> ShiftedLogitWeights:
        """Return that of some of the resamples."""
        tilt = some_columns(self.tilt, resamples)
        return ShiftedLogitWeights(self.slices, self.terms[:, :, resamples], tilt, self.K_b, self.mean_K)


def weighted_sums(weights: Array, rows: Array) -> Array:
    """Sum over n weights (n, m) times rows (n, m, d) or (n, 1, d), shape (m, d)."""
    return weights.T @ rows[:, 0] if rows.shape[1] == 1 else np.einsum("nm,nmd->md", weights, rows)


class BlockwiseWeights:
    """Replicates of any model and target, shifted or nested: one resample at a time.

    Parameters
    ----------
    slices : sequence of slice
        Rows of each arm.
    model : WeightModel
        Propensity model and target.
    counts : ndarray, shape (n, m)
        Multiplicities of the rows in each resample.
    gammas : sequence of ndarray, shape (S, B_j)
        Coefficients of the replicates of each resample.
    count : int
        B; where fewer are usable, sums are scaled so that mean squares over B are those over the usable ones.
    """

    def __init__(
        self, slices: tuple[slice, ...], model: WeightModel, counts: Array, gammas: list[Array], count: int
    ) -> None:
        self.slices, self.model, self.counts, self.gammas, self.count = slices, model, counts, gammas, count
        self.scale = np.array([np.sqrt(count / max(g.shape[1], 1)) for g in gammas])
        self._kept: list[tuple[int, slice, Array]] | None = None
        empty = np.array([g.shape[1] == 0 for g in gammas])
        self.failures = np.where(empty, Failure.NO_REPLICATES, Failure.OK).astype(np.int8)

    def _blocks(self) -> Iterator[tuple[int, slice, Array]]:
        """Yield importance weights, a block of replicates at a time; kept for the next pass where they are few."""
        if self._kept is not None:
            yield from self._kept
            return
        keep = 8 * self.counts.size * self.count <= KEPT
        kept = []
        for j, gamma in enumerate(self.gammas):
            for columns, _, at in replicate_blocks(self.model, gamma, self.counts[:, j]):
                block = j, columns, at.w
                if keep:
                    kept.append(block)
                yield block
        self._kept = kept if keep else None

    def subset(self, resamples: NDArray[np.bool_]) -> BlockwiseWeights:
        """Return that of some of the resamples."""
        gammas = [gamma for gamma, wanted in zip(self.gammas, resamples, strict=True) if wanted]
        return BlockwiseWeights(self.slices, self.model, self.counts[:, resamples], gammas, self.count)

    def sums(self, share: Array, rows: Array) -> Array:
        """Products within each block of replicates; rows of unusable ones stay zero."""
        total = np.zeros((len(self.slices), self.count, len(self.gammas), rows.shape[2]))
        shared = rows.shape[1] == 1
        for j, columns, w in self._blocks():
            own = share[:, j, None] * rows[:, 0 if shared else j]
            for arm, members in enumerate(self.slices):
                total[arm, columns, j] = w[members].T @ own[members]
        return total * self.scale[:, None]

    def adjoint(self, values: Array) -> Array:
        """Products within each block of replicates."""
        total = np.zeros(self.counts.shape)
        for j, columns, w in self._blocks():
            for arm, members in enumerate(self.slices):
                total[members, j] += w[members] @ values[arm, columns, j]
        return total * self.scale

    def mean(self) -> Array:
        """Average over the usable replicates."""
        total = np.zeros(self.counts.shape)
        for j, _, w in self._blocks():
            total[:, j] += w.sum(axis=1) / self.gammas[j].shape[1]
        return total


class GroupWeights:
    """Importance weights of a group: those of all rows times a factor.

    Parameters
    ----------
    replicates : ReplicateWeights
        Those of all rows.
    factor : ndarray, shape (n, m)
        Zero outside of the group.
    """

    def __init__(self, replicates: ReplicateWeights, factor: Array) -> None:
        self.replicates, self.factor = replicates, factor
        self.failures, self.count = replicates.failures, replicates.count

    def sums(self, share: Array, rows: Array) -> Array:
        """Return those of all rows, with the factor in the share."""
        return self.replicates.sums(share * self.factor, rows)

    def adjoint(self, values: Array) -> Array:
        """Return that of all rows times the factor."""
        return self.factor * self.replicates.adjoint(values)

    def mean(self) -> Array:
        """Return that of all rows times the factor."""
        return self.factor * self.replicates.mean()

    def subset(self, resamples: NDArray[np.bool_]) -> GroupWeights:
        """Return that of some of the resamples."""
        return GroupWeights(self.replicates.subset(resamples), some_columns(self.factor, resamples))


class SingleScoreWeights:
    """The propensity fit of each resample, alone: a distribution with one value.

    Parameters
    ----------
    slices : sequence of slice
        Rows of each arm.
    w : ndarray, shape (n, m)
        Importance weights.
    """

    def __init__(self, slices: tuple[slice, ...], w: Array) -> None:
        self.slices, self.w = slices, w
        self.failures, self.count = np.zeros(w.shape[1], dtype=np.int8), 1

    def sums(self, share: Array, rows: Array) -> Array:
        """Sum over each arm."""
        weighted = self.w * share
        return np.stack([weighted_sums(weighted[members], rows[members]) for members in self.slices])[:, None]

    def adjoint(self, values: Array) -> Array:
        """Omega times the value of a row's arm."""
        total = np.empty(self.w.shape)
        for arm, members in enumerate(self.slices):
            total[members] = self.w[members] * values[arm, 0]
        return total

    def mean(self) -> Array:
        """Return w itself."""
        return self.w

    def subset(self, resamples: NDArray[np.bool_]) -> SingleScoreWeights:
        """Return that of some of the resamples."""
        return SingleScoreWeights(self.slices, self.w[:, resamples])


# --- the replicates of resamples ---------------------------------------------------------------------------------


class ResampleReplicates(Protocol):
    """The distribution of the propensity score within resamples."""

    def for_resamples(self, counts: Array, gamma: Array, first: int) -> tuple[ImportanceWeights, ReplicateWeights]:
        """Weigh the rows of resamples, and weigh them under the replicates of each.

        Parameters
        ----------
        counts : ndarray, shape (n, m)
            Multiplicities.
        gamma : ndarray, shape (S, m)
            Propensity coefficients fitted under them.
        first : int
            Number of the first resample.
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
    """

    def __init__(self, slices: tuple[slice, ...], weight_fit: WeightFit, replicates: Replicates) -> None:
        self.slices, self.model = slices, weight_fit.model
        delta = replicates.gamma - weight_fit.gamma[:, None]
        self.K_b = self.model.odds(self.model.predictors(delta))
        self.mean_K = self.K_b.mean(axis=2)[..., None]

    def for_resamples(self, counts: Array, gamma: Array, first: int) -> tuple[ImportanceWeights, ReplicateWeights]:
        """As in `ResampleReplicates`."""
        terms, at = self.model.terms(self.model.predictors(gamma), counts)
        return at, ShiftedLogitWeights(self.slices, terms, at.tilt, self.K_b, self.mean_K)


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

    def for_resamples(self, counts: Array, gamma: Array, first: int) -> tuple[ImportanceWeights, ReplicateWeights]:
        """As in `ResampleReplicates`."""
        model = self.weight_fit.model
        at = model.weights_at(model.predictors(gamma), counts)
        gammas = [self.gamma_of(counts[:, j], gamma[:, j], first + j) for j in range(counts.shape[1])]
        return at, BlockwiseWeights(self.slices, model, counts, gammas, self.count)


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
        Multiplicities (n,) and number of a resample -> those of its own resamples, (n, B).
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


class NoReplicates:
    """Each resample has its own fit alone, for an objective at the fitted propensity score.

    Parameters
    ----------
    slices : tuple of slice
        Rows of each arm.
    weight_fit : WeightFit
        The full-sample fit.
    """

    def __init__(self, slices: tuple[slice, ...], weight_fit: WeightFit) -> None:
        self.slices, self.model = slices, weight_fit.model

    def for_resamples(self, counts: Array, gamma: Array, first: int) -> tuple[ImportanceWeights, ReplicateWeights]:
        """As in `ResampleReplicates`."""
        at = self.model.weights_at(self.model.predictors(gamma), counts)
        return at, SingleScoreWeights(self.slices, at.w)
