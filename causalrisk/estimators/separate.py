"""The estimators that train each arm by itself: the point estimate with its influence function, and batched refits.

Flows in: a sample, importance weights w with their derivatives, a `Specification`. Flows out: an `Estimate`; for m
resamples at once its values.

With s_i / N the share of a row, t_i its tilt, m_a the outcome model of arm a at theta_a, the mean of arm a is

    mu_a = sum_i (s_i / N) t_i m_a(x_i)  [ + sum_i (s_i / N) 1{A_i = a} w_i (y_i - m_a(x_i))  for AIPW ]

and theta_a solves sum_i s_i 1{A_i = a} w_i score_i(theta_a) = 0, with w_i = 1 for estimators that train unweighted.
The influence functions are in closed form; the tests compare them with numerical derivatives of exact refits.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

import numpy as np

from causalrisk.estimators.effect_scales import DIFFERENCE, EffectScale
from causalrisk.estimators.outcome import OutcomeRefitter, fit_outcome
from causalrisk.estimators.refits import RELATIVE_ROUNDING, Refits, collect_refits, count_totals, empty_arms
from causalrisk.estimators.sample import Sample, part_of, shifted
from causalrisk.estimators.specification import Estimate, Specification
from causalrisk.numerics.failures import first_failure
from causalrisk.numerics.families import OutcomeFamily, outcome_family
from causalrisk.numerics.linalg import Array, solve, solve_or_nan, weighted_gram, weighted_rows
from causalrisk.numerics.newton import NewtonFits
from causalrisk.propensity.targets import Target
from causalrisk.propensity.weights import RowWeights, WeightFit

FAR = 100  # standard deviations from zero: nearer, the level costs no digits
LEVEL_TOLERANCE = 1e-9  # rounding of a constant that is a combination of the columns
LINEAR = outcome_family("gaussian", None)


def training_columns(sample: Sample, spec: Specification) -> Array:
    """Basis columns of the hypothesis class, shape (n, p): those of the design, or the constant."""
    return np.ones((sample.n, 1)) if spec.constants else sample.X.columns


def training_family(sample: Sample, spec: Specification) -> OutcomeFamily:
    """Family of the outcome models; without offset the best constant is the weighted mean under every one."""
    return LINEAR if spec.constants and sample.offset is None else sample.family


@dataclass(frozen=True)
class Level:
    """Where the outcome lies: a height that linear models do not see, so that digits are kept for what varies.

    Parameters
    ----------
    height : float
        Mean outcome, in its units; 0 where the models have no constant or are not linear.
    direction : ndarray, shape (p,)
        Coefficients of the columns that give the constant one.
    """

    height: float
    direction: Array

    def params(self, scale: EffectScale, means: Array) -> Array:
        """Effects and arm means, shape (2 K - 1, ...), of arm means (K, ...) that are measured from the height."""
        params = scale.params(means + self.height)
        if scale == DIFFERENCE:  # the height cancels
            effects = len(means) - 1
            params[:effects] = scale.params(means)[:effects]
        return params


def outcome_level(sample: Sample, spec: Specification) -> Level:
    """Return the level of the outcome that the models of an estimator can leave out."""
    q = training_columns(sample, spec)
    if not training_family(sample, spec).linear:
        return Level(0.0, np.zeros(q.shape[1]))
    direction = np.linalg.lstsq(q.T @ q, q.sum(axis=0), rcond=None)[0]
    if np.abs(q @ direction - 1).max() > LEVEL_TOLERANCE:
        return Level(0.0, np.zeros(q.shape[1]))
    y = sample.y if sample.offset is None else sample.y - sample.offset
    mean = float(np.average(y, weights=sample.s * sample.observed))
    spread = float(np.sqrt(np.average((y - mean) ** 2, weights=sample.s * sample.observed)))
    return Level(mean if abs(mean) > FAR * spread else 0.0, direction)


def row_weights(sample: Sample, weight_fit: WeightFit | None, target: Target) -> RowWeights:
    """Return the fitted importance weights; without a fit weights of one and the tilt of a target that needs none."""
    if weight_fit is not None:
        return weight_fit
    return RowWeights.without_scores(plain_tilt(sample, target, sample.s[:, None])[:, 0])


def plain_tilt(sample: Sample, target: Target, counts: Array) -> Array:
    """Tilt of a target that needs no propensity score, over its mean under counts (n, m); shape (n, 1) or (n, m).

    That is everybody, the rows of one arm, or a target frame.
    """
    if sample.n_frame:
        tilt = 1 - sample.observed
    elif target.toward is not None:
        tilt = (sample.arm == target.toward).astype(float)
    else:
        return np.ones((sample.n, 1))
    mean = (tilt @ counts) / count_totals(sample, counts)
    return tilt[:, None] / np.where(mean > 0, mean, 1.0)


def estimate_separately(
    sample: Sample, spec: Specification, weights: RowWeights, effect_scale: EffectScale = DIFFERENCE
) -> Estimate:
    """Train each arm's outcome model by itself and average, for every estimator but the joint one.

    Parameters
    ----------
    sample : Sample
        The data.
    spec : Specification
        The estimator.
    weights : RowWeights
        Importance weights and the tilt of the target, as by `row_weights`.
    effect_scale : EffectScale
        How the effect is reported.

    Returns
    -------
    Estimate
        Point estimate and influence function.
    """
    q, family = training_columns(sample, spec), training_family(sample, spec)
    training = weights.w if spec.weighted else sample.observed
    level = outcome_level(sample, spec)
    centred = dataclasses.replace(sample, y=sample.y - level.height)
    fits = [
        fit_outcome(
            q[a], y=centred.y[a], weights=(sample.s * training)[a], family=family, offset=part_of(sample.offset, a)
        )
        for a in sample.slices
    ]
    theta = np.stack([fit.coefficients[:, 0] for fit in fits])
    eta = theta @ q.T
    at_means = shifted(eta, sample.mean_offset)
    predicted, slope = family.mean(at_means), family.mean_deriv(at_means)
    score, curvature, _ = family.score(centred.y, shifted(sample.own(eta), sample.offset))
    effects, n_theta = 2 * sample.n_arms - 1, theta.size
    influence = np.empty((sample.n, effects + n_theta + weights.influence.shape[1]))
    influence[:, effects + n_theta :] = weights.influence
    theta_influence = influence[:, effects : effects + n_theta].reshape(sample.n, *theta.shape)  # a view of its columns
    _influence_of_theta(
        sample, spec=spec, weights=weights, training=training, score=score, curvature=curvature, out=theta_influence
    )
    means, mean_influence = [], []
    for arm in range(sample.n_arms):
        mean, by_theta, known = project_arm(
            centred,
            spec=spec,
            weights=weights,
            g=np.ones((sample.n, 1)),
            q=q,
            arm=arm,
            predicted=predicted[arm],
            slope=slope[arm],
        )
        means.append(mean)
        mean_influence.append(known + theta_influence[:, arm] @ by_theta.T)
    mu, mu_influence = np.concatenate(means), np.concatenate(mean_influence, axis=1)
    with np.errstate(invalid="ignore"):  # means without an effect on this scale are told by the caller
        influence[:, :effects] = mu_influence @ effect_scale.jacobian(mu + level.height).T
    return Estimate(
        params=level.params(effect_scale, mu),
        theta=theta + level.height * level.direction,
        gamma=weights.coefficients,
        predicted=predicted + level.height,
        model_means=sample.mean(weights.tilt[:, None] * predicted.T) + level.height,
        influence=influence,
        failed=tuple(int(fit.failures[0]) for fit in fits),
    )


def _influence_of_theta(
    sample: Sample,
    spec: Specification,
    weights: RowWeights,
    training: Array,
    score: Array,
    curvature: Array,
    *,
    out: Array,
) -> None:
    """Write the influence function of the separately trained coefficients, (n, K, p): bread^-1 times the scores."""
    q, share = training_columns(sample, spec), sample.s / sample.total
    for a, rows in enumerate(sample.slices):
        own = q[rows]
        bread = weighted_gram(own, (share * training * curvature)[rows])
        inverse = solve_or_nan(bread, np.eye(len(bread)))
        if spec.weighted and weights.influence.shape[1]:
            by_gamma = weighted_gram(own, (share * score)[rows], weights.w_by_gamma[rows])
            out[:, a] = weights.influence @ (inverse @ by_gamma).T
        else:
            out[:, a] = 0.0
        out[rows, a] += weighted_rows(own, (training * score)[rows], inverse.T)


def project_arm(
    sample: Sample,
    spec: Specification,
    weights: RowWeights,
    g: Array,
    q: Array,
    *,
    arm: int,
    predicted: Array,
    slope: Array,
) -> tuple[Array, Array, Array]:
    """Project one arm's mean on columns under the target's distribution; on the constant, the mean itself.

    Parameters
    ----------
    sample, spec, weights
        As in `estimate_separately`.
    g : ndarray, shape (n, k)
        The columns.
    q : ndarray, shape (n, p)
        Columns of the outcome model.
    arm : int
        The arm.
    predicted, slope : ndarray, shape (n,)
        Its predictions m_a and their derivatives by the linear predictor.

    Returns
    -------
    coefficients : ndarray, shape (k,)
        The projection b with mean t g (m_a - g'b) = 0; for AIPW b + c, c = (mean t g g')^-1 mean w g (y - m_a).
    by_theta : ndarray, shape (k, p)
        Its derivative by the arm's outcome coefficients.
    influence : ndarray, shape (n, k)
        Its influence function at known outcome coefficients.
    """
    share = sample.s / sample.total
    weighted = (share * weights.tilt)[:, None] * g
    gram = weighted.T @ g
    coefficients = solve(gram, weighted.T @ predicted)
    error = predicted - g @ coefficients
    rows = (weights.tilt * error)[:, None] * g
    by_theta = (weighted * slope[:, None]).T @ q
    by_gamma = np.zeros((g.shape[1], weights.influence.shape[1]))
    if weights.tilt_by_gamma is not None:
        by_gamma = by_gamma + ((share * error)[:, None] * g).T @ weights.tilt_by_gamma
    if spec.corrected:
        inside = sample.indicators[:, arm] * sample.observed
        residual = inside * (sample.y - predicted)
        correction = solve(gram, (share * weights.w * residual) @ g)
        corrected = g @ correction
        rows = rows + (weights.w * residual - weights.measure * corrected)[:, None] * g
        by_theta = by_theta - ((share * weights.w * inside * slope)[:, None] * g).T @ q
        by_gamma = by_gamma + ((share * residual)[:, None] * g).T @ weights.w_by_gamma
        if weights.measure_by_gamma is not None:
            by_gamma = by_gamma - ((share * corrected)[:, None] * g).T @ weights.measure_by_gamma
        coefficients = coefficients + correction
    rows = rows + weights.influence @ by_gamma.T
    return coefficients, solve(gram, by_theta), rows @ solve(gram, np.eye(len(gram)))  # the Gram matrix is symmetric


class SeparateRefitter:
    """Refits every estimator but the joint one.

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
        self.sample, self.spec, self.weight_fit, self.estimate = sample, spec, weight_fit, estimate
        self.target, self.effect_scale = target, effect_scale
        self.q, self.family = training_columns(sample, spec), training_family(sample, spec)
        self.level = outcome_level(sample, spec)
        self.y, self.theta = sample.y - self.level.height, estimate.theta - self.level.height * self.level.direction
        self.outcome = [
            OutcomeRefitter(
                columns=self.q[rows],
                y=self.y[rows],
                family=self.family,
                theta=theta,
                offset=part_of(sample.offset, rows),
            )
            for rows, theta in zip(sample.slices, self.theta, strict=True)
        ]

    def refit(self, counts: Array, first: int, fits: NewtonFits | None = None) -> Refits:
        """As in `refits.Refitter`."""
        sample, spec, m = self.sample, self.spec, counts.shape[1]
        failures = [empty_arms(sample, counts)]
        gamma, tilt, w = np.empty((0, m)), plain_tilt(sample, self.target, counts), np.ones((sample.n, 1))
        if self.weight_fit is not None:
            fits = fits or self.weight_fit.refit(counts)
            failures.append(fits.failures)
            gamma, model = fits.coefficients[: len(self.weight_fit.coefficients)], self.weight_fit.model
            at = model.weights_at(model.predictors(fits.coefficients), counts)
            tilt, w = at.tilt, at.w
        share = counts / count_totals(sample, counts)
        training = counts * (w if spec.weighted else sample.observed[:, None])
        change = np.empty((sample.n_arms, self.q.shape[1], m))
        for a, rows in enumerate(sample.slices):
            change[a], outcome_failures = self.outcome[a].refit(training[rows])
            failures.append(outcome_failures)
        theta = self.theta[..., None] + change
        predicted = self.family.mean(shifted(self.q @ theta, sample.mean_offset, axis=-2))
        means = (share * tilt * predicted).sum(axis=1)
        if spec.corrected:
            residual = share * w * (self.y[:, None] - sample.own(predicted))
            means += np.stack([residual[rows].sum(axis=0) for rows in sample.slices])
        error = RELATIVE_ROUNDING * np.abs(self.estimate.params[-len(means) :])[:, None]
        height = self.level.height
        if self.effect_scale != DIFFERENCE:
            means = self.effect_scale.on_bounds(means + height, error) - height
        params = self.level.params(self.effect_scale, means)
        return collect_refits(params, theta + height * self.level.direction[:, None], gamma, first_failure(*failures))
