"""The joint robust estimator under many resamples at once: the same objective, minimised for all of them together."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from causalrisk.estimators.effect_scales import EffectScale
from causalrisk.estimators.joint.criterion import JointCriterion
from causalrisk.estimators.joint.minimum import ResampledObjectives
from causalrisk.estimators.joint.objective import Expansion, JointObjective, ResampledWeights
from causalrisk.estimators.joint.solution import net_means
from causalrisk.estimators.refits import Refits, collect_refits, count_totals, empty_arms
from causalrisk.estimators.sample import Sample, shifted
from causalrisk.numerics.failures import Failure, first_failure
from causalrisk.numerics.linalg import Array, solve_stacked, spectral_equations
from causalrisk.numerics.newton import NewtonFits
from causalrisk.numerics.trust_region import Minima
from causalrisk.propensity.replicates import ResampleReplicates
from causalrisk.propensity.weights import WeightFit


class JointRefitter:
    """Refits the Joint Robust Estimator: linear models by one QR of the stacked equations, others by Newton's method.

    Parameters
    ----------
    sample : Sample
        The data.
    weight_fit : WeightFit
        The full-sample importance weights.
    theta : ndarray, shape (K, p)
        Where refits begin: the start of a linear fit, the solution of another.
    criterion : JointCriterion
        Weights of the terms of the objective, those of the full sample.
    replicates : ResampleReplicates
        The distribution of the propensity score within each resample.
    effect_scale : EffectScale
        How the effect is reported.
    groups : ndarray, shape (n, G), optional
        Indicators of groups whose effects are wanted in the place of the average ones.
    """

    def __init__(
        self,
        sample: Sample,
        weight_fit: WeightFit,
        theta: Array,
        criterion: JointCriterion,
        replicates: ResampleReplicates,
        effect_scale: EffectScale,
        groups: Array | None = None,
    ) -> None:
        self.sample, self.weight_fit, self.theta, self.criterion = sample, weight_fit, theta, criterion
        self.replicates, self.effect_scale = replicates, effect_scale
        self.objective = JointObjective(sample, criterion, groups)

    def refit(self, counts: Array, first: int, fits: NewtonFits | None = None) -> Refits:
        """As in `refits.Refitter`."""
        fits = fits or self.weight_fit.refit(counts)
        m, width = counts.shape[1], self.replicates.at_once or counts.shape[1]
        parts = []
        for start in range(0, m, width):
            part = slice(start, min(start + width, m))
            some = NewtonFits(fits.coefficients[:, part], fits.failures[part], fits.iterations)
            parts.append(self._refit(counts[:, part], first + start, some))
        values = np.concatenate([part.values for part in parts], axis=1)
        return Refits(values, np.concatenate([part.failures for part in parts]))

    def _refit(self, counts: Array, first: int, fits: NewtonFits) -> Refits:
        sample = self.sample
        gamma = np.where(fits.failures == Failure.OK, fits.coefficients, self.weight_fit.gamma[:, None])
        at, replicated = self.replicates.for_resamples(counts, gamma, first)
        share = counts / count_totals(sample, counts)
        resampled = ResampledWeights.of(share, at, replicated)
        theta, outcome_failures = self._solve(resampled)
        failures = first_failure(empty_arms(sample, counts), fits.failures, replicated.failures, outcome_failures)
        if self.objective.groups is not None:
            predicted = sample.family.mean(shifted(sample.X.columns @ theta, sample.offset, axis=-2))
            views = resampled.views(self.objective.groups)
            means = np.stack([(share * view.at.tilt * predicted).sum(axis=1) for view in views])
            effects = np.concatenate([self.effect_scale.effects(group) for group in means])
            return collect_refits(effects, theta[:, :0], gamma[:0], failures)
        params = parameters(*mean_sums(sample, resampled, theta), self.criterion, self.effect_scale)
        return collect_refits(params, theta, gamma[: len(self.weight_fit.coefficients)], failures)

    def _solve(self, resampled: ResampledWeights) -> tuple[Array, NDArray[np.int8]]:
        """Coefficients, shape (K, p, m), and failures."""
        m = resampled.share.shape[1]
        theta = self.theta[..., None]
        if self.sample.family.linear:
            return linear_minima(self.theta, self.objective.expand(theta, resampled), self.objective.step_unit)
        minima = ResampledObjectives(self.objective, resampled).minima(np.repeat(theta, m, axis=2))
        return minima.theta.reshape(*self.theta.shape, m), minimum_failures(minima)


def linear_minima(theta: Array, at: Expansion, step_unit: float) -> tuple[Array, NDArray[np.int8]]:
    """Minimise linear objectives expanded about theta, shape (K, p): coefficients, shape (K, p, m), and failures."""
    step, singular = solve_stacked(np.concatenate([at.strict, spectral_equations(at.gram)], axis=1))
    found = theta[..., None] + step_unit * step.reshape(*theta.shape, -1)
    return found, np.where(singular, Failure.SINGULAR_OUTCOME, Failure.OK).astype(np.int8)


def minimum_failures(minima: Minima) -> NDArray[np.int8]:
    """Say of each search how it ended."""
    failures = np.where(minima.settled, Failure.OK, Failure.OUTCOME_NOT_CONVERGED)
    return np.where(minima.singular, Failure.SINGULAR_OUTCOME, failures).astype(np.int8)


def mean_sums(sample: Sample, resampled: ResampledWeights, theta: Array) -> tuple[Array, Array]:
    """Arm means and their biases averaged over the replicates, shape (K, m); sums over rows, at theta (K, p, m)."""
    predicted = sample.family.mean(shifted(sample.X.columns @ theta, sample.offset, axis=-2))
    raw = (resampled.share * resampled.at.tilt * predicted).sum(axis=1)
    error = resampled.share * resampled.moments.mean.w * (sample.own(predicted) - sample.y[:, None])
    return raw, np.stack([error[rows].sum(axis=0) for rows in sample.slices])


def parameters(raw: Array, bias: Array, criterion: JointCriterion, scale: EffectScale) -> Array:
    """Effects and net arm means, shape (2 K - 1, m), from those of `mean_sums`."""
    return np.concatenate([scale.effects(raw), net_means(raw, bias, criterion.scale_slopes, scale)])
