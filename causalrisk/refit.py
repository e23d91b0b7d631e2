"""Re-estimation under many resampling weights at once, as matrix products over a block of resamples.

A refitter takes multiplicities of shape (n, m), rows in the order of the sample, and returns `Estimate.values` for each
of the m resamples. Nothing in here loops over rows, and only what does not separate loops over resamples.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from causalrisk.criterion import JointCriterion
from causalrisk.effects import EffectScale
from causalrisk.estimators import Estimate, Specification, plain_tilt, training_columns, training_family
from causalrisk.expansion import Expansion, JointObjective, Resampled
from causalrisk.joint_influence import net_means
from causalrisk.ledger import Reason
from causalrisk.linalg import Array, solve_curved, solve_stacked, spectral_rows
from causalrisk.newton import Batch
from causalrisk.outcome import OutcomeRefitter
from causalrisk.replicates import Replicates, WeightOperator
from causalrisk.sample import Sample
from causalrisk.targets import Target
from causalrisk.weighting import WeightFit, Weights

NEWTON_STEPS, HALVINGS = 200, 20
ROUNDING = 1e-13  # relative decrease of the objective, or relative size of a mean, that is rounding error
STEP_TOLERANCE = 1e-8  # of the coefficients of basis columns, on the scale of the linear predictor


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
OperatorOf = Callable[[Array, Array, int], tuple[Weights, WeightOperator]]


class PropensityRefitter:
    """Refits the propensity model of a sample under a block of weightings.

    Parameters
    ----------
    fit : WeightFit
        The full-sample fit: model, target and start.
    """

    def __init__(self, fit: WeightFit) -> None:
        self.fit = fit

    def __call__(self, weights: Array, start: Array | None = None) -> Batch:
        """Refit under weights of shape (n, m), from a state of shape (S,) or (S, m), by default the full sample's."""
        return self.fit.weighting.refit(weights, self.fit.state if start is None else start)


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
    states = np.concatenate([b.gamma for b in batches], axis=1)
    return Replicates(states[:, reasons == Reason.OK], reasons)


class SeparateRefitter:
    """Refits every estimator but the joint one.

    Parameters
    ----------
    sample : Sample
        The data.
    spec : Specification
        The estimator.
    fit : WeightFit or None
        The full-sample importance weights.
    estimate : Estimate
        The full-sample estimate.
    target : Target
        The target population.
    scale : EffectScale
        How the effect is reported.
    """

    def __init__(
        self,
        sample: Sample,
        spec: Specification,
        fit: WeightFit | None,
        estimate: Estimate,
        target: Target,
        scale: EffectScale,
    ) -> None:
        self.sample, self.spec, self.fit, self.estimate = sample, spec, fit, estimate
        self.target, self.scale = target, scale
        self.propensity = PropensityRefitter(fit) if fit is not None else None
        self.q, self.family = training_columns(sample, spec), training_family(sample, spec)
        self.outcome = [
            OutcomeRefitter(self.q[rows], sample.y[rows], self.family, theta)
            for rows, theta in zip(sample.slices, estimate.theta, strict=True)
        ]

    def __call__(self, weights: Array, first: int, batch: Batch | None = None) -> Refits:
        """Refit under multiplicities of shape (n, m).

        Parameters
        ----------
        weights : ndarray, shape (n, m)
            Multiplicities.
        first : int
            Number of the first resample.
        batch : Batch, optional
            Propensity refits under these weights, where another estimator already made them.

        Returns
        -------
        Refits
            The estimates.
        """
        sample, spec = self.sample, self.spec
        reasons = empty_arms(sample, weights)
        coefficients = np.empty((0, weights.shape[1]))
        if self.propensity is not None and self.fit is not None:
            batch = batch or self.propensity(weights)
            reasons = _first(reasons, batch.reasons)
            coefficients = batch.gamma[: len(self.fit.coefficients)]
            at = self.fit.weighting.weights(self.fit.weighting.predictors(batch.gamma), weights)
            tilt, importance = at.tilt, at.total
        else:
            tilt, importance = plain_tilt(sample, self.target, weights), np.ones((sample.n, 1))
        share = weights / weight_totals(sample, weights)
        training = weights * (importance if spec.weighted else sample.observed[:, None])
        z = np.empty((sample.n_arms, self.q.shape[1], weights.shape[1]))
        for a, rows in enumerate(sample.slices):
            z[a], outcome_reasons = self.outcome[a](training[rows])
            reasons = _first(reasons, outcome_reasons)
        theta = self.estimate.theta[..., None] + z
        fitted = self.family.mean(self.q @ theta)
        means = (share * tilt * fitted).sum(axis=1)
        if spec.corrected:
            residual = share * importance * (sample.y[:, None] - sample.own(fitted))
            means += np.stack([residual[rows].sum(axis=0) for rows in sample.slices])
        error = ROUNDING * np.abs(self.estimate.params[-len(means) :])[:, None]
        params = self.scale.params(self.scale.on_bounds(means, error))
        return _refits(params, theta, coefficients, reasons)


def _refits(params: Array, theta: Array, coefficients: Array, reasons: NDArray[np.int8]) -> Refits:
    """Collect the values; NaN where there is a reason, or where the effect is not defined."""
    reasons = _first(reasons, np.where(np.isnan(params).any(axis=0), Reason.NO_EFFECT, Reason.OK))
    values = np.concatenate([params, theta.reshape(-1, params.shape[1]), coefficients])
    values[:, reasons != Reason.OK] = np.nan
    return Refits(values, reasons)


def _first(reasons: NDArray[np.int8], more: NDArray[np.int8]) -> NDArray[np.int8]:
    """Reasons, and further ones where all was well so far."""
    return np.where(reasons == Reason.OK, more, reasons).astype(np.int8)


def weight_totals(sample: Sample, weights: Array) -> Array:
    """Sum of each column of weights over the sample, shape (m,); 1 for one without weight, recorded as an empty arm."""
    total = weights[sample.n_frame :].sum(axis=0)
    return np.where(total > 0, total, 1.0)


def empty_arms(sample: Sample, weights: Array) -> NDArray[np.int8]:
    """Reasons, shape (m,): EMPTY_ARM where a weighting leaves an arm or the target without rows, else OK."""
    observed = weights * sample.observed[:, None]
    present = np.stack([observed[rows].sum(axis=0) > 0 for rows in sample.slices]).all(axis=0)
    if sample.n_frame:
        present &= weights[: sample.n_frame].sum(axis=0) > 0
    return np.where(present, Reason.OK, Reason.EMPTY_ARM).astype(np.int8)


class JointRefitter:
    """Refits the Joint Robust Estimator: linear models by one QR of the stacked rows, others by Newton's method.

    Parameters
    ----------
    sample : Sample
        The data.
    fit : WeightFit
        The full-sample importance weights.
    theta : ndarray, shape (K, p)
        Where refits begin: the start of a linear fit, the solution of another.
    criterion : JointCriterion
        Weights of the terms of the objective, those of the full sample.
    operator_of : callable
        One of the classes of `causalrisk.resample_weights`.
    scale : EffectScale
        How the effect is reported.
    groups : ndarray, shape (n, G), optional
        Indicators of groups whose effects are wanted in the place of the average ones.
    """

    def __init__(
        self,
        sample: Sample,
        fit: WeightFit,
        theta: Array,
        criterion: JointCriterion,
        operator_of: OperatorOf,
        scale: EffectScale,
        groups: Array | None = None,
    ) -> None:
        self.sample, self.fit, self.theta, self.criterion = sample, fit, theta, criterion
        self.operator_of, self.scale = operator_of, scale
        self.propensity = PropensityRefitter(fit)
        self.objective = JointObjective(sample, criterion, groups)

    def __call__(self, weights: Array, first: int, batch: Batch | None = None) -> Refits:
        """Refit under multiplicities of shape (n, m); parameters as in `SeparateRefitter`."""
        sample = self.sample
        batch = batch or self.propensity(weights)
        states = np.where(batch.reasons == Reason.OK, batch.gamma, self.fit.state[:, None])
        at, operator = self.operator_of(weights, states, first)
        share = weights / weight_totals(sample, weights)
        resampled = Resampled(share, at, operator, operator.mean())
        theta, outcome_reasons = self._solve(resampled)
        reasons = _first(_first(_first(empty_arms(sample, weights), batch.reasons), operator.reasons), outcome_reasons)
        fitted = sample.family.mean(sample.outcome.columns @ theta)
        if self.objective.groups is not None:
            means = np.stack([(share * v.at.tilt * fitted).sum(axis=1) for v in resampled.views(self.objective.groups)])
            effects = np.concatenate([self.scale.effects(group) for group in means])
            return _refits(effects, theta[:, :0], np.empty((0, weights.shape[1])), reasons)
        raw = (share * at.tilt * fitted).sum(axis=1)
        error = share * resampled.mean_weight * (sample.own(fitted) - sample.y[:, None])
        bias = np.stack([error[rows].sum(axis=0) for rows in sample.slices])
        net = net_means(raw, bias, self.criterion.scale_slopes, self.scale)
        params = np.concatenate([self.scale.effects(raw), net])
        return _refits(params, theta, states[: len(self.fit.coefficients)], reasons)

    def _solve(self, resampled: Resampled) -> tuple[Array, NDArray[np.int8]]:
        """Coefficients, shape (K, p, m), and reasons."""
        m = resampled.share.shape[1]
        theta = self.theta[..., None]
        expansion = self.objective.expand(theta, resampled)
        if expansion.bend is None or expansion.value is None:
            step, singular = solve_stacked(self._rows(expansion))
            theta = theta + self.objective.step_unit * step.reshape(*self.theta.shape, m)
            return theta, np.where(singular, Reason.SINGULAR_OUTCOME, Reason.OK).astype(np.int8)
        return self._newton(np.repeat(theta, m, axis=2), resampled)

    def _newton(self, theta: Array, resampled: Resampled) -> tuple[Array, NDArray[np.int8]]:
        """Minimise all objectives at once from theta, shape (K, p, m); as `_solve`. Those that settle are set aside."""
        m = theta.shape[2]
        found, reasons = theta.copy(), np.full(m, Reason.OUTCOME_NOT_CONVERGED, dtype=np.int8)
        active = np.arange(m)
        expansion, value, bend = self._expand(theta, resampled)
        for _ in range(NEWTON_STEPS):
            step, decrease, singular, convex = solve_curved(self._rows(expansion), bend)
            step = np.where(singular, 0.0, step).reshape(theta.shape)
            settled = (np.abs(step).max(axis=(0, 1)) <= STEP_TOLERANCE) | (decrease <= ROUNDING * value)
            before = value
            for _ in range(HALVINGS):
                expansion, value, bend = self._expand(theta + step, resampled)
                worse = ~(value <= before + 1e-9 * np.abs(before))
                if not worse.any():
                    break
                step = np.where(worse, step / 2, step)
            theta = theta + step
            found[..., active] = theta
            reasons[active[settled & convex]] = Reason.OK
            reasons[active[singular]] = Reason.SINGULAR_OUTCOME
            go_on = ~(settled | singular)
            if not go_on.any():
                break
            if not go_on.all():
                active, theta, resampled = active[go_on], theta[..., go_on], resampled.subset(go_on)
                expansion, value, bend = self._expand(theta, resampled)
        return found, reasons

    def _expand(self, theta: Array, resampled: Resampled) -> tuple[Expansion, Array, Array]:
        """Expand a nonlinear objective: the expansion, its value and its curvature beside the rows."""
        with np.errstate(all="ignore"):  # where a step goes too far it is halved
            expansion = self.objective.expand(theta, resampled)
        if expansion.value is None or expansion.bend is None:
            raise TypeError("a linear objective is solved in one step")
        return expansion, expansion.value, expansion.bend

    def _rows(self, expansion: Expansion) -> Array:
        """Rows of the objective for each resample, shape (m, rows, K p + 1), the net biases first."""
        net = np.sqrt(self.criterion.penalty / expansion.count) * expansion.net
        return np.concatenate([net, spectral_rows(expansion.rest)], axis=1)
