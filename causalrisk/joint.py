"""The Joint Robust Estimator: all arms trained together over the distribution of the propensity score."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from causalrisk.criterion import Criterion, JointCriterion
from causalrisk.effects import EffectScale
from causalrisk.estimators import Estimate
from causalrisk.expansion import ArmInfluence, Expansion, JointObjective, Resampled
from causalrisk.joint_influence import Solution
from causalrisk.linalg import Array, triangular_factor
from causalrisk.optimize import OptimizeResult, minimize_objective, minimize_rows
from causalrisk.replicates import DenseWeights, Replicates
from causalrisk.risk import ate_risk, bias_contrasts, unit_slopes
from causalrisk.sample import Sample
from causalrisk.weighting import WeightFit, Weights


@dataclass(frozen=True)
class JointEstimate:
    """The Joint Robust Estimator with what its diagnostics need; rows in the order of the sample.

    Parameters
    ----------
    estimate : Estimate
        Point estimate and influence function; arm means are net of the common bias.
    start : Estimate
        The IPWRA estimate it started from.
    bias, start_bias : ndarray, shape (K, B)
        Bias of each arm under each replicate, here and at the start; also where the arms were trained at the fitted
        propensity score.
    influence_variance : float
        V, the variance of the influence function of the effect at the fitted propensity score.
    mc_se : ndarray, shape (K - 1,)
        Monte Carlo standard error of the effects due to the finite number of replicates; NaN for one replicate, 0 where
        the arms were trained at the fitted propensity score.
    result : OptimizeResult
        What scipy reported.
    slopes : ndarray, shape (K,)
        What the risk multiplies the biases by: the slopes of the scale of the effect, their mean square one.
    """

    estimate: Estimate
    start: Estimate
    bias: Array
    start_bias: Array
    influence_variance: float
    mc_se: Array
    result: OptimizeResult
    slopes: Array

    @property
    def net_bias(self) -> Array:
        """Net biases of arms 1 .. K-1 against arm 0 under each replicate, here and at the start, shape (2, K - 1, B).

        On another scale than the difference they are what moves the effect, in units of the outcome.
        """
        scaled = self.slopes[:, None] * np.stack([self.bias, self.start_bias])
        return scaled[:, 1:] - scaled[:, :1]

    @property
    def expected_risk(self) -> float:
        """Mean ATE risk over the replicates."""
        return float(ate_risk(self.slopes[:, None] * self.bias).mean())

    @property
    def start_risk(self) -> float:
        """Mean ATE risk of the start over the replicates."""
        return float(ate_risk(self.slopes[:, None] * self.start_bias).mean())


def joint_criterion(
    sample: Sample, fit: WeightFit, start: Estimate, criterion: Criterion, scale: EffectScale
) -> JointCriterion:
    """Take from the start what the objective holds fixed: contrasts, mean variance function and unit.

    Parameters
    ----------
    sample : Sample
        The data.
    fit : WeightFit
        The fitted importance weights.
    start : Estimate
        The IPWRA estimate.
    criterion : Criterion
        Weights of the terms.
    scale : EffectScale
        How the effect is reported.

    Returns
    -------
    JointCriterion
        The criterion of this sample.
    """
    own = sample.own(start.fitted)
    weights = sample.weights * fit.total
    dispersion = float(weights @ sample.family.variance(own) / weights.sum())
    residual = float(np.sqrt(sample.mean(sample.observed * (sample.y - own) ** 2)))
    slopes = scale.g_slope(start.model_means)
    return JointCriterion(
        criterion.fit * dispersion,
        criterion.penalty,
        criterion.variance,
        bias_contrasts(len(slopes)) * unit_slopes(slopes),
        slopes,
        residual or 1.0,
        criterion.fitted,
    )


@dataclass(frozen=True)
class Trained:
    """Arms trained jointly.

    Parameters
    ----------
    solution : Solution
        The objective at its minimum.
    result : OptimizeResult
        What scipy reported.
    """

    solution: Solution
    result: OptimizeResult


def train(
    sample: Sample,
    fit: WeightFit,
    start: Estimate,
    replicates: Replicates,
    criterion: JointCriterion,
    method: str,
    scale: EffectScale,
    starts: Array | None = None,
) -> Trained:
    """Train the arms jointly.

    Parameters
    ----------
    sample : Sample
        The data.
    fit : WeightFit
        The full-sample importance weights.
    start : Estimate
        The IPWRA estimate.
    replicates : Replicates
        The distribution of the propensity score, of which an objective at the fitted score makes no use.
    criterion : JointCriterion
        Weights of the terms of the objective.
    method : str
        "least_squares" (linear models only), or a method of `scipy.optimize.minimize`.
    scale : EffectScale
        How the effect is reported.
    starts : ndarray, shape (n_starts, K p), optional
        Further starting points of the optimiser, in coordinates where the Hessian at the start is the identity and
        relative to it; the best of the minima found is kept.

    Returns
    -------
    Trained
        The solution.
    """
    if criterion.fitted:
        replicates = Replicates.single(fit.state)
    objective = JointObjective(sample, criterion)
    operator = replicated_weights(sample, fit, replicates)
    share = (sample.weights / sample.total)[:, None]
    resampled = Resampled(share, weights_of(fit), operator, operator.mean())
    rows, shape = objective_rows(objective, start.theta, resampled), start.theta.shape

    def expand(z: Array) -> Expansion:
        return objective.expand(start.theta[..., None] + z.reshape(*shape, 1), resampled)

    if sample.family.linear:
        z, result = minimize_rows(rows, method)
    else:
        z, result = minimize_objective(expand, rows, criterion.penalty / replicates.count, method, starts)
    theta = start.theta + objective.step_unit * z.reshape(shape)
    if not sample.family.linear:
        rows = objective_rows(objective, theta, resampled)
    return Trained(Solution(objective, fit, replicates, resampled, theta, rows, scale), result)


def estimate_of_trained(trained: Trained, start: Estimate, replicates: Replicates) -> JointEstimate:
    """Return the estimate of trained arms with its influence function and diagnostics over the replicates."""
    at = trained.solution
    sample, fit, criterion = at.sample, at.fit, at.criterion
    moments = at.moments()
    influence = np.column_stack([at.influence(moments), fit.influence])
    means = sample.mean(fit.tilt[:, None] * at.fitted.T)
    estimate = Estimate(at.params(), at.theta, fit.coefficients, at.fitted, means, influence)
    errors = np.column_stack([at.error, sample.own(start.fitted) - sample.y])
    share = (sample.weights / sample.total)[:, None]
    operator = replicated_weights(sample, fit, replicates) if criterion.fitted else at.resampled.replicated
    bias, start_bias = np.moveaxis(operator.sums(share, errors[:, None])[:, :, 0], -1, 0)
    mc_se = np.zeros(sample.n_arms - 1) if criterion.fitted else at.monte_carlo_se(moments)
    slopes = unit_slopes(criterion.scale_slopes)
    return JointEstimate(estimate, start, bias, start_bias, at.influence_variance, mc_se, trained.result, slopes)


def estimate_jointly(
    sample: Sample,
    fit: WeightFit,
    start: Estimate,
    replicates: Replicates,
    criterion: JointCriterion,
    method: str,
    scale: EffectScale,
) -> JointEstimate:
    """Train the arms jointly and return the estimate; parameters as in `train`."""
    return estimate_of_trained(train(sample, fit, start, replicates, criterion, method, scale), start, replicates)


def replicated_weights(sample: Sample, fit: WeightFit, replicates: Replicates) -> DenseWeights:
    """Return the importance weights of the full sample under each replicate."""
    return DenseWeights(sample.slices, fit.weighting, sample.weights[:, None], [replicates.states], replicates.count)


def objective_rows(objective: JointObjective, theta: Array, resampled: Resampled) -> Array:
    """Rows of the joint objective about theta on the full sample, each factor by QR of the rows of the data.

    Parameters
    ----------
    objective : JointObjective
        The objective.
    theta : ndarray, shape (K, p)
        Coefficients.
    resampled : Resampled
        The full sample as a weighting.

    Returns
    -------
    ndarray, shape (r, K p + 1)
        Rows in the units of the objective, those of the net biases first, the largest first so that QR keeps their
        digits.
    """
    sample, criterion, q = objective.sample, objective.criterion, objective.q
    n_arms, p = theta.shape
    expansion = objective.expand(theta[..., None], resampled)
    eta = theta @ q.T
    share = resampled.share[:, 0]
    parts = [np.sqrt(criterion.penalty / resampled.replicated.count) * expansion.net[0] / objective.row_units]
    if criterion.variance:
        mean, slope = sample.family.mean(eta), sample.family.slope(eta)
        residual = (sample.y - sample.own(mean))[:, None]
        arms = ArmInfluence(objective, resampled, mean[..., None], slope[..., None], residual)
        slopes = [part for _, part in arms.centred_slopes()]
        for contrast in criterion.contrasts:
            columns = [c * part for c, part in zip(contrast, slopes, strict=True)]
            row = np.column_stack([*columns, -contrast @ arms.psi[..., 0]])
            parts.append(triangular_factor(row * np.sqrt(share)[:, None]))
    score, _, expected = sample.family.score(sample.y, sample.own(eta))
    root = np.sqrt(criterion.fit * share * resampled.mean_weight[:, 0] * expected)
    for a, rows in enumerate(sample.slices):
        spread = np.zeros((p + 1, n_arms * p + 1))
        factor = triangular_factor(np.column_stack([q[rows], score[rows] / expected[rows]]) * root[rows, None])
        spread[: len(factor), [*range(a * p, (a + 1) * p), -1]] = factor
        parts.append(spread)
    return np.concatenate(parts) * objective.row_units


def weights_of(fit: WeightFit) -> Weights:
    """Return the importance weights of the full sample as those of one weighting."""
    tilt = fit.tilt[:, None]
    measure = tilt if fit.measure is fit.tilt else fit.measure[:, None]
    return Weights(fit.excess[:, None], tilt, measure)
