"""The Joint Robust Estimator: all arms trained together over the distribution of the propensity score.

Flows in: a sample, the IPWRA fit, propensity replicates, the weights of the objective's terms. Flows out: theta by a
scipy optimiser, the estimate with its influence function, and its risk beside that of the IPWRA fit.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from causalrisk.estimators.effect_scales import EffectScale
from causalrisk.estimators.joint.criterion import Criterion, JointCriterion, ate_risk, bias_contrasts, unit_slopes
from causalrisk.estimators.joint.influence import influence_function, monte_carlo_se
from causalrisk.estimators.joint.minimum import ResampledObjectives
from causalrisk.estimators.joint.objective import Expansion, JointObjective, ResampledWeights, objective_equations
from causalrisk.estimators.joint.replicate_sums import replicate_sums
from causalrisk.estimators.joint.solution import JointSolution
from causalrisk.estimators.joint.variance import predictions_variance
from causalrisk.estimators.sample import Sample
from causalrisk.estimators.specification import Estimate, KnownRows
from causalrisk.numerics.linalg import Array
from causalrisk.numerics.optimize import OptimizeResult, minimize_objective, minimize_squares
from causalrisk.propensity.replicates import BlockwiseWeights, Replicates
from causalrisk.propensity.weights import WeightFit


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
        The distribution of the propensity score.
    effect_scale : EffectScale
        How the effect is reported.
    n_units : float
        n: rows of the sample, each as often as a frequency weight counts it.
    """

    sample: Sample
    weight_fit: WeightFit
    start: Estimate
    replicates: Replicates
    effect_scale: EffectScale
    n_units: float

    @property
    def usual_method(self) -> str:
        """The optimiser unless one is named: least squares where the objective is a sum of squares."""
        return "least_squares" if self.sample.family.linear else "trust-exact"

    def replicate_weights(self) -> BlockwiseWeights:
        """Return the importance weights of the full sample under each replicate."""
        sample, gamma = self.sample, self.replicates.gamma
        weights = sample.s[:, None]
        return BlockwiseWeights(
            slices=sample.slices,
            model=self.weight_fit.model,
            counts=weights,
            gammas=[gamma],
            count=self.replicates.count,
        )


@dataclass(frozen=True)
class JointEstimate:
    """The Joint Robust Estimator with what its diagnostics need; rows in the order of the sample.

    Parameters
    ----------
    estimate : Estimate
        Point estimate and influence function; arm means are net of the common bias.
    bias, start_bias : ndarray, shape (K, B)
        Bias of each arm under each replicate, here and at the IPWRA fit.
    variance, start_variance : float
        V, the variance of the influence function of the effect at known scores averaged over the replicates, here and
        at the IPWRA fit.
    n_units : float
        n, by which V is divided in the expected risk.
    full_risk : bool
        Whether the risk of the objective has the sampling variance.
    fitted_net_bias : ndarray, shape (K - 1,)
        Contrasts of the net biases at the fitted propensity score.
    mc_se : ndarray, shape (K - 1,)
        Monte Carlo standard error of the effects due to the finite number of replicates; NaN for one replicate.
    result : OptimizeResult
        What scipy reported.
    slopes : ndarray, shape (K,)
        What the risk multiplies the biases by: the slopes of the scale of the effect, their mean square one.
    """

    estimate: Estimate
    bias: Array
    start_bias: Array
    variance: float
    start_variance: float
    n_units: float
    full_risk: bool
    fitted_net_bias: Array
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
    def squared_net_bias(self) -> float:
        """Squared net bias averaged over the replicates."""
        return float(ate_risk(self.slopes[:, None] * self.bias).mean())

    @property
    def start_squared_net_bias(self) -> float:
        """The same of the IPWRA fit."""
        return float(ate_risk(self.slopes[:, None] * self.start_bias).mean())

    @property
    def expected_risk(self) -> float:
        """The expected ATE risk: squared net bias and, where the objective has it, sampling variance."""
        return self.squared_net_bias + (self.variance / self.n_units if self.full_risk else 0.0)

    @property
    def start_risk(self) -> float:
        """The expected ATE risk of the IPWRA fit."""
        return self.start_squared_net_bias + (self.start_variance / self.n_units if self.full_risk else 0.0)


def joint_criterion(problem: JointProblem, criterion: Criterion) -> JointCriterion:
    """Take from the start what the objective holds fixed: contrasts, mean variance function and residual spread.

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
        fitted_penalty=criterion.fitted_penalty,
        full_risk=criterion.full_risk,
        contrasts=bias_contrasts(len(slopes)) * unit_slopes(slopes),
        scale_slopes=slopes,
        rms_residual=residual or 1.0,
    )


class Trainer:
    """Trains the arms of one problem, under one criterion after another.

    Parameters
    ----------
    problem : JointProblem
        What is trained.
    method : str, optional
        "least_squares" (linear models only), or a method of `scipy.optimize.minimize`; by default that of the problem.
    starts : ndarray, shape (n_starts, K p), optional
        Further starting points of the optimiser, in coordinates where the Hessian where it begins is the identity and
        relative to that point; the best of the minima found is kept.
    """

    def __init__(self, problem: JointProblem, method: str | None = None, starts: Array | None = None) -> None:
        self.problem, self.starts = problem, starts
        self.method, self.along_valleys = method or problem.usual_method, method is None
        self.replicated = problem.replicate_weights()
        share = (problem.sample.s / problem.sample.total)[:, None]
        self.resampled = ResampledWeights.of(share, problem.weight_fit.as_resample(), self.replicated)
        self._objective: JointObjective | None = None

    def objective(self, criterion: JointCriterion) -> JointObjective:
        """Return the objective under a criterion."""
        if self._objective is None:
            self._objective = JointObjective(self.problem.sample, criterion)
        return self._objective.under(criterion)

    def train(self, criterion: JointCriterion, near: JointSolution | None = None) -> JointSolution:
        """Minimise the objective.

        Parameters
        ----------
        criterion : JointCriterion
            Weights of the terms of the objective.
        near : JointSolution, optional
            The minimum under other weights, to go on from; by default the IPWRA fit is where the search begins.

        Returns
        -------
        JointSolution
            Its minimum.
        """
        problem, objective, resampled = self.problem, self.objective(criterion), self.resampled
        start = problem.start.theta if near is None else near.theta
        equations = objective_equations(objective, start, resampled)
        if problem.sample.family.linear:
            z, result = minimize_squares(equations, self.method)
            theta = start + objective.step_unit * z.reshape(start.shape)
        else:
            theta, result = self._minimum(objective, start, equations)
            equations = objective_equations(objective, theta, resampled)
        return JointSolution(
            objective=objective,
            weight_fit=problem.weight_fit,
            replicates=problem.replicates,
            resampled=resampled,
            theta=theta,
            equations=equations,
            effect_scale=problem.effect_scale,
            result=result,
        )

    def _minimum(self, objective: JointObjective, start: Array, equations: Array) -> tuple[Array, OptimizeResult]:
        """Minimise a nonlinear objective from theta, whose equations are given, and from the further starts.

        The large penalties of small anchors make narrow curved valleys, along which scipy's optimisers take hundreds of
        steps. Unless the optimiser was named, it begins where the method of the resamples ends, which follows them.
        """
        if self.along_valleys:
            ahead = ResampledObjectives(objective, self.resampled).minima(start[..., None])
            if np.isfinite(ahead.value[0]):
                start = ahead.theta.reshape(start.shape)
                equations = objective_equations(objective, start, self.resampled)

        def value_gradient_hessian(z: Array) -> tuple[float, Array, Array]:
            with np.errstate(all="ignore"):  # where a step goes too far the value is not finite
                return _derivatives(objective.expand(start[..., None] + z.reshape(*start.shape, 1), self.resampled))

        z, result = minimize_objective(value_gradient_hessian, equations, self.method, self.starts)
        return start + z.reshape(start.shape), result

    def estimate(self, solution: JointSolution) -> JointEstimate:
        """Return the estimate of a solution with its influence function and diagnostics over the replicates."""
        sample, weight_fit, start = self.problem.sample, self.problem.weight_fit, self.problem.start
        sums = replicate_sums(solution, self.replicated)
        influence = np.column_stack([influence_function(solution, sums), weight_fit.influence])
        params, predicted = solution.params(), solution.predicted
        estimate = Estimate(
            params=params,
            theta=solution.theta,
            gamma=weight_fit.coefficients,
            model_means=solution.raw_means,
            rows=KnownRows(predicted, influence),
        )
        errors = np.column_stack([solution.error, sample.own(start.predicted) - sample.y])
        share = self.resampled.share
        bias, start_bias = np.moveaxis(self.replicated.sums(share, errors[:, None])[:, :, 0], -1, 0)
        return JointEstimate(
            estimate=estimate,
            bias=bias,
            start_bias=start_bias,
            variance=float(solution.variance.value()[0]),
            start_variance=self.variance_of(start.predicted, solution.criterion),
            n_units=self.problem.n_units,
            full_risk=solution.criterion.full_risk,
            fitted_net_bias=solution.u[:, 0],
            mc_se=monte_carlo_se(solution, sums),
            result=solution.result,
            slopes=unit_slopes(solution.criterion.scale_slopes),
        )

    def variance_of(self, predicted: Array, criterion: JointCriterion) -> float:
        """V of any outcome predictions, shape (K, n)."""
        sample = self.problem.sample
        residual = (sample.y - sample.own(predicted))[:, None]
        D = criterion.contrasts.T @ criterion.contrasts
        moments = self.resampled.moments
        return predictions_variance(
            sample.slices, D=D, share=self.resampled.share, moments=moments, predicted=predicted, residual=residual
        )


def _derivatives(at: Expansion) -> tuple[float, Array, Array]:
    """Value, gradient and Hessian of a nonlinear objective; an infinite value where they are not finite.

    Parameters
    ----------
    at : Expansion
        The objective of the full sample at a point.
    """
    value, curvature = at.nonlinear
    strict, gram = at.strict[0], at.gram[0]
    gradient = -(strict[:, :-1].T @ strict[:, -1] + gram[:, -1])
    hessian = strict[:, :-1].T @ strict[:, :-1] + gram[:, :-1] + curvature[0]
    finite = all(np.isfinite(part).all() for part in (value, at.strict, at.gram, curvature))
    return float(value[0]) if finite else np.inf, gradient, hessian


def estimate_jointly(problem: JointProblem, criterion: JointCriterion) -> JointEstimate:
    """Train the arms jointly by the usual method and return the estimate."""
    trainer = Trainer(problem)
    return trainer.estimate(trainer.train(criterion))
