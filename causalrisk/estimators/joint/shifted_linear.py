"""Sums over rows of linear models under shifted replicates, from columns that no resample changes.

Under shifts of gamma that are the same in every resample, a row of arm k has in resample j under replicate b the weight

    w_jb = (s_k + sum_t odds_tj K_tb) / mean tilt of j

with K the same in all resamples and s_k, its undivided tilt, the same in all rows of the arm. So `LinearSums` are sums
of multiplicities, of multiplicities times odds, and of multiplicities times products of two odds, each times fixed
columns.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from causalrisk.estimators.joint.criterion import JointCriterion
from causalrisk.estimators.joint.linear import LinearModels, LinearRows, LinearSums, RiskSums, bias_forms
from causalrisk.estimators.sample import Sample
from causalrisk.numerics.blocks import KEPT, Passes, add_up
from causalrisk.numerics.linalg import Array, upper_triangle
from causalrisk.propensity.replicates import ShiftFactors
from causalrisk.propensity.weights import WeightModel, positive

FEW_COLUMNS = 2048  # as many are quickly made in every pass


@dataclass(frozen=True)
class ShiftedSums:
    """Sums over the rows of each arm under m resamples; those of blocks add up.

    Parameters
    ----------
    plain : ndarray, shape (K, m, e (e + 1) / 2)
        Pairs of E.
    by_odds : ndarray, shape (K, m, (p + 1) r + e (e + 1))
        Sums over the terms of the odds times the forms of the biases and K_b, times pairs of E, and times these and the
        mean of K.
    by_products : ndarray, shape (K, m, e (e + 1))
        Sums over pairs of terms of both odds times pairs of E and the means of both K, and times their covariance.
    """

    plain: Array
    by_odds: Array
    by_products: Array

    def linear(self, criterion: JointCriterion, tilts: Array, ones: Array) -> LinearSums:
        """Return what the objectives of the resamples are made of.

        Parameters
        ----------
        criterion : JointCriterion
            Weights of the terms.
        tilts : ndarray, shape (K,)
            Undivided tilt of the rows of each arm.
        ones : ndarray, shape (r,)
            As in `ShiftFactors`.
        """
        n_arms, m, n_pairs = self.plain.shape
        cut = self.by_odds.shape[2] - 2 * n_pairs
        p = cut // len(ones) - 1
        first, second = upper_triangle(int(np.sqrt(2 * n_pairs)))
        single = np.flatnonzero((first == p + 1) | (second == p + 1))  # pairs with the constant: E itself
        in_arms = self.plain[:, :, single[p + 1]]
        total = positive(in_arms.sum(axis=0))
        divisor = positive(tilts @ in_arms / total)[:, None]
        share, tilt = 1 / total[:, None], tilts[:, None, None] / divisor
        tilted, by_odds = share * tilt * self.plain, share / divisor * self.by_odds
        odds, mean_odds = by_odds[:, :, cut : cut + n_pairs], by_odds[:, :, cut + n_pairs :]
        trained = criterion.alpha_sigma2 * (tilted + (odds if criterion.full_risk else mean_odds))
        second_products = np.empty(0)
        if criterion.full_risk:
            squares, variance = np.split(share / divisor**2 * self.by_products, 2, axis=2)
            own = np.diag(criterion.contrasts.T @ criterion.contrasts)[:, None, None]
            trained += own * variance
            second_products = np.stack([squares, tilt * mean_odds, tilt * tilted], axis=1).swapaxes(2, 3)[None]
        replicated = by_odds[:, :, :cut].reshape(n_arms, m, p + 1, -1)
        replicated += bias_forms(tilted[..., single], p)[..., None] * ones
        risk = RiskSums(
            fitted=bias_forms((tilted + odds)[..., single], p)[:, None],
            replicated=replicated.transpose(0, 3, 1, 2),
            first=np.stack([mean_odds[..., single], tilted[..., single]], axis=1).swapaxes(2, 3),
            second=second_products,
            tilted=tilted[..., single].sum(axis=0).T,
        )
        return LinearSums(trained.swapaxes(1, 2), (risk,))


class ShiftedRows:
    """Rows under linear models with columns for all their sums.

    Parameters
    ----------
    rows : LinearRows
        The rows.
    model : WeightModel
        Their weight model.
    shifts : ShiftFactors
        What each replicate multiplies their odds by.
    """

    def __init__(self, rows: LinearRows, model: WeightModel, shifts: ShiftFactors) -> None:
        self.slices, self.pairs, self.model = rows.sample.slices, rows.pairs, model
        forms = bias_forms(rows.columns, rows.sample.X.columns.shape[1])
        self.of_odds = [self._times(forms, K_b, mean) for K_b, mean in zip(shifts.K_b, shifts.mean, strict=True)]
        self.of_products = []
        for s, t in zip(*upper_triangle(len(self.of_odds)), strict=True):
            both = self.pairs * (1 if s == t else 2)
            moments = shifts.mean[s] * shifts.mean[t], shifts.covariance[s, t]
            self.of_products.append(np.column_stack([both * moment for moment in moments]))

    def _times(self, forms: Array, K_b: Array, mean: Array) -> Array:
        (n, n_pairs), (n_forms, count) = self.pairs.shape, (forms.shape[1], K_b.shape[1])
        found = np.empty((n, n_forms * count + 2 * n_pairs))
        biases, plain, times_mean = np.split(found, [n_forms * count, n_forms * count + n_pairs], axis=1)
        np.multiply(forms[:, :, None], K_b[:, None], out=biases.reshape(n, n_forms, count))
        plain[:] = self.pairs
        np.multiply(self.pairs, mean, out=times_mean)
        return found

    def sums(self, counts: Array, gamma: Array) -> ShiftedSums:
        """Sum under multiplicities (n, m) and propensity coefficients (S, m)."""
        odds = self.model.odds(self.model.predictors(gamma))
        once = [counts * term for term in odds]
        twice = [once[s] * odds[t] for s, t in zip(*upper_triangle(len(odds)), strict=True)]
        return ShiftedSums(*map(self._sums, ([counts], once, twice), ([self.pairs], self.of_odds, self.of_products)))

    def _sums(self, weights: list[Array], columns: list[Array]) -> Array:
        found = []
        for rows in self.slices:
            products = (weight[rows].T @ own[rows] for weight, own in zip(weights, columns, strict=True))
            found.append(sum(products))
        return np.stack(found)

    @property
    def nbytes(self) -> int:
        """Bytes of the columns."""
        return sum(columns.nbytes for columns in [self.pairs, *self.of_odds, *self.of_products])


class ShiftedSample:
    """A sample under linear models, and shifts that are the same in all resamples.

    Parameters
    ----------
    models : LinearModels
        The models about which the objectives are expanded.
    sample : Sample
        The rows.
    model : WeightModel
        Their weight model, separable and one of coefficients.
    shifts : ShiftFactors
        What each replicate multiplies their odds by.
    places : list of slice
        Blocks in which they are worked on.

    Notes
    -----
    Fixed columns take one product of many columns where weights of their own take many of few, but there are some p r
    + 2 p^2 of them: it pays where these are few, or are kept.
    """

    def __init__(
        self, models: LinearModels, sample: Sample, model: WeightModel, shifts: ShiftFactors, places: list[slice]
    ) -> None:
        self.models, self.sample, self.model, self.shifts = models, sample, model, shifts
        self.passes: Passes[ShiftedRows] = Passes(places)

    def _part(self, rows: slice) -> ShiftedRows:
        return ShiftedRows(self.models.rows(self.sample.part(rows)), self.model.part(rows), self.shifts.part(rows))

    def sums(self, criterion: JointCriterion, counts: Array, gamma: Array) -> LinearSums:
        """Sum under multiplicities (n, m) and propensity coefficients (S, m)."""
        sums = add_up(rows.sums(counts[place], gamma) for place, rows in self.passes.begin(self._part))
        return sums.linear(criterion, tilts=self.model.arm_tilts, ones=self.shifts.ones)


def pays(shifts: ShiftFactors, sample: Sample) -> bool:
    """Whether the fixed columns of a sample are few enough to be made in every pass, or kept for all."""
    columns = column_count(shifts, sample)
    return columns <= FEW_COLUMNS or 8 * sample.n * columns <= KEPT


def column_count(shifts: ShiftFactors, sample: Sample) -> int:
    """Count the columns of `ShiftedRows`."""
    n_terms, p = len(shifts.K_b), sample.X.columns.shape[1]
    width = p + 2 + (sample.offset is not None)
    n_pairs = width * (width + 1) // 2
    return n_terms * (p + 1) * shifts.count + (1 + n_terms * (n_terms + 3)) * n_pairs
