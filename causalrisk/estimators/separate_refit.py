"""Batched refits of the estimators that train each arm by itself, in stages that are sums over rows.

Flows in: multiplicities of rows, shape (n, m). Flows out: for m resamples at once the values of an `Estimate`. The
rows are all of a sample, or a block of them, whose sums the caller adds up.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from typing import cast

import numpy as np
from numpy.typing import NDArray

from causalrisk.estimators.effect_scales import DIFFERENCE, EffectScale
from causalrisk.estimators.outcome import OutcomeRefitter
from causalrisk.estimators.refits import RELATIVE_ROUNDING, Refits, collect_refits, count_totals, empty_arms
from causalrisk.estimators.sample import Sample, part_of, shifted
from causalrisk.estimators.separate import Level, outcome_level, plain_tilt, training_columns, training_family
from causalrisk.estimators.specification import Estimate, Specification
from causalrisk.numerics.failures import first_failure
from causalrisk.numerics.families import OutcomeFamily
from causalrisk.numerics.linalg import Array
from causalrisk.numerics.newton import NewtonFits
from causalrisk.propensity.targets import Target
from causalrisk.propensity.weights import TargetSums, WeightFit, WeightModel


@dataclass(frozen=True)
class FullFit:
    """The full-sample estimate, which resamples start from.

    Parameters
    ----------
    params : ndarray, shape (2 K - 1,)
        Effects and arm means.
    theta : ndarray, shape (K, p)
        Outcome coefficients, of outcomes measured from the level.
    level : Level
        Where the outcome lies.
    effect_scale : EffectScale
        How the effect is reported.
    """

    params: Array
    theta: Array
    level: Level
    effect_scale: EffectScale

    def refits(self, means: Array, theta: Array, gamma: Array, failures: NDArray[np.int8]) -> Refits:
        """Collect the values of m resamples.

        Parameters
        ----------
        means : ndarray, shape (K, m)
            Arm means, measured from the level.
        theta : ndarray, shape (K, p, m)
            Outcome coefficients, measured from it.
        gamma : ndarray, shape (Q, m)
            Propensity coefficients.
        failures : ndarray of int8, shape (m,)
            What failed.
        """
        level, error = self.level, RELATIVE_ROUNDING * np.abs(self.params[-len(means) :])[:, None]
        if self.effect_scale != DIFFERENCE:
            means = self.effect_scale.on_bounds(means + level.height, error) - level.height
        params = level.params(self.effect_scale, means)
        return collect_refits(params, theta + level.height * level.direction[:, None], gamma, failures)


@dataclass(frozen=True)
class RefitRows:
    """Rows under multiplicities: all of a sample, or a block of them.

    Parameters
    ----------
    sample : Sample
        The rows, outcomes measured from the level.
    spec : Specification
        The estimator.
    target : Target
        The target population.
    model : WeightModel or None
        Propensity model and target, where there are importance weights to fit.
    theta : ndarray, shape (K, p)
        The full-sample outcome coefficients.
    """

    sample: Sample
    spec: Specification
    target: Target
    model: WeightModel | None
    theta: Array

    @property
    def weight_model(self) -> WeightModel:
        """The model, where there is one."""
        return cast(WeightModel, self.model)

    @cached_property
    def q(self) -> Array:
        """Columns of the outcome models, shape (n, p)."""
        return training_columns(self.sample, self.spec)

    @cached_property
    def family(self) -> OutcomeFamily:
        """Family of the outcome models."""
        return training_family(self.sample, self.spec)

    @cached_property
    def outcome(self) -> list[OutcomeRefitter]:
        """The outcome model of each arm."""
        return [
            OutcomeRefitter(
                columns=self.q[rows],
                y=self.sample.y[rows],
                family=self.family,
                theta=theta,
                offset=part_of(self.sample.offset, rows),
            )
            for rows, theta in zip(self.sample.slices, self.theta, strict=True)
        ]

    def weights(self, counts: Array, gamma: Array, whole: TargetSums | None = None) -> tuple[Array, Array]:
        """Tilt and importance weights under multiplicities (n, m) and propensity coefficients (S, m).

        Where the rows are a block of others, `whole` has the sums over all of them.
        """
        if self.model is None:
            tilt = plain_tilt(self.sample, self.target, counts, None if whole is None else whole.mean_tilt)
            return tilt, np.ones((self.sample.n, 1))
        at = self.model.weights_at(self.model.predictors(gamma), counts, whole)
        return at.tilt, at.w

    def training(self, counts: Array, w: Array) -> list[Array]:
        """Weights of the training of the outcome model of each arm, shape (n_a, m)."""
        training = counts * (w if self.spec.weighted else self.sample.observed[:, None])
        return [training[rows] for rows in self.sample.slices]

    def means(self, share: Array, tilt: Array, w: Array, theta: Array) -> Array:
        """Sum over the rows what the arm means are made of, shape (K, m).

        Parameters
        ----------
        share : ndarray, shape (n, m)
            Multiplicities over their total.
        tilt, w : ndarray, shape (n, m) or (n, 1)
            As by `weights`.
        theta : ndarray, shape (K, p, m)
            Outcome coefficients.
        """
        sample = self.sample
        predicted = self.family.mean(shifted(self.q @ theta, sample.mean_offset, axis=-2))
        means = (share * tilt * predicted).sum(axis=1)
        if self.spec.corrected:
            residual = share * w * (sample.y[:, None] - sample.own(predicted))
            means += np.stack([residual[rows].sum(axis=0) for rows in sample.slices])
        return np.asarray(means)


class SeparateRefitter:
    """Refits every estimator but the joint one, in memory.

    Parameters
    ----------
    sample : Sample
        The data.
    spec : Specification
        The estimator.
    weight_fit : WeightFit or None
        The full-sample importance weights.
    estimate : Estimate
        The full-sample estimate.
    target : Target
        The target population.
    effect_scale : EffectScale
        How the effect is reported.
    """

    def __init__(
        self,
        sample: Sample,
        spec: Specification,
        weight_fit: WeightFit | None,
        estimate: Estimate,
        target: Target,
        effect_scale: EffectScale,
    ) -> None:
        level = outcome_level(sample, spec)
        theta = estimate.theta - level.height * level.direction
        self.weight_fit, self.full = weight_fit, FullFit(estimate.params, theta, level, effect_scale)
        self.rows = RefitRows(
            sample=replace(sample, y=sample.y - level.height),
            spec=spec,
            target=target,
            model=None if weight_fit is None else weight_fit.model,
            theta=theta,
        )

    def refit(self, counts: Array, first: int, fits: NewtonFits | None = None) -> Refits:
        """As in `refits.Refitter`."""
        rows, sample, gamma = self.rows, self.rows.sample, np.empty((0, counts.shape[1]))
        failures = [empty_arms(sample, counts)]
        if self.weight_fit is not None:
            fits = fits or self.weight_fit.refit(counts)
            failures.append(fits.failures)
            gamma = fits.coefficients
        tilt, w = rows.weights(counts, gamma)
        share = counts / count_totals(sample, counts)
        change = np.empty((*rows.theta.shape, counts.shape[1]))
        for a, training in enumerate(rows.training(counts, w)):
            change[a], outcome_failures = rows.outcome[a].refit(training)
            failures.append(outcome_failures)
        theta = rows.theta[..., None] + change
        means = rows.means(share, tilt, w, theta)
        n_gamma = 0 if self.weight_fit is None else len(self.weight_fit.coefficients)
        return self.full.refits(means, theta, gamma[:n_gamma], first_failure(*failures))
