"""The Joint Robust Estimator: all arms trained together over the distribution of the propensity score.

Flows in: a sample, the IPWRA fit, propensity replicates, the weights of the objective's terms. Flows out: theta by a
scipy optimiser, the estimate with its influence function, and its risk beside that of the IPWRA fit.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from functools import cached_property, partial
from typing import TypeVar

import numpy as np

from causalrisk.design.survey import Factors
from causalrisk.estimators.estimates import BlockInfluence, Estimate, EstimateRows, KnownRows, sandwich
from causalrisk.estimators.joint.equations import Expanded, JointRows, JointSolution, RowsAtSolution, expand_about
from causalrisk.estimators.joint.influence import (
    PropensitySums,
    ReplicateCentres,
    influence_function,
    monte_carlo_se,
    propensity_sums,
    replicate_centres,
)
from causalrisk.estimators.joint.minima import NonlinearObjectives, SamplePasses
from causalrisk.estimators.joint.objective import (
    Criterion,
    Expansion,
    JointCriterion,
    JointObjective,
    ResampledWeights,
    ate_risk,
    bias_contrasts,
    row_units,
    step_unit,
    unit_slopes,
)
from causalrisk.estimators.joint.start import Start, StartSums, UnitsOf, clusters_held_out, real_share, rows_alone
from causalrisk.estimators.joint.variance import OutcomeMeans
from causalrisk.estimators.sample import Sample, part_of, shifted
from causalrisk.estimators.specification import EffectScale
from causalrisk.numerics.blocks import KEPT, add_up, spread_evenly
from causalrisk.numerics.families import OutcomeFamily
from causalrisk.numerics.linalg import Array
from causalrisk.numerics.optimize import OptimizeResult, minimize_objective, minimize_squares
from causalrisk.propensity.replicates import (
    BatchedWeights,
    Replicates,
    ReplicateTotals,
    WeightMoments,
    kept_bytes,
    replicate_totals,
)
from causalrisk.propensity.weights import TargetSums, WeightFit, WeightModel

T = TypeVar("T")
ENOUGH = 25_000  # independent rows by which an anchor is chosen as well as by more
SMALLER = 8  # of the rows of a part elsewhere: those here have some five hundred numbers


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
    clusters : int
        Number of clusters, where they are held out; of rows in memory all are then needed at once.
    frequency : bool
        Whether weights count repeated rows.
    start_covariance : ndarray, shape (d, d), optional
        Robust covariance of the estimates of the start; the choice of an anchor needs it.
    strata : Factors, optional
        Weights of the strata of a survey design in it.
    every : JointProblem, optional
        Where the rows are some of those of another problem, that one, which sums over all rows are of.
    """

    sample: Sample
    weight_fit: WeightFit
    start: Estimate
    replicates: Replicates
    effect_scale: EffectScale
    n_units: float
    clusters: int = 0
    frequency: bool = False
    start_covariance: Array | None = None
    strata: Factors | None = None
    every: JointProblem | None = None
    in_memory = True

    @property
    def fixed_tilt(self) -> bool:
        """Whether the tilt of the target is the same under all replicates."""
        return self.weight_fit.model.target.fixed_tilt

    @cached_property
    def places(self) -> list[slice]:
        """Blocks of rows that are worked on at a time; all of them where the model is one of all rows."""
        one = self.clusters > 0 or not self.weight_fit.model.by_rows
        return [slice(0, self.sample.n)] if one else self.sample.parts(SMALLER)

    @property
    def in_blocks(self) -> bool:
        """Whether the rows come in more than one block."""
        return len(self.places) > 1

    @property
    def kept(self) -> bool:
        """Whether blocks and their weights under the replicates are kept between passes."""
        return len(self.places) == 1 or kept_bytes(self.weight_fit.model, self.sample.n, self.replicates.count) <= KEPT

    def parts(self) -> Iterator[tuple[slice, Sample, WeightFit]]:
        """Begin a pass over the rows: where they are, they themselves and their importance weights."""
        for place in self.places:
            one = len(self.places) == 1
            sample = self.sample if one else self.sample.part(place)
            yield place, sample, self.weight_fit if one else self.weight_fit.part_of_fit(place)

    @cached_property
    def totals(self) -> ReplicateTotals | None:
        """What weights under the replicates need of all rows; None where these are one block, or they need nothing."""
        if self.every is not None:
            return self.every.totals
        model, toward = self.weight_fit.model, self.weight_fit.model.target.toward
        if len(self.places) == 1 or not model.divided:
            return None
        if toward is not None:
            tilt = np.array([self.sample.s[self.sample.slices[toward]].sum()])
            return ReplicateTotals(TargetSums(np.array([self.sample.total]), tilt, tilt), None)
        return self.varying_totals()

    def varying_totals(self) -> ReplicateTotals:
        """Sum, in two passes, what a tilt that depends on the scores is divided by."""
        return replicate_totals(lambda function: self.over_fits(partial(_of_model, function)), self.replicates.gamma)

    @property
    def units(self) -> UnitsOf:
        """The independent units of a block of rows."""
        return clusters_held_out if self.clusters else partial(rows_alone, self.frequency)

    @cached_property
    def scale_slopes(self) -> Array:
        """Derivative of the scale of the effect at each arm mean of the start, shape (K,)."""
        return self.effect_scale.g_slope(self.start.model_means)

    @property
    def contrasts(self) -> Array:
        """C, shape (K - 1, K)."""
        return bias_contrasts(len(self.scale_slopes)) * unit_slopes(self.scale_slopes)

    @cached_property
    def start_sums(self) -> StartSums:
        """Sums over the rows at the IPWRA fit."""
        if self.every is not None:
            return self.every.start_sums
        return add_up(self.over_fits(partial(StartSums.of, self.start.theta)))

    @property
    def start_models(self) -> Start:
        """The outcome models of the IPWRA fit."""
        return Start(self.start.theta, self.start_sums.theta, self.frequency)

    @cached_property
    def real_share(self) -> float:
        """Share c of the effect heterogeneity at the start that is not sampling error."""
        return real_share(self.over_fits, self.start_models, self.start_sums, self.contrasts, self.units, self.clusters)

    @property
    def start_robust_variance(self) -> float:
        """Robust variance of the effects of the start, as `effect_variance`."""
        if self.start_covariance is None:
            raise TypeError("the covariance of the start is not known")
        return self.effect_variance(self.start_covariance)

    def effect_variance(self, covariance: Array) -> float:
        """Variance of the effects, summed over the contrasts of the objective, from the covariance of all estimates."""
        means = self.start.block("means")
        return max(float(np.trace(self.contrasts @ covariance[means, means] @ self.contrasts.T)), 0.0)

    def covariance(self, rows: EstimateRows) -> Array:
        """Robust covariance of all estimates of a joint fit, shape (d, d)."""
        return sandwich(
            partial(self.over_influence, rows),
            n=self.n_units,
            total=self.sample.total,
            frequency=self.frequency,
            n_clusters=self.clusters or None,
            n_coefficients=0,
            strata=self.strata,
        )

    @cached_property
    def thinned(self) -> JointProblem:
        """The problem of `ENOUGH` of many independent rows, spread evenly over all; else the problem itself."""
        thinning = ENOUGH / self.sample.n
        if thinning >= 1 or self.clusters or not self.in_blocks or self.weight_fit.model.membership is not None:
            return self
        rows = spread_evenly(self.sample.order, thinning)
        return replace(self, sample=self.sample.some(rows), weight_fit=self.weight_fit.part_of_fit(rows), every=self)

    def over_influence(self, rows: EstimateRows, function: Callable[[BlockInfluence], T]) -> Iterator[T]:
        """Begin a pass: what a function makes of the influence function of a joint estimate on each block."""
        s, units = self.sample.s, (self.sample.cluster, self.sample.stratum)
        for place, values in rows.blocks():
            yield function(BlockInfluence(values, s[place], *(part_of(codes, place) for codes in units)))

    def over_fits(self, function: Callable[[slice, Sample, WeightFit], T]) -> Iterator[T]:
        """Begin a pass: what a function makes of each block of rows, as `parts` has them."""
        return (function(*part) for part in self.parts())

    def over(self, function: Callable[[JointRows], T], moments: dict[int, WeightMoments] | None = None) -> Iterator[T]:
        """Begin a pass: what a function makes of each block of rows with their weights under the replicates.

        The moments of these, by where a block begins, are kept in `moments` for the next pass.
        """
        return self.over_fits(partial(self.on_weighed, function, moments))

    def on_weighed(
        self, function: Callable[[JointRows], T], moments: dict[int, WeightMoments] | None, place: slice,
        sample: Sample, weight_fit: WeightFit,
    ) -> T:  # fmt: skip
        """Apply a function to some rows with their weights under the replicates."""
        return function(self.block(place, sample, weight_fit, moments))

    def by_block(self, function: Callable[[JointRows], T], combine: Callable[[Iterable[T]], T]) -> Iterator[T]:
        """Begin a pass as `over`, where what a function makes of the rows that are read at a time is combined."""
        yield combine(self.over(function))

    def block(
        self, place: slice, sample: Sample, weight_fit: WeightFit, moments: dict[int, WeightMoments] | None = None
    ) -> JointRows:
        """Weigh some rows, or all of them, under the replicates; `moments` are as in `over`."""
        totals = None if sample is self.sample and self.every is None else self.totals
        gammas, of_all = [self.replicates.gamma], None if totals is None else [totals]
        replicated = BatchedWeights(
            sample.slices, weight_fit.model, sample.s[:, None], gammas, self.replicates.count, of_all
        )
        share, at, start = (sample.s / sample.total)[:, None], weight_fit.as_resample(), self.start_models
        known = {} if moments is None else moments
        if place.start not in known:
            known[place.start] = replicated.moments(at)
        resampled = ResampledWeights(share, at, replicated, known[place.start], start.theta[..., None])
        return JointRows(place, sample, weight_fit, resampled, start)


def _of_model(function: Callable[[WeightModel, Array], T], place: slice, sample: Sample, fit: WeightFit) -> T:
    return function(fit.model, sample.s[:, None])


@dataclass(frozen=True)
class JointEstimateRows:
    """Predictions and influence function of a joint estimate, as in `EstimateRows`; they are made when asked for.

    Parameters
    ----------
    problem : JointProblem
        The rows.
    solution : JointSolution
        The estimate.
    centres : ReplicateCentres
        What centres the equations under each replicate.
    by_gamma : PropensitySums
        How they move with the propensity coefficients.
    """

    problem: JointProblem
    solution: JointSolution
    centres: ReplicateCentres
    by_gamma: PropensitySums

    @cached_property
    def predicted(self) -> Array:
        """As in `EstimateRows`."""
        sample = self.problem.sample
        return sample.family.mean(shifted(self.solution.theta @ sample.X.columns.T, sample.offset))

    @cached_property
    def influence(self) -> Array:
        """As in `EstimateRows`."""
        return np.concatenate([values for _, values in self.blocks()])

    def blocks(self) -> Iterator[tuple[slice, Array]]:
        """As in `EstimateRows`."""
        return self.problem.over(self.of)

    def of(self, rows: JointRows) -> tuple[slice, Array]:
        """Where rows are, and their influence function of (params, theta, gamma)."""
        own = influence_function(RowsAtSolution(self.solution, rows), self.centres, self.by_gamma)
        return rows.place, np.column_stack([own, rows.weight_fit.influence])


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
        at the IPWRA fit; here less what the share c leaves out of it, plus what it leaves out at the IPWRA fit.
    real_share : float
        c.
    n_units : float
        n, by which V is divided in the expected risk.
    full_risk : bool
        Whether the risk of the objective has the sampling variance.
    fitted_net_bias : ndarray, shape (K - 1,)
        Contrasts of the net biases at the fitted propensity score.
    mc_se : ndarray, shape (K - 1,)
        Monte Carlo standard error of the effects due to the finite number of replicates; NaN for one replicate, 0 where
        they are not random.
    result : OptimizeResult
        What scipy reported.
    slopes : ndarray, shape (K,)
        What the risk multiplies the biases by: the slopes of the scale of the effect, their mean square one.
    covariance : ndarray, shape (d, d), optional
        Robust covariance of all estimates, where the choice of the anchor needed it.
    """

    estimate: Estimate
    bias: Array
    start_bias: Array
    variance: float
    start_variance: float
    real_share: float
    n_units: float
    full_risk: bool
    fitted_net_bias: Array
    mc_se: Array
    result: OptimizeResult
    slopes: Array
    covariance: Array | None = None

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
    start = problem.start_sums
    residual = float(np.sqrt(start.squares))
    return JointCriterion(
        alpha_sigma2=criterion.alpha * (start.variance / start.weight),
        penalty=criterion.penalty,
        fitted_penalty=criterion.fitted_penalty,
        full_risk=criterion.full_risk,
        real_share=problem.real_share if criterion.real_share is None else criterion.real_share,
        contrasts=problem.contrasts,
        scale_slopes=problem.scale_slopes,
        rms_residual=residual or 1.0,
    )


def usual_method(family: OutcomeFamily) -> str:
    """Return the optimiser unless one is named: least squares where the objective is a sum of squares."""
    return "least_squares" if family.linear else "trust-exact"


class Trainer:
    """Trains the arms of one problem, under one criterion after another.

    Parameters
    ----------
    problem : JointProblem
        What is trained.
    method : str, optional
        "least_squares" (linear models only), or a method of `scipy.optimize.minimize`; by default that of the problem.
    """

    def __init__(self, problem: JointProblem, method: str | None = None) -> None:
        self.problem = problem
        self.method, self.along_valleys = method or usual_method(problem.sample.family), method is None
        self._kept: list[JointRows] | None = None
        self._moments: dict[int, WeightMoments] | None = {} if problem.in_memory else None
        self._begun: dict[bool, Expanded] = {}

    def over(self, function: Callable[[JointRows], T]) -> Iterator[T]:
        """Begin a pass over the rows, which are kept for the next where they are few."""
        if self._kept is None and self.problem.kept:
            self._kept = list(self.problem.over(_itself))
        return self.problem.over(function, self._moments) if self._kept is None else map(function, self._kept)

    @cached_property
    def whole(self) -> JointRows:
        """All rows as one block."""
        sample = self.problem.sample
        if self.problem.places[1:]:
            return self.problem.block(slice(0, sample.n), sample, self.problem.weight_fit)
        return next(self.over(_itself))

    def at_start(self, criterion: JointCriterion) -> Expanded:
        """Return the objective about the IPWRA fit; anchor and penalty, in which criteria differ, are no part of it."""
        known = self._begun.get(criterion.full_risk)
        if known is None:
            known = self._begun[criterion.full_risk] = expand_about(self.problem.start.theta, criterion, self.over)
        return known

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
        begin, family = self.at_start(criterion), self.problem.sample.family
        theta, D = begin.theta if near is None else near.theta, criterion.D
        curvature = None
        units = row_units(criterion, family, theta.size)
        if family.linear:
            z, result = minimize_squares(begin.at(theta, D).equations.stacked(criterion) * units, self.method)
            at = begin.at(theta + step_unit(criterion, family) * z.reshape(theta.shape), D)
        else:
            passes = SamplePasses(criterion, self.over, self.problem.in_blocks)
            objective = NonlinearObjectives(JointObjective(self.problem.sample, criterion), passes)
            equations = (begin if near is None else near).equations
            theta, result = self._minimum(objective, theta, equations.stacked(criterion) * units)
            at = expand_about(theta, criterion, self.over, objective.centres(theta[..., None]))
            curvature = objective.at(theta[..., None]).curvature[0] / units[0] ** 2  # of theta, not of steps in units
        scale = self.problem.effect_scale
        return JointSolution(criterion, at=at, curvature=curvature, effect_scale=scale, result=result)

    def _minimum(self, objective: NonlinearObjectives, start: Array, equations: Array) -> tuple[Array, OptimizeResult]:
        """Minimise a nonlinear objective from theta, whose equations are given.

        The large penalties of small anchors make narrow curved valleys, along which scipy's optimisers take hundreds of
        steps. Unless the optimiser was named, it begins where the method of the resamples ends, which follows them.
        """
        if self.along_valleys:
            ahead, of = objective.minima(start[..., None]), objective.objective
            if np.isfinite(ahead.value[0]):
                start = ahead.theta.reshape(start.shape)
                begin = expand_about(start, of.criterion, self.over, objective.centres(start[..., None]))
                equations = begin.equations.stacked(of.criterion) * of.row_units

        def value_gradient_hessian(z: Array) -> tuple[float, Array, Array]:
            with np.errstate(all="ignore"):  # where a step goes too far the value is not finite
                return _derivatives(objective.at((start + z.reshape(start.shape))[..., None]))

        z, result = minimize_objective(value_gradient_hessian, equations, self.method)
        return start + z.reshape(start.shape), result

    def centres(self, *found: JointSolution) -> tuple[ReplicateCentres, ...]:
        """Return what centres the equations of each solution under each replicate."""
        return replicate_centres(found, self.problem.fixed_tilt, self.over)

    def estimate(self, solution: JointSolution) -> JointEstimate:
        """Return the estimate of a solution with its influence function and diagnostics over the replicates."""
        problem, begin = self.problem, self.at_start(solution.criterion)
        by_gamma = propensity_sums(solution, self.over)
        rows = JointEstimateRows(problem, solution, self.centres(solution)[0], by_gamma)
        estimate = Estimate(
            params=solution.params(),
            theta=solution.theta,
            gamma=problem.weight_fit.coefficients,
            model_means=solution.raw_means,
            rows=KnownRows(rows.predicted, np.concatenate([values for _, values in self.over(rows.of)]))
            if problem.kept
            else rows,
        )
        return JointEstimate(
            estimate=estimate,
            bias=solution.equations.forms[:, 1:, -1],
            start_bias=begin.equations.forms[:, 1:, -1],
            variance=solution.equations.variance_value + begin.left_out,
            start_variance=begin.equations.variance_value + begin.left_out,
            real_share=solution.criterion.real_share,
            n_units=problem.n_units,
            full_risk=solution.criterion.full_risk,
            fitted_net_bias=solution.u[:, 0],
            mc_se=np.zeros(len(solution.u))
            if problem.replicates.cubature
            else monte_carlo_se(solution, by_gamma.replicates),
            result=solution.result,
            slopes=unit_slopes(solution.criterion.scale_slopes),
        )

    def variance_of(self, predicted: Array, criterion: JointCriterion) -> float:
        """V of any outcome predictions, shape (K, n), as `JointEstimate.variance` has it."""
        sample, mean = self.problem.sample, predicted[..., None]
        at = OutcomeMeans(np.empty(0), mean, mean, np.zeros_like(mean), (sample.y - sample.own(predicted))[:, None])
        variance = JointObjective(sample, criterion).variance(at, self.whole.resampled)
        return float(variance.value()[0]) + self.at_start(criterion).left_out


def _itself(rows: JointRows) -> JointRows:
    return rows


def _derivatives(at: Expansion) -> tuple[float, Array, Array]:
    """Value, gradient and Hessian of a nonlinear objective; an infinite value where they are not finite.

    Parameters
    ----------
    at : Expansion
        The objective of the full sample at a point.
    """
    strict, gram = at.strict[0], at.gram[0]
    gradient = -(strict[:, :-1].T @ strict[:, -1] + gram[:, -1])
    hessian = strict[:, :-1].T @ strict[:, :-1] + gram[:, :-1] + at.curvature[0]
    finite = all(np.isfinite(part).all() for part in (at.value, at.strict, at.gram, at.curvature))
    return float(at.value[0]) if finite else np.inf, gradient, hessian


def estimate_jointly(problem: JointProblem, criterion: JointCriterion) -> JointEstimate:
    """Train the arms jointly by the usual method and return the estimate."""
    trainer = Trainer(problem)
    return trainer.estimate(trainer.train(criterion))
