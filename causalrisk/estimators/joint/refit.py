"""The joint robust estimator under many resamples at once: the same objective, minimised for all of them together."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from causalrisk.estimators.effect_scales import EffectScale
from causalrisk.estimators.joint.criterion import JointCriterion
from causalrisk.estimators.joint.linear import LinearModels, LinearObjectives, LinearRows, LinearSums, Solved
from causalrisk.estimators.joint.newton import NonlinearObjectives, ResamplesInMemory
from causalrisk.estimators.joint.objective import JointObjective, ResampledWeights
from causalrisk.estimators.joint.solution import net_means
from causalrisk.estimators.refits import ROWS_TOGETHER, Refits, collect_refits, count_totals, empty_arms
from causalrisk.estimators.sample import Sample, shifted
from causalrisk.numerics.blocks import Passes, add_up
from causalrisk.numerics.failures import Failure, first_failure
from causalrisk.numerics.linalg import Array
from causalrisk.numerics.newton import NewtonFits
from causalrisk.numerics.trust_region import Minima
from causalrisk.propensity.resample_replicates import ResampleReplicates
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
        self._passes: Passes[LinearRows] = Passes(replicates.places(sample.n))

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
        resampled = ResampledWeights.of(counts / count_totals(sample, counts), at, replicated)
        solved = self._linear(resampled) if sample.family.linear else self._nonlinear(resampled)
        theta, outcome_failures, means, bias = solved
        failures = first_failure(empty_arms(sample, counts), fits.failures, replicated.failures, outcome_failures)
        if self.objective.groups is not None:
            effects = np.concatenate([self.effect_scale.effects(group) for group in means])
            return collect_refits(effects, theta[:, :0], gamma[:0], failures)
        (raw,) = means
        params = parameters(raw, bias, self.criterion, self.effect_scale)
        return collect_refits(params, theta, gamma[: len(self.weight_fit.coefficients)], failures)

    @cached_property
    def models(self) -> LinearModels:
        """Linear models where the refits begin."""
        return LinearModels.of(self.theta, self.sample)

    arrays, rows_together = 12, ROWS_TOGETHER

    def _linear_part(self, place: slice) -> LinearRows:
        return self.models.rows(self.sample.part(place))

    def _linear(self, resampled: ResampledWeights) -> Solved:
        """Solve the equations of linear models, about the coefficients where the refits begin."""
        views = resampled.views(self.objective.groups)
        sums = add_up(
            LinearSums.of(
                rows,
                self.criterion,
                resampled=resampled.part(place),
                views=[view.part(place) for view in views],
            )
            for place, rows in self._passes.begin(self._linear_part)
        )
        return LinearObjectives(self.models, self.criterion, sums).minima()

    def _nonlinear(self, resampled: ResampledWeights) -> Solved:
        """Minimise the objective of nonlinear models by Newton's method."""
        start = np.repeat(self.theta[..., None], resampled.share.shape[1], axis=2)
        minima = NonlinearObjectives(self.objective, ResamplesInMemory(self.objective, resampled)).minima(start)
        theta = minima.theta.reshape(*self.theta.shape, -1)
        means, bias = mean_sums(self.sample, resampled, resampled.views(self.objective.groups), theta)
        return theta, minimum_failures(minima), means, bias


def minimum_failures(minima: Minima) -> NDArray[np.int8]:
    """Say of each search how it ended."""
    failures = np.where(minima.settled, Failure.OK, Failure.OUTCOME_NOT_CONVERGED)
    return np.where(minima.singular, Failure.SINGULAR_OUTCOME, failures).astype(np.int8)


def mean_sums(
    sample: Sample, resampled: ResampledWeights, views: Sequence[ResampledWeights], theta: Array
) -> tuple[tuple[Array, ...], Array]:
    """Arm means of each view, and biases averaged over the replicates, (K, m); sums over rows at theta (K, p, m)."""
    predicted = sample.family.mean(shifted(sample.X.columns @ theta, sample.offset, axis=-2))
    means = tuple((resampled.share * view.at.tilt * predicted).sum(axis=1) for view in views)
    error = resampled.share * resampled.moments.mean.w * (sample.own(predicted) - sample.y[:, None])
    return means, np.stack([error[rows].sum(axis=0) for rows in sample.slices])


def parameters(raw: Array, bias: Array, criterion: JointCriterion, scale: EffectScale) -> Array:
    """Effects and net arm means, shape (2 K - 1, m), from those of `mean_sums`."""
    return np.concatenate([scale.effects(raw), net_means(raw, bias, criterion.scale_slopes, scale)])
