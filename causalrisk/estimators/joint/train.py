"""The Joint Robust Estimator: all arms trained together over the distribution of the propensity score."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

import numpy as np

from causalrisk.estimators.effect_scales import EffectScale
from causalrisk.estimators.joint.criterion import Criterion, JointCriterion, ate_risk, bias_contrasts, unit_slopes
from causalrisk.estimators.joint.influence import JointSolution
from causalrisk.estimators.joint.objective import Expansion, JointObjective, ResampledWeights, objective_rows
from causalrisk.estimators.sample import Sample
from causalrisk.estimators.specification import Estimate
from causalrisk.numerics.linalg import Array
from causalrisk.numerics.optimize import OptimizeResult, minimize_objective, minimize_squares
from causalrisk.propensity.replicates import BlockwiseWeights, Replicates
from causalrisk.propensity.weights import ImportanceWeights, WeightFit


@dataclass(frozen=True)
class JointProblem:
    """What the joint estimator is trained on.

    Parameters
    ----------
    sample : Sample
        The data.
    weight_fit : WeightFit
        The full-sample importance weights.
    start : Estimate
        The IPWRA estimate.
    replicates : Replicates
        The distribution of the propensity score, of which an objective at the fitted score makes no use.
    effect_scale : EffectScale
        How the effect is reported.
    """

    sample: Sample
    weight_fit: WeightFit
    start: Estimate
    replicates: Replicates
    effect_scale: EffectScale

    @property
    def usual_method(self) -> str:
        """The optimiser unless one is named: least squares where the objective is a sum of squares."""
        return "least_squares" if self.sample.family.linear else "trust-exact"

    def replicate_weights(self) -> BlockwiseWeights:
        """Return the importance weights of the full sample under each replicate."""
        sample, gamma = self.sample, self.replicates.gamma
        weights = sample.s[:, None]
        return BlockwiseWeights(sample.slices, self.weight_fit.model, weights, [gamma], self.replicates.count)


@dataclass(frozen=True)
class JointEstimate:
    """The Joint Robust Estimator with what its diagnostics need; rows in the order of the sample.

    Parameters
    ----------
    estimate : Estimate
        Point estimate and influence function; arm means are net of the common bias.
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


def joint_criterion(problem: JointProblem, criterion: Criterion) -> JointCriterion:
    """Take from the start what the objective holds fixed: contrasts, mean variance function and unit.

    Parameters
    ----------
    problem : JointProblem
        What is trained.
    criterion : Criterion
        Weights of the terms.

    Returns
    -------
    JointCriterion
        The criterion of this sample.
    """
    sample, start = problem.sample, problem.start
    own = sample.own(start.predicted)
    weights = sample.s * problem.weight_fit.w
    dispersion = float(weights @ sample.family.variance(own) / weights.sum())
    residual = float(np.sqrt(sample.mean(sample.observed * (sample.y - own) ** 2)))
    slopes = problem.effect_scale.g_slope(start.model_means)
    return JointCriterion(
        alpha_sigma2=criterion.alpha * dispersion,
        penalty=criterion.penalty,
        with_variance=criterion.with_variance,
        contrasts=bias_contrasts(len(slopes)) * unit_slopes(slopes),
        scale_slopes=slopes,
        rms_residual=residual or 1.0,
        at_fitted_score=criterion.at_fitted_score,
    )


@dataclass(frozen=True)
class Trained:
    """Arms trained jointly.

    Parameters
    ----------
    solution : JointSolution
        The objective at its minimum.
    result : OptimizeResult
        What scipy reported.
    """

    solution: JointSolution
    result: OptimizeResult


def train(problem: JointProblem, criterion: JointCriterion, method: str, starts: Array | None = None) -> Trained:
    """Train the arms jointly.

    Parameters
    ----------
    problem : JointProblem
        What is trained.
    criterion : JointCriterion
        Weights of the terms of the objective.
    method : str
        "least_squares" (linear models only), or a method of `scipy.optimize.minimize`.
    starts : ndarray, shape (n_starts, K p), optional
        Further starting points of the optimiser, in coordinates where the Hessian at the start is the identity and
        relative to it; the best of the minima found is kept.

    Returns
    -------
    Trained
        The solution.
    """
    sample, start = problem.sample, problem.start
    if criterion.at_fitted_score:
        problem = dataclasses.replace(problem, replicates=Replicates.single(problem.weight_fit.gamma))
    objective = JointObjective(sample, criterion)
    operator = problem.replicate_weights()
    share = (sample.s / sample.total)[:, None]
    resampled = ResampledWeights(share, weights_of(problem.weight_fit), operator, operator.mean())
    rows, shape = objective_rows(objective, start.theta, resampled), start.theta.shape

    def value_gradient_hessian(z: Array) -> tuple[float, Array, Array]:
        with np.errstate(all="ignore"):  # where a step goes too far the value is not finite
            at = objective.expand(start.theta[..., None] + z.reshape(*shape, 1), resampled)
        return _derivatives(at, criterion.penalty / problem.replicates.count)

    if sample.family.linear:
        z, result = minimize_squares(rows, method)
    else:
        z, result = minimize_objective(value_gradient_hessian, rows, method, starts)
    theta = start.theta + objective.step_unit * z.reshape(shape)
    if not sample.family.linear:
        rows = objective_rows(objective, theta, resampled)
    solution = JointSolution(
        objective, problem.weight_fit, problem.replicates, resampled, theta, rows, problem.effect_scale
    )
    return Trained(solution, result)


def _derivatives(at: Expansion, risk: float) -> tuple[float, Array, Array]:
    """Value, gradient and Hessian of a nonlinear objective; an infinite value where they are not finite.

    Parameters
    ----------
    at : Expansion
        The objective of the full sample at a point.
    risk : float
        Weight of the rows of the net biases.
    """
    if at.value is None or at.curvature is None:
        raise TypeError("a linear objective is minimised by its equations")
    net, rest = at.net_bias[0], at.gram[0]
    gradient = -(risk * net[:, :-1].T @ net[:, -1] + rest[:, -1])
    hessian = risk * net[:, :-1].T @ net[:, :-1] + rest[:, :-1] + at.curvature[0]
    finite = all(np.isfinite(part).all() for part in (at.value, at.net_bias, at.gram, at.curvature))
    return float(at.value[0]) if finite else np.inf, gradient, hessian


def estimate_of_trained(problem: JointProblem, trained: Trained) -> JointEstimate:
    """Return the estimate of trained arms with its influence function and diagnostics over the replicates."""
    at, sample, weight_fit = trained.solution, problem.sample, problem.weight_fit
    criterion, moments = at.criterion, at.moments()
    influence = np.column_stack([at.influence(moments), weight_fit.influence])
    means = sample.mean(weight_fit.tilt[:, None] * at.predicted.T)
    estimate = Estimate(at.params(), at.theta, weight_fit.coefficients, at.predicted, means, influence)
    errors = np.column_stack([at.error, sample.own(problem.start.predicted) - sample.y])
    share = (sample.s / sample.total)[:, None]
    operator = problem.replicate_weights() if criterion.at_fitted_score else at.resampled.replicated
    bias, start_bias = np.moveaxis(operator.sums(share, errors[:, None])[:, :, 0], -1, 0)
    return JointEstimate(
        estimate=estimate,
        bias=bias,
        start_bias=start_bias,
        influence_variance=at.influence_variance,
        mc_se=np.zeros(sample.n_arms - 1) if criterion.at_fitted_score else at.monte_carlo_se(moments),
        result=trained.result,
        slopes=unit_slopes(criterion.scale_slopes),
    )


def estimate_jointly(problem: JointProblem, criterion: JointCriterion) -> JointEstimate:
    """Train the arms jointly by the usual method and return the estimate."""
    return estimate_of_trained(problem, train(problem, criterion, problem.usual_method))


def weights_of(fit: WeightFit) -> ImportanceWeights:
    """Return the importance weights of the full sample as those of one weighting."""
    tilt = fit.tilt[:, None]
    measure = tilt if fit.measure is fit.tilt else fit.measure[:, None]
    return ImportanceWeights(fit.excess[:, None], tilt, measure)
