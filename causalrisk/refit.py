"""Re-estimation under many resampling weights at once, as matrix products over a block of resamples.

A refitter takes multiplicities of shape (n, m), rows in the order of the sample, and returns `Estimate.values` for each
of the m resamples. Nothing in here loops over rows, and only what does not separate loops over resamples.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from causalrisk.criterion import Criterion
from causalrisk.estimators import Estimate, Specification, effect_map, training_columns
from causalrisk.joint import Deviation, deviation_from
from causalrisk.ledger import Reason
from causalrisk.linalg import (
    Array,
    gram_matrices,
    pairwise_columns,
    solve_definite,
    solve_stacked,
    spectral_factors,
)
from causalrisk.propensity import PropensityBatch, PropensityFit, refit_batch
from causalrisk.replicates import Replicates, bias_forms
from causalrisk.risk import net_bias_rows, stack_rows, variance_factors
from causalrisk.sample import Sample


@dataclass(frozen=True)
class Refits:
    """Estimates under m resamples.

    Parameters
    ----------
    values : ndarray, shape (d, m)
        `Estimate.values` for each resample; NaN where it failed.
    reasons : ndarray of int8, shape (m,)
        A `Reason` for each resample.
    """

    values: Array
    reasons: NDArray[np.int8]


Refitter = Callable[..., Refits]
ReplicateWeights = Callable[[Array, int], Array]


class PropensityRefitter:
    """Refits the propensity model of a sample under a block of weightings.

    Parameters
    ----------
    sample : Sample
        The data.
    fit : PropensityFit
        The full-sample fit: link, basis and start.
    """

    def __init__(self, sample: Sample, fit: PropensityFit) -> None:
        self.fit = fit
        self.treated = sample.treated
        self.pairs = pairwise_columns(fit.basis.columns)

    def __call__(self, weights: Array, start: Array | None = None) -> PropensityBatch:
        """Refit under weights of shape (n, m), from a start of shape (q,) or (q, m), by default the full-sample fit."""
        start = self.fit.gamma if start is None else start
        return refit_batch(self.fit.basis, self.pairs, self.treated, weights, self.fit.link, start)

    def own_odds(self, gamma: Array) -> Array:
        """Own-arm odds, shape (n, m), under coefficients of shape (q, m)."""
        return self.fit.link.own_odds(self.fit.basis.columns @ gamma, self.treated[:, None])


def draw_replicates(refit: PropensityRefitter, weights: Callable[[int], Array], n_blocks: int) -> Replicates:
    """Fit the propensity replicates block by block.

    Parameters
    ----------
    refit : PropensityRefitter
        Refits the propensity model.
    weights : callable
        Multiplicities of block j, shape (n, m).
    n_blocks : int
        Number of blocks.

    Returns
    -------
    Replicates
        The usable replicates, and the reason for each.
    """
    batches = [refit(weights(j)) for j in range(n_blocks)]
    reasons = np.concatenate([b.reasons for b in batches])
    gamma = np.concatenate([b.gamma for b in batches], axis=1)
    return Replicates(gamma[:, reasons == Reason.OK], reasons)


class SeparateRefitter:
    """Refits every estimator but the joint one.

    Parameters
    ----------
    sample : Sample
        The data.
    spec : Specification
        The estimator.
    propensity : PropensityFit or None
        The full-sample propensity fit.
    estimate : Estimate
        The full-sample estimate; refits are deviations from it.
    """

    def __init__(
        self, sample: Sample, spec: Specification, propensity: PropensityFit | None, estimate: Estimate
    ) -> None:
        self.sample, self.spec, self.estimate = sample, spec, estimate
        self.propensity = PropensityRefitter(sample, propensity) if propensity is not None else None
        self.q = training_columns(sample, spec)
        self.residual = sample.y - estimate.fitted[sample.arm, np.arange(sample.n)]
        columns = np.column_stack([self.q, self.residual])
        self.pairs = [pairwise_columns(columns[rows]) for rows in sample.slices]
        self.to_params = effect_map(sample.n_arms)

    def __call__(self, weights: Array, first: int, batch: PropensityBatch | None = None) -> Refits:
        """Refit under multiplicities of shape (n, m).

        Parameters
        ----------
        weights : ndarray, shape (n, m)
            Multiplicities.
        first : int
            Number of the first resample.
        batch : PropensityBatch, optional
            Propensity refits under these weights, where another estimator already made them.

        Returns
        -------
        Refits
            The estimates.
        """
        sample, spec, m, p = self.sample, self.spec, weights.shape[1], self.q.shape[1]
        reasons = empty_arms(sample, weights)
        gamma, inverse = np.empty((0, m)), np.ones((sample.n, 1))
        if self.propensity is not None:
            batch = batch or self.propensity(weights)
            gamma, reasons = batch.gamma, np.where(reasons == Reason.OK, batch.reasons, reasons)
            inverse = 1 + self.propensity.own_odds(gamma)
        total = weight_totals(weights)
        column_means = (self.q.T @ weights) / total
        fitted_means = (self.estimate.fitted @ weights) / total
        means, theta = np.empty((sample.n_arms, m)), np.empty((sample.n_arms, p, m))
        for arm, rows in enumerate(sample.slices):
            training = weights[rows] * inverse[rows] if spec.weighted else weights[rows]
            gram = gram_matrices(self.pairs[arm], training, p + 1)
            z, singular = solve_definite(gram[:, :p, :p], gram[:, :p, p].T)
            reasons[singular & (reasons == Reason.OK)] = Reason.SINGULAR_OUTCOME
            means[arm] = fitted_means[arm] + (column_means * z).sum(axis=0)
            if spec.corrected:
                scaled = weights[rows] * inverse[rows]
                bias = ((self.q[rows].T @ scaled) * z).sum(axis=0) - self.residual[rows] @ scaled
                means[arm] -= bias / total
            theta[arm] = self.estimate.theta[arm][:, None] + z
        values = np.concatenate([self.to_params @ means, theta.reshape(-1, m), gamma])
        values[:, reasons != Reason.OK] = np.nan
        return Refits(values, reasons.astype(np.int8))


def weight_totals(weights: Array) -> Array:
    """Sum of each column of weights, shape (m,); 1 for a column without weight, which is recorded as an empty arm."""
    total = weights.sum(axis=0)
    return np.where(total > 0, total, 1.0)


def empty_arms(sample: Sample, weights: Array) -> NDArray[np.int8]:
    """Reasons, shape (m,): EMPTY_ARM where a weighting leaves an arm without rows, else OK."""
    present = np.stack([weights[rows].sum(axis=0) > 0 for rows in sample.slices]).all(axis=0)
    return np.where(present, Reason.OK, Reason.EMPTY_ARM).astype(np.int8)


@dataclass(frozen=True)
class ReplicateForms:
    """What a block of resamples needs of its propensity replicates.

    Parameters
    ----------
    forms : ndarray, shape (K, B, m, p + 1)
        Linear forms of the arm biases.
    mean_form : ndarray, shape (K, m, p + 1)
        Their averages over the replicates.
    mean_odds : ndarray, shape (n, m)
        Own-arm odds averaged over the replicates.
    reasons : ndarray of int8, shape (m,)
        NO_REPLICATES where none was usable, else OK.
    """

    forms: Array
    mean_form: Array
    mean_odds: Array
    reasons: NDArray[np.int8]


class SeparableReplicates:
    """Shifted replicates of a logit: their odds are the resample's odds times one matrix for all resamples.

    Parameters
    ----------
    sample : Sample
        The data.
    fit : PropensityFit
        The full-sample logit fit.
    replicates : Replicates
        The replicates of the full sample.
    rows : ndarray, shape (n, p + 1)
        Outcome columns, and residuals of the start in the units of its `Deviation`.

    Notes
    -----
    1 / e_own = 1 + exp(-+ eta), so with eta_cb = eta_c + (eta_b - eta_hat) the odds are exp(-+ eta_c) times
    exp(-+ (eta_b - eta_hat)), and the second factor, shape (n, B), is the same for every resample c.
    """

    def __init__(self, sample: Sample, fit: PropensityFit, replicates: Replicates, rows: Array) -> None:
        self.sample, self.rows = sample, rows
        shift = fit.basis.columns @ (replicates.gamma - fit.gamma[:, None])
        self.spread = fit.link.own_odds(shift, sample.treated[:, None])
        self.mean_spread = self.spread.mean(axis=1)[:, None]

    def __call__(self, weights: Array, odds: Array, gamma: Array, first: int) -> ReplicateForms:
        """Forms for multiplicities (n, m) and the resamples' own odds (n, m)."""
        sample, m, width = self.sample, weights.shape[1], self.rows.shape[1]
        total = weight_totals(weights)
        forms = np.empty((sample.n_arms, self.spread.shape[1], m, width))
        scaled = weights * odds
        for arm, rows in enumerate(sample.slices):
            spread_out = (scaled[rows, :, None] * self.rows[rows, None, :]).reshape(-1, m * width)
            forms[arm] = (self.spread[rows].T @ spread_out).reshape(-1, m, width)
            forms[arm] += weights[rows].T @ self.rows[rows]
        forms /= total[:, None]
        return ReplicateForms(forms, forms.mean(axis=1), odds * self.mean_spread, np.zeros(m, dtype=np.int8))


class GeneralReplicates:
    """Replicates under any link, shifted or nested: one resample at a time.

    Parameters
    ----------
    sample : Sample
        The data.
    fit : PropensityFit
        The full-sample fit.
    residual : ndarray, shape (n,)
        Residuals of the start, in the units of its `Deviation`.
    gamma_of : callable
        Multiplicities (n,), coefficients (q,) and number of a resample -> coefficients of its replicates, (q, B).
    count : int
        Number of replicates, B.
    """

    def __init__(
        self,
        sample: Sample,
        fit: PropensityFit,
        residual: Array,
        gamma_of: Callable[[Array, Array, int], Array],
        count: int,
    ) -> None:
        self.sample, self.fit, self.residual, self.gamma_of, self.count = sample, fit, residual, gamma_of, count

    def __call__(self, weights: Array, odds: Array, gamma: Array, first: int) -> ReplicateForms:
        """Forms for multiplicities (n, m) and the resamples' propensity coefficients (q, m)."""
        sample, m = self.sample, weights.shape[1]
        forms = np.zeros((sample.n_arms, self.count, m, sample.outcome.columns.shape[1] + 1))
        mean_form = np.zeros((sample.n_arms, m, forms.shape[-1]))
        mean_odds = np.zeros((sample.n, m))
        reasons = np.zeros(m, dtype=np.int8)
        for j in range(m):
            replicates = self.gamma_of(weights[:, j], gamma[:, j], first + j)
            used = replicates.shape[1]
            if not used:
                reasons[j] = Reason.NO_REPLICATES
                continue
            reweighted = replace_weights(sample, weights[:, j])
            part, mean_odds[:, j] = bias_forms(reweighted, self.fit, replicates, self.residual)
            mean_form[:, j] = part.mean(axis=1)
            # Rows of unusable replicates stay zero; the scale keeps the mean square over B that over the usable ones.
            forms[:, :used, j] = part * np.sqrt(self.count / used)
        return ReplicateForms(forms, mean_form, mean_odds, reasons)


def replace_weights(sample: Sample, weights: Array) -> Sample:
    """Return the same sample under other observation weights; its bases stay those of the full sample."""
    return Sample(sample.y, sample.outcome, sample.propensity, sample.arm, weights, sample.slices, sample.order)


def shifted_replicates(fit: PropensityFit, replicates: Replicates) -> Callable[[Array, Array, int], Array]:
    """Replicates of a resample: its own fit plus the spread of the full sample's replicates."""
    spread = replicates.gamma - fit.gamma[:, None]
    return lambda weights, gamma, number: gamma[:, None] + spread


def nested_replicates(refit: PropensityRefitter, draw: ReplicateWeights) -> Callable[[Array, Array, int], Array]:
    """Replicates of a resample drawn from the resample itself and fitted afresh."""

    def gamma_of(weights: Array, gamma: Array, number: int) -> Array:
        batch = refit(draw(weights, number), gamma)
        return batch.gamma[:, batch.reasons == Reason.OK]

    return gamma_of


class JointRefitter:
    """Refits the Joint Robust Estimator by QR of the stacked rows of the objective.

    Parameters
    ----------
    sample : Sample
        The data.
    fit : PropensityFit
        The full-sample propensity fit.
    start : Estimate
        The IPWRA estimate; refits are deviations from it.
    criterion : Criterion
        Weights of the terms of the objective, those of the full sample.
    replicates_of : callable
        `SeparableReplicates` or `GeneralReplicates`.
    """

    def __init__(
        self,
        sample: Sample,
        fit: PropensityFit,
        start: Estimate,
        criterion: Criterion,
        replicates_of: Callable[[Array, Array, Array, int], ReplicateForms],
    ) -> None:
        self.sample, self.start, self.criterion, self.replicates_of = sample, start, criterion, replicates_of
        self.propensity = PropensityRefitter(sample, fit)
        self.deviation: Deviation = deviation_from(sample, start)
        q = sample.outcome.columns
        columns = np.column_stack([q, self.deviation.residual, self.deviation.tau])
        self.xi = [columns[rows] for rows in sample.slices]
        self.pairs = [pairwise_columns(columns[rows, :-1]) for rows in sample.slices]
        self.to_params = effect_map(sample.n_arms)

    def __call__(self, weights: Array, first: int, batch: PropensityBatch | None = None) -> Refits:
        """Refit under multiplicities of shape (n, m); parameters as in `SeparateRefitter`."""
        sample = self.sample
        batch = batch or self.propensity(weights)
        gamma = np.where(batch.reasons == Reason.OK, batch.gamma, self.propensity.fit.gamma[:, None])
        odds = self.propensity.own_odds(gamma)
        replicates = self.replicates_of(weights, odds, gamma, first)
        rows = self._rows(weights, odds, replicates)
        z, singular = solve_stacked(rows)
        reasons = np.where(batch.reasons == Reason.OK, replicates.reasons, batch.reasons)
        reasons = np.where(empty_arms(sample, weights) == Reason.OK, reasons, Reason.EMPTY_ARM)
        reasons[singular & (reasons == Reason.OK)] = Reason.SINGULAR_OUTCOME
        z = z * self.deviation.scale
        values = np.concatenate([self._params(weights, replicates, z), self.start.theta.ravel()[:, None] + z, gamma])
        values[:, reasons != Reason.OK] = np.nan
        return Refits(values, reasons.astype(np.int8))

    def _rows(self, weights: Array, odds: Array, replicates: ReplicateForms) -> Array:
        """Rows of the objective for each resample, shape (m, rows, K p + 1)."""
        sample, total = self.sample, weight_totals(weights)
        size = self.xi[0].shape[1] - 1
        fit = [
            gram_matrices(pairs, weights[a] * (1 + replicates.mean_odds[a]) / total, size)
            for pairs, a in zip(self.pairs, sample.slices, strict=True)
        ]
        factors = spectral_factors(np.stack(fit, axis=1).reshape(-1, size, size))
        variance = None
        if self.criterion.variance:
            by_arm = [weights[a] for a in sample.slices], [odds[a] for a in sample.slices]
            variance = variance_factors(self.xi, *by_arm, total)
        net = net_bias_rows(replicates.forms).transpose(1, 0, 2)
        return stack_rows(self.criterion, net, variance, factors.reshape(weights.shape[1], -1, size, size))

    def _params(self, weights: Array, replicates: ReplicateForms, z: Array) -> Array:
        """Effect and arm means net of the common bias, shape (2 K - 1, m)."""
        sample, m = self.sample, weights.shape[1]
        total = weight_totals(weights)
        by_arm = z.reshape(sample.n_arms, -1, m)
        column_means = (sample.outcome.columns.T @ weights) / total
        means = self.start.fitted @ weights / total + np.einsum("pm,apm->am", column_means, by_arm)
        form = replicates.mean_form
        bias = np.einsum("amp,apm->am", form[..., :-1], by_arm) - form[..., -1] * self.deviation.scale
        return self.to_params @ (means - bias.mean(axis=0))
