"""The Joint Robust Estimator from an IPWRA fit: its replicates, the amount of shrinkage, the minimum, its resamples."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from causalrisk.errors import Failure, first_failure
from causalrisk.estimators.estimates import BlockInfluence, Estimate, Refits, collect_refits
from causalrisk.estimators.jointly import (
    Given,
    Joined,
    Weighed,
    has_predictors,
    kept_passes,
    lifted,
    own_weights,
    passes_of,
    projected,
    projected_blocks,
    rows_of,
    slopes_of,
    weights_of,
)
from causalrisk.estimators.outcome import Level, influence_of_theta, theta_sums, trained_rows
from causalrisk.estimators.problem import Block, KeptProblem, Problem
from causalrisk.estimators.refit import SeparateRefitter, refit_weighed
from causalrisk.estimators.resampling import FullFit, ResamplePasses
from causalrisk.estimators.sample import Sample
from causalrisk.estimators.specification import IPWRA, EffectScale
from causalrisk.estimators.weights import WeightsInMemory, WeightsOfScan
from causalrisk.joint.influence import (
    At,
    by_score,
    contributions,
    linear_parts,
    monte_carlo_se,
    phi,
    tilt_slopes,
    variance_gradients,
)
from causalrisk.joint.minimum import Minimum, minimize_from, newton, solve_constrained
from causalrisk.joint.objective import Rows, Sums, Terms, Weights, curvature, expand, risk_of, variance
from causalrisk.joint.shrinkage import FOLDS, LADDER, HeldOut, Path, choose, compare, held_out
from causalrisk.joint.start import (
    StartSums,
    held_out_scores,
    heterogeneity,
    inverse_of,
    real_share,
    score_is_missing,
    start_sums,
)
from causalrisk.learners.folds import Folds
from causalrisk.numerics.blocks import add_up
from causalrisk.numerics.linalg import Array, weighted_rows
from causalrisk.numerics.newton import NewtonFits
from causalrisk.numerics.optimize import OptimizeResult
from causalrisk.propensity.replicates import Replicates
from causalrisk.propensity.weights import WeightFit, WeightModel, predictor_columns

T = TypeVar("T")
ROUNDING = 1e-12  # mean squared residual over that of the outcome that is rounding error
RANK = 1e-9  # share of the variance of a column of the score that outcome columns leave, below which it is rounding


def bias_contrasts(n_arms: int) -> Array:
    """Contrasts whose sum of squares is the ATE risk, shape (K - 1, K): Helmert's, each of squared length two."""
    contrasts = np.zeros((n_arms - 1, n_arms))
    for k in range(1, n_arms):
        contrasts[k - 1, :k], contrasts[k - 1, k] = -1.0, k
        contrasts[k - 1] *= np.sqrt(2 / (k * (k + 1)))
    return contrasts


def ate_risk(arm_bias: Array) -> Array:
    """Return the squared net bias under each propensity replicate.

    Parameters
    ----------
    arm_bias : ndarray, shape (K, B)
        Bias of each arm's outcome model, in units of the outcome; row 0 is the reference arm.

    Returns
    -------
    ndarray, shape (B,)
        (2 / K) sum_{k<l} (B_k - B_l)^2, in squared units of the outcome; for two arms the squared net bias.

    Notes
    -----
    Zero when the biases are equal, even if none is zero [1]_. It depends on no reference arm.

    References
    ----------
    .. [1] Zhang, A. (2025). Causal Inference as Distribution Adaptation: Optimizing ATE Risk under Propensity
       Uncertainty. arXiv:2512.18083.

    Examples
    --------
    >>> import numpy as np
    >>> ate_risk(np.array([[1.0, 0.0], [1.0, 3.0]]))
    array([0., 9.])
    """
    return ((bias_contrasts(len(arm_bias)) @ arm_bias) ** 2).sum(axis=0)


# --- the problem -----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class JointProblem:
    """What JRE is trained on: the rows and the IPWRA fit that it starts from.

    Parameters
    ----------
    problem : Problem
        The rows; of a fit in memory their sample has the clusters.
    weights : WeightsInMemory or WeightsOfScan
        Importance weights at the fitted score.
    start : Estimate
        The IPWRA estimate.
    covariance : ndarray, shape (d, d), optional
        Robust covariance of its estimates.
    scale : EffectScale
        How the effect is reported.
    n_units : float
        n: rows of the sample, each as often as a frequency weight counts it.
    frequency : bool
        Whether weights count repeated rows.
    clusters : int
        Number of clusters, 0 without them.
    folds : ndarray of int, shape (n,), or Folds
        Folds of rows in memory; of a scan what deals them out.
    """

    problem: Problem
    weights: WeightsInMemory | WeightsOfScan
    start: Estimate
    covariance: Array | None
    scale: EffectScale
    n_units: float
    frequency: bool
    clusters: int
    folds: NDArray[np.intp] | Folds

    @property
    def gamma(self) -> Array:
        """Coefficients of the fitted score, shape (S,)."""
        rows = self.weights
        if isinstance(rows, WeightsOfScan):
            return rows.coefficients
        if not isinstance(rows.rows, WeightFit):
            raise TypeError("the joint estimator has importance weights")
        return rows.rows.gamma

    @property
    def family(self) -> Any:
        """Family of the outcome models."""
        return self.problem.family

    @property
    def full(self) -> FullFit:
        """The start, which refits of IPWRA begin from."""
        theta = self.start.theta
        return FullFit(self.start.params, theta, Level(0.0, np.zeros(theta.shape[1])), self.scale)

    @property
    def contrasts(self) -> Array:
        """C: contrasts of the arms, on another scale than the difference in its slopes at the start's means."""
        slopes = self.scale.g_slope(self.start.model_means)
        return bias_contrasts(len(slopes)) * slopes / np.sqrt((slopes**2).mean())

    def model(self) -> WeightModel:
        """Return the weight model of some rows, for what it says of all."""
        return self.problem.some_block().weight_model

    def fit_of(self, block: Block) -> WeightFit:
        """Return the importance weights of a block."""
        fit = self.weights.of(block)
        if not isinstance(fit, WeightFit):
            raise TypeError("the joint estimator has importance weights")
        return fit

    def weighed(self, shifts: Array, joined: Joined | None) -> Weighed:
        """Return passes over the rows at the fitted score, replicates at distances `shifts` from it."""
        passes, known = passes_of(self.problem, self.full, Given(1, own_weights)), self.gamma[:, None]
        fits = NewtonFits(known, np.zeros(1, dtype=np.int8), 0)
        return Weighed.of(passes, self.gamma, shifts, joined, fits)[0]

    def over(self, function: Callable[[Block, WeightFit], T]) -> Iterator[T]:
        """Begin a pass over the blocks of rows with their importance weights."""
        return self.problem.over(functools.partial(_with_fit, self, function))

    def without_rows(self) -> JointProblem:
        """Return what is kept of a scan's after the fit."""
        return dataclasses.replace(self, problem=None, weights=None)  # type: ignore[arg-type]


def _with_fit(problem: JointProblem, function: Callable[[Block, WeightFit], T], block: Block) -> T:
    return function(block, problem.fit_of(block))


# --- what the start decides ------------------------------------------------------------------------------------------


def points_about(problem: JointProblem, spread: float) -> Array:
    """Distances from the score, shape (S, 2 Q), of points that stand for its sampling distribution."""
    block, none = problem.start.block("gamma"), np.zeros((len(problem.gamma), 1))
    if problem.covariance is None:
        return none
    covariance = spread**2 * problem.covariance[block, block]
    if len(covariance) != len(problem.gamma) or not len(covariance) or not np.isfinite(covariance).all():
        return none
    return Replicates.of_normal(0 * problem.gamma, covariance).gamma


def _start_sums(theta: Array, rows: Rows, weights: Weights) -> StartSums:
    return start_sums(rows, weights.share[:, 0], weights.tilt[:, 0], weights.w[:, 0], theta)


def _meat(
    problem: tuple[bool, int], inverse: Array, theta: Array, sample: Sample, model: WeightModel, place: slice,
    block: Block, rows: Rows, weights: Weights,
) -> Array:  # fmt: skip
    frequency, clusters = problem
    own = np.ones(sample.n) if frequency else sample.s
    scores = held_out_scores(rows, weights.w[:, 0], own / sample.total, theta, inverse) / sample.total
    if not clusters:
        return (scores.T * (sample.s if frequency else sample.s**2)) @ scores
    sums = np.zeros((clusters, scores.shape[1]))
    np.add.at(sums, np.asarray(sample.cluster), sample.s[:, None] * scores)
    return sums


def meat_of(problem: JointProblem, weighed: Weighed, theta: Array, inverse: Array) -> Array:
    """Sum of squares of the scores held out, within clusters, shape (K P, K P)."""
    stage = functools.partial(_meat, (problem.frequency, problem.clusters), inverse, theta)
    found = weighed.over(stage, whole=True)[0]
    return found.T @ found if problem.clusters else found


def _heterogeneity(theta: Array, sums: StartSums, C: Array, rows: Rows, weights: Weights) -> tuple[float, Array]:
    return heterogeneity(rows, weights.share[:, 0], weights.tilt[:, 0], theta, sums, C)


def _products(sample: Sample, model: WeightModel, place: slice, block: Block, rows: Rows, weights: Weights) -> Array:
    every = np.hstack([sample.X.columns, sample.Z.columns])
    return (every.T * (weights.share[:, 0] * sample.in_sample)) @ every


def joined_score(problem: JointProblem, weighed: Weighed, theta: Array, asked: bool | None) -> Joined | None:
    """Return the score's linear predictor among the outcome columns, where it is asked for or a test rejects."""
    model = problem.model()
    if asked is False or not has_predictors(model):
        return None
    gram, p = weighed.over(_products, whole=True)[0], theta.shape[1]
    from_X = np.linalg.lstsq(gram[:p, :p], gram[:p, p:], rcond=None)[0]
    rest = gram[p:, p:] - gram[p:, :p] @ from_X
    scale = np.sqrt(np.maximum(np.diag(gram)[p:], np.finfo(float).tiny))
    values, vectors = np.linalg.eigh(rest / np.outer(scale, scale))
    kept = values > RANK
    if not kept.any():
        return None
    root = np.sqrt(values[kept])
    from_Z = vectors[:, kept] / root / scale[:, None]
    joined = Joined(
        from_Z, from_X @ from_Z, (root * vectors[:, kept] * scale[:, None]).T, model.propensity.n_predictors
    )
    if asked:
        return joined
    # one step of Newton's method from IPWRA, with these columns too
    tried = dataclasses.replace(weighed, joined=joined)
    wide = np.pad(theta, ((0, 0), (0, joined.of_score.shape[0])))
    lift = joined.lift(problem.gamma[:, None], p)[..., 0]
    sums = tried.over(functools.partial(_start_sums, wide))[0]
    inverse = inverse_of(lift.T @ sums.bread @ lift)
    step = np.einsum("kpq,kq->kp", inverse, sums.score @ lift)
    at = wide + step @ lift.T
    everywhere = np.einsum("Pp,kpq,Qq->kPQ", lift, inverse, lift)
    meat = meat_of(problem, tried, at, everywhere)
    lifts = np.kron(np.eye(len(theta)), lift)
    missing = score_is_missing(step, inverse, lifts.T @ meat @ lifts, joined.width)
    return joined if missing else None


# --- how far it is shrunk --------------------------------------------------------------------------------------------


def fold_weights(problem: JointProblem, block: Block) -> Array:
    """Weight of each row of a block in each fold, shape (n, G); equal rows that a weight counts are dealt out."""
    sample, folds, count = block.sample, problem.folds, FOLDS
    if isinstance(folds, Folds):
        order, count = np.argsort(block.position), folds.n_folds
        fold = np.empty(sample.n, dtype=np.intp)
        cluster = None if sample.cluster is None else sample.cluster[order]
        fold[order] = folds.of(block.position[order], sample.arm[order], cluster) if not block.of_frame else 0
        if block.of_frame:
            fold = block.position % count
    else:
        fold, count = folds[block.place], int(folds.max()) + 1
    own = (fold[:, None] == np.arange(count)).astype(float)
    if not problem.frequency or problem.clusters:
        return own * sample.s[:, None]
    later = (np.arange(count) - fold[:, None]) % count
    return sample.s[:, None] // count + (later < (sample.s % count)[:, None])


def _without_folds(problem: JointProblem, block: Block) -> Array:
    return block.sample.s[:, None] - fold_weights(problem, block)


def _averages(rows: Rows, weights: Weights, *thetas: Array) -> Array:
    """Averages over the target under A coefficients, shape (A, K, R)."""
    tilted = weights.share * rows.averaged * weights.tilt
    return np.stack([(tilted * rows.family.mean(rows.predictors(theta))).sum(axis=1) for theta in thetas])


def _held_out(
    problem: JointProblem,
    joined: Joined | None,
    thetas: Array,
    inverse: tuple[Array, ...],
    block: Block,
    fit: WeightFit,
) -> HeldOut:
    sample, model, folds = block.sample, fit.model, fold_weights(problem, block)
    score, known = model.score(fit.eta[..., None]), np.zeros((sample.n, fit.size))
    for columns, factor, matrix in zip(
        predictor_columns(model.columns, model.beside, len(inverse)), score, inverse, strict=True
    ):
        known += weighted_rows(columns, factor, matrix)
    rows, inside = rows_of(sample, model, joined), sample.in_sample[:, None]
    known = np.hstack([known, inside, 1 - inside] if model.membership is not None else [known, inside])
    return held_out(rows, fit.tilt, fit.w, folds, thetas, problem.contrasts, known, sample.cluster)


def choose_shrinkage(
    problem: JointProblem, own: Weighed, start: Array, terms: Terms, points: Array
) -> tuple[Path, NDArray[np.int8]]:
    """Choose alpha by cross-validation; also returns why folds failed.

    `own` are passes over the sample, `start` (K, P, 1) the models of IPWRA on all columns.
    """
    count = problem.folds.n_folds if isinstance(problem.folds, Folds) else int(problem.folds.max()) + 1
    passes = passes_of(problem.problem, problem.full, Given(count, functools.partial(_without_folds, problem)))
    fits = None
    if isinstance(problem.problem, KeptProblem):
        block = problem.problem.some_block()
        fits = problem.fit_of(block).refit(_without_folds(problem, block))
    folds, widest = Weighed.of(passes, problem.gamma, points, own.joined, fits)
    starts, failures = starts_of(folds, passes, widest)
    of_folds, of_all = path_of(folds, starts, terms, LADDER), path_of(own, start[:, : starts.shape[1]], terms, LADDER)
    used = (failures == Failure.OK) & np.array([m.converged for m in of_folds]).all(axis=0)
    thetas = np.stack([lifted(folds.lift, m.theta) for m in of_folds])
    thetas[..., ~used] = np.nan
    found = add_up(problem.over(functools.partial(_held_out, problem, own.joined, thetas, inverse_score(problem))))
    averages = own.over(_averages, *(lifted(own.lift, m.theta) for m in of_all))[0][..., 0]
    path = choose(
        variances=compare(found, problem.frequency and not problem.clusters),
        converged=np.array([bool(m.converged.all()) for m in of_all]),
        effects=np.array([problem.scale.effects(means)[0] for means in averages]),
        unit=problem.problem.total,
    )
    return path, failures


def inverse_score(problem: JointProblem) -> tuple[Array, ...]:
    """Inverse information of the score's models, as in `RowWeights`."""
    weights = problem.weights
    if isinstance(weights, WeightsOfScan):
        return problem.model().inverse(weights.coefficients, np.zeros(0), weights.whole)
    return problem.fit_of(problem.problem.some_block()).inverse


def padded(theta: Array, weighed: Weighed) -> Array:
    """Coefficients of the formula's columns (K, p, R), with zeros for the predictor of the score if that joined."""
    joined = weighed.joined
    return theta if joined is None else np.pad(theta, ((0, 0), (0, joined.width), (0, 0)))


def starts_of(weighed: Weighed, passes: ResamplePasses, widest: float) -> tuple[Array, NDArray[np.int8]]:
    """Fit IPWRA under the columns of weights: coefficients (K, p, R), those of the sample where one failed, and why."""
    refits = refit_weighed(passes, weighed.weighing, weighed.failures, widest)
    return coefficients_of(passes.full, refits), refits.failures


def coefficients_of(full: FullFit, refits: Refits) -> Array:
    """Coefficients of refits of IPWRA, shape (K, p, R); those of the sample where one failed."""
    first, theta = len(full.params), full.coefficients
    found = refits.values[first : first + theta.size].reshape(*theta.shape, -1)
    return np.where(np.isnan(found), theta[..., None], found)


def path_of(weighed: Weighed, start: Array, terms: Terms, anchors: tuple[float, ...]) -> list[Minimum]:
    """Minima under each alpha, the most cautious first, each from the one before."""
    theta = padded(start, weighed)
    evaluate, found = weighed.evaluate(lifted(weighed.lift, theta), terms), list[Minimum]()
    if weighed.passes.problem.family.linear:
        known = evaluate(theta)
        return [newton(lambda _: known, theta, alpha) for alpha in anchors]
    nu = None
    for alpha in anchors:
        found.append(newton(evaluate, theta, alpha, nu))
        settled = found[-1].converged
        theta = np.where(settled, found[-1].theta, theta)
        nu = np.where(settled[:, None], found[-1].multipliers, 0.0 if nu is None else nu)
    return found


# --- the estimate ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class JointFit:
    """The minimum of the sample, which resamples start from.

    Parameters
    ----------
    theta : ndarray, shape (K, p, 1)
        Coefficients, with that of the score's predictor if it joined.
    nu : ndarray, shape (C,)
        Multipliers of the constraint.
    alpha : float
        The amount of shrinkage.
    terms : Terms
        What the objective holds fixed.
    shifts : ndarray, shape (S, B)
        Distances of the replicates of resamples from their score.
    joined : Joined, optional
        The score's predictor among the outcome columns.
    """

    theta: Array
    nu: Array
    alpha: float
    terms: Terms
    shifts: Array
    joined: Joined | None


@dataclass(frozen=True)
class JointEstimate:
    """The Joint Robust Estimator with what its diagnostics need.

    Parameters
    ----------
    estimate : Estimate
        Point estimate and influence function; arm means are net of the common bias.
    fit : JointFit
        The minimum.
    bias, start_bias : ndarray, shape (K, B)
        Bias of each arm under each replicate, here and at the IPWRA fit.
    variance, start_variance : float
        V here and at the IPWRA fit; here less what the share c leaves out of it, plus what it leaves out there.
    n_units : float
        n, by which V is divided in the expected risk.
    mc_se : ndarray, shape (K - 1,)
        Monte Carlo standard error of the effects due to the finite number of replicates; NaN for one replicate, 0 where
        they are not random.
    result : OptimizeResult
        What scipy reported.
    slopes : ndarray, shape (K,)
        What the risk multiplies the biases by: the slopes of the scale of the effect, their mean square one.
    residual : float
        Root mean square of the residuals of the start.
    """

    estimate: Estimate
    fit: JointFit
    bias: Array
    start_bias: Array
    variance: float
    start_variance: float
    n_units: float
    mc_se: Array
    result: OptimizeResult
    slopes: Array
    residual: float

    @property
    def full_risk(self) -> bool:
        """Whether the objective is "risk"."""
        return self.fit.terms.risk

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


def net_means(raw: Array, mean_bias: Array, slopes: Array, scale: EffectScale) -> Array:
    """Arm means net of the common bias, shape (K, ...): all moved alike on the scale of the effect."""
    return scale.g_inverse(scale.g(raw) - np.tensordot(slopes, mean_bias, axes=1) / len(raw))


def _left_out(at: Array, sums: StartSums, terms: Terms, rows: Rows, weights: Weights) -> Array:
    """Sum by how much V at the start is larger with all of the effect heterogeneity than without the share c of it."""
    _, _, t2, tw, _ = weights.moments
    m = rows.family.mean(rows.predictors(at))[..., 0]
    above, arm = terms.share * rows.averaged * (m.T - sums.mean), rows.arm
    r = rows.y - rows.own(m[..., None])[:, 0]
    kept = rows.averaged * (1 - terms.share) * (m.T - sums.mean)
    D_psi = t2 * (kept @ terms.D) + tw * r[:, None] * rows.averaged * terms.D[arm]
    return np.array([(weights.share * (2 * above * D_psi + t2 * above * (above @ terms.D))).sum()])


@dataclass(frozen=True)
class Trainer:
    """Trains the arms of a problem, under one alpha after another.

    Parameters
    ----------
    problem : JointProblem
        The rows and the start.
    replicates : Replicates
        The distribution of the propensity score.
    method : str
        A method of `scipy.optimize.minimize`.
    terms : Terms
        What the objective holds fixed.
    own : Weighed
        Passes over the rows.
    sums : StartSums
        Those of the start.
    points : ndarray, shape (S, B)
        Distances of replicates from the score of resamples and folds.
    """

    problem: JointProblem
    replicates: Replicates
    method: str
    terms: Terms
    own: Weighed
    sums: StartSums
    points: Array

    @classmethod
    def of(
        cls, problem: JointProblem, replicates: Replicates, method: str, *, penalty: float | None, share: float | None,
        spread: float, join: bool | None,
    ) -> Trainer:  # fmt: skip
        """Decide what the objective holds fixed; with a penalty it is "erm"."""
        theta, shifts = problem.start.theta, replicates.shifts(problem.gamma)
        own = problem.weighed(shifts, None)
        sums = own.over(functools.partial(_start_sums, theta))[0]
        risk, C, c = penalty is None, problem.contrasts, 0.0 if penalty is not None else share
        if c is None:
            inverse = inverse_of(sums.bread)
            spreads = own.over(functools.partial(_heterogeneity, theta, sums, C))[0]
            c = real_share(spreads, inverse, meat_of(problem, own, theta, inverse), C)
        joined = joined_score(problem, own, theta, join) if risk else None
        terms = Terms(
            contrasts=C,
            n_units=problem.n_units if penalty is None else penalty,
            sigma2=sums.variance / sums.weight,
            share=c,
            risk=risk,
            level=(1 - c) * sums.mean,
        )
        points = points_about(problem, spread)
        return cls(problem, replicates, method, terms, dataclasses.replace(own, joined=joined), sums, points)

    @property
    def start(self) -> Array:
        """Models of IPWRA on the columns of the models, shape (K, p, 1)."""
        return padded(self.problem.start.theta[..., None], self.own)

    @property
    def beta(self) -> Array:
        """The same on all columns, shape (K, P, 1)."""
        return lifted(self.own.lift, self.start)

    def choose(self) -> tuple[Path, NDArray[np.int8]]:
        """Choose alpha."""
        return choose_shrinkage(self.problem, self.own, self.beta, self.terms, self.points)

    def train(self, alpha: float) -> Minimum:
        """Minimise by scipy, from IPWRA."""
        linear, squares = self.problem.family.linear, max(self.sums.squares, ROUNDING * self.sums.size)
        residual = float(np.sqrt(squares)) or 1.0
        evaluate = self.own.evaluate(self.beta, self.terms)
        return minimize_from(evaluate, self.start, alpha, residual if linear else 1.0, self.method, linear)

    def near(self, alpha: float) -> Minimum:
        """Minimise by Newton steps from IPWRA, as resamples do."""
        return path_of(self.own, self.problem.start.theta[..., None], self.terms, (alpha,))[0]

    def solution(self, found: Minimum, alpha: float) -> tuple[Estimate, JointEstimateRows]:
        """Return the point estimate of a minimum with its influence function."""
        problem, terms, own = self.problem, self.terms, self.own
        fit = JointFit(found.theta, found.multipliers[0], alpha, terms, self.points, own.joined)
        of = own.sums(lifted(own.lift, found.theta), self.beta, terms)
        raw, slopes = of.average[:, 0], problem.scale.g_slope(problem.start.model_means)
        means = net_means(raw, -of.R[:, 0], slopes, problem.scale)
        rows = JointEstimateRows(problem, own, fit, of, self.beta, means)
        params, theta = np.concatenate([problem.scale.effects(raw), means]), found.theta[..., 0]
        return Estimate(params, theta[:, : problem.start.theta.shape[1]], problem.start.gamma, raw, rows), rows

    def variance(self, covariance: Array) -> float:
        """Variance of the effects, summed over the contrasts of the objective, from a covariance of all estimates."""
        C, means = self.terms.contrasts, self.problem.start.block("means")
        return float(np.trace(C @ covariance[means, means] @ C.T))

    def estimate(self, found: Minimum, alpha: float) -> JointEstimate:
        """Return the estimate of a minimum with its diagnostics over the replicates."""
        (estimate, rows), terms, own = self.solution(found, alpha), self.terms, self.own
        of, before, more = rows.sums, own.sums(self.beta, self.beta, terms), 0.0
        if terms.share:
            more = float(own.over(functools.partial(_left_out, self.beta, self.sums, terms))[0][0])
        slopes = self.problem.scale.g_slope(self.problem.start.model_means)
        return JointEstimate(
            estimate=estimate,
            fit=rows.fit,
            bias=of.biases[:, 0],
            start_bias=before.biases[:, 0],
            variance=float(variance(of, terms.D)[0]) + more,
            start_variance=float(variance(before, terms.D)[0]) + more,
            n_units=self.problem.n_units,
            mc_se=np.zeros(len(slopes) - 1) if self.replicates.cubature else rows.monte_carlo_se(),
            result=found.result,
            slopes=slopes / np.sqrt((slopes**2).mean()),
            residual=float(np.sqrt(self.sums.squares)),
        )


# --- the influence function ------------------------------------------------------------------------------------------


def _row_parts(directions: Array, at: At, fixed: Weighed, sample: Sample, model: WeightModel, place: slice,
               block: Block, rows: Rows, weights: Weights) -> tuple[Any, ...]:  # fmt: skip
    slopes = slopes_of(model, weights.share * fixed.weighing.whole.total, fixed)
    of_theta, means = phi(rows, weights, slopes, at, directions).sums, linear_parts(rows, weights, slopes, at).sums
    return of_theta, means, tilt_slopes(weights, slopes)


@dataclass(frozen=True)
class JointEstimateRows:
    """Predictions and influence function of a joint estimate, as in `EstimateRows`; they are made when asked for.

    Parameters
    ----------
    problem : JointProblem
        The rows and the start.
    own : Weighed
        Passes over the rows.
    fit : JointFit
        The minimum.
    sums : Sums
        Sums over the rows there.
    start : ndarray, shape (K, P, 1)
        Models of IPWRA on all columns.
    means : ndarray, shape (K,)
        Arm means net of the common bias.
    known : int, optional
        Number of predictors of the score whose estimation counts; by default all.
    """

    problem: JointProblem
    own: Weighed
    fit: JointFit
    sums: Sums
    start: Array
    means: Array
    estimated: int | None = None

    @cached_property
    def at(self) -> At:
        """The minimum, on all columns."""
        fit, own = self.fit, self.own
        return At(lifted(own.lift, fit.theta), self.start, fit.nu, fit.alpha, fit.terms, self.sums)

    @cached_property
    def predicted(self) -> Array:
        """As in `EstimateRows`."""
        block = self.problem.problem.some_block()
        rows = rows_of(block.sample, block.weight_model, self.own.joined)
        return rows.family.mean(rows.predictors(self.at.theta))[..., 0]

    def risks_of(self, predicted: Array) -> tuple[Array, Array]:
        """Biases (M, K, B) and V (M,) of M predictions of rows in memory, (M, K, n); as in `JointEstimate`."""
        block, own = self.problem.problem.some_block(), self.own
        sample, model, terms = block.sample, block.weight_model, self.fit.terms
        rows, counts = rows_of(sample, model, own.joined), sample.s[:, None]
        weights = weights_of(model, counts, own.weighing, own.shifts, own.totals, stack=False)
        sums = start_sums(rows, weights.share[:, 0], weights.tilt[:, 0], weights.w[:, 0], self.start[..., 0])
        more = float(_left_out(self.start, sums, terms, rows, weights)[0]) if terms.share else 0.0
        found = [risk_of(rows, weights, mean[..., None], self.start, terms) for mean in predicted]
        return np.stack([biases for biases, _ in found]), more + np.array([value for _, value in found])

    def under_penalty(self, penalty: float, replicates: Replicates, method: str) -> tuple[JointEstimate, float]:
        """Train again with another penalty of "erm"; also returns the loss."""
        terms, theta = dataclasses.replace(self.fit.terms, n_units=penalty), self.problem.start.theta
        sums = self.own.over(functools.partial(_start_sums, theta))[0]
        trainer = Trainer(self.problem, replicates, method, terms, self.own, sums, self.fit.shifts)
        found = trainer.train(1.0)
        return trainer.estimate(found, 1.0), float(self.own.sums(found.theta, self.start, terms).loss[0])

    @property
    def influence(self) -> Array:
        """As in `EstimateRows`."""
        return np.concatenate([values for _, values in self.blocks()])

    def blocks(self) -> Iterator[tuple[slice, Array]]:
        """As in `EstimateRows`."""
        _ = self.prepared
        return self.problem.over(self.of)

    @property
    def prepared(self) -> tuple[Any, ...]:
        """What blocks need of all rows, before they go to workers."""
        return self.parts, self.hessian, self.start_theta_sums

    @cached_property
    def hessian(self) -> tuple[Array, Array, Any]:
        """Hessian (1, K p, K p) and constraint (1, C, K p) of the models, and the expansion on all columns."""
        own, at, fit = self.own, self.at, self.fit
        wide = expand(self.sums, fit.terms)
        of = projected(wide, own.lift, len(at.theta))
        whole, every = of.at(fit.alpha)[2], wide.at(fit.alpha)[2]
        if not self.problem.family.linear:
            parts = own.over(functools.partial(_curvature_at, at))[0]
            whole = whole + projected_blocks(parts, own.lift)
            every = every + projected_blocks(parts, None)
        return whole, of.u_slope, dataclasses.replace(wide, hessian=every)

    @cached_property
    def parts(self) -> tuple[Any, ...]:
        """Sums of Phi over the rows, and what the score and the start move of equations and means."""
        own, at = self.own, self.at
        n_arms, p = self.fit.theta.shape[:2]
        lift = np.eye(p) if own.lift is None else own.lift[..., 0]
        directions = np.kron(np.eye(n_arms), lift.T).T.reshape(n_arms, len(lift), n_arms * p)
        stage = functools.partial(_row_parts, directions, at, dataclasses.replace(own, passes=None))  # type: ignore[arg-type]
        of_theta, means, tilts = own.over(stage, whole=True)[0]
        by_theta, by_means = by_score(of_theta, tilts), by_score((*means, None)[:7], tilts)
        more = self.joined_by_score()
        if more is not None:
            by_theta, by_means = by_theta + more[0], by_means + more[1]
        if self.estimated is not None:
            sizes = [of.shape[0] for of in inverse_score(self.problem)]
            kept = np.arange(len(by_theta)) < sum(sizes[: self.estimated])
            by_theta, by_means = by_theta * kept[:, None], by_means * kept[:, None]
        return directions, of_theta, means, by_theta, by_means, of_theta[6]

    def joined_by_score(self) -> tuple[Array, Array] | None:
        """Return what the score moves through its predictor: of equations (Q, K p), of means (Q, 3 K)."""
        joined, (_, _, wide) = self.own.joined, self.hessian
        if joined is None or joined.fixed:
            return None
        n_arms, width = self.fit.theta.shape[:2]
        p, of, lift = width - joined.width, self.sums, np.asarray(self.own.lift)[..., 0]
        extra, q = joined.of_score.shape
        gradient = wide.gradient[0] + self.fit.alpha * wide.loss_gradient[0] + self.fit.nu @ wide.u_slope[0]
        hessian = wide.hessian[0].reshape(n_arms, p + extra, n_arms, p + extra)
        size = len(self.problem.start.gamma)
        by_theta, by_means = np.zeros((size, n_arms, width)), np.zeros((size, 3, n_arms))
        steep = (of.average_slope[..., 0], -of.R_slope[..., 0], of.bias_slope[..., 0])
        for k in range(joined.count):
            some = slice(k * q, (k + 1) * q)
            by_theta[some, :, p + k] += (gradient.reshape(n_arms, -1)[:, p:] @ joined.of_score).T
            moved = np.einsum("eq,b->qbe", joined.of_score, self.fit.theta[:, p + k, 0])
            by_theta[some] += np.einsum("kPbe,qbe,Pp->qkp", hessian[..., p:], moved, lift, optimize=True)
            for j, slope in enumerate(steep):
                by_means[some, j] += np.einsum("be,qbe->qb", slope[:, p:], moved)
        return by_theta.reshape(size, -1), by_means.reshape(size, -1)

    def of(self, block: Block, fit: WeightFit) -> tuple[slice, Array]:
        """Where rows of a block are, and their influence function of (params, theta, gamma)."""
        directions, of_theta, means, by_theta, by_means, by_start = self.parts
        problem, own, at, terms = self.problem, self.own, self.at, self.fit.terms
        sample, n_arms = block.sample, len(self.means)
        values = []
        places = sample.parts(8) if fit.model.by_rows else [slice(0, sample.n)]
        for place in places:
            some, model = (sample, fit.model) if len(places) == 1 else (sample.part(place), fit.model.part(place))
            rows, counts = rows_of(some, model, own.joined), some.s[:, None]
            weights = weights_of(model, counts, own.weighing, own.shifts, own.totals, stack=False)
            slopes, inside = slopes_of(model, counts, own), some.in_sample[:, None]
            equations = contributions(phi(rows, weights, slopes, at, directions).value, of_theta, rows, weights, inside)
            value = linear_parts(rows, weights, slopes, at).value
            values.append(np.hstack([equations, contributions(value, means, rows, weights, inside)]))
        found, size = np.concatenate(values), directions.shape[2]
        equations, direct = found[:, :size] + fit.influence @ by_theta, found[:, size:] + fit.influence @ by_means
        if terms.share:
            start = np.empty((sample.n, *problem.start.theta.shape))
            trained = trained_rows(sample, IPWRA, fit, problem.start.theta)
            influence_of_theta(trained, self.start_theta_sums, start)
            p = start.shape[2]
            equations = equations + np.einsum("nkp,kpr->nr", start, by_start[:, :p])
        hessian, u_slope, _ = self.hessian
        u = direct[:, 2 * n_arms :] @ (terms.contrasts if terms.risk else terms.contrasts[:0]).T
        theta = -solve_constrained(hessian, equations.T[None], u_slope, u.T[None])[0][0].T
        lift = np.eye(self.fit.theta.shape[1]) if own.lift is None else own.lift[..., 0]
        steps = np.einsum("nkp,Pp->nkP", theta.reshape(sample.n, n_arms, -1), lift)
        raw = direct[:, :n_arms] + np.einsum("nkP,kP->nk", steps, self.sums.average_slope[..., 0])
        bias = direct[:, n_arms : 2 * n_arms] - np.einsum("nkP,kP->nk", steps, self.sums.R_slope[..., 0])
        scale, slopes0 = problem.scale, problem.scale.g_slope(problem.start.model_means)
        common = bias @ slopes0 / n_arms
        moved = raw * scale.g_slope(self.sums.average[:, 0]) - common[:, None]
        params = (moved / scale.g_slope(self.means)) @ scale.jacobian(self.means).T
        p = problem.start.theta.shape[1]
        kept = theta.reshape(sample.n, n_arms, -1)[:, :, :p].reshape(sample.n, -1)
        return block.place, np.hstack([params, kept, fit.influence])

    @cached_property
    def start_theta_sums(self) -> Any:
        """What the influence function of the start's coefficients is made of."""
        return add_up(self.problem.over(functools.partial(_theta_sums, self.problem.start.theta)))

    def monte_carlo_se(self) -> Array:
        """Monte Carlo standard errors of the effects over redraws of the replicates, shape (K - 1,)."""
        terms, own, at = self.fit.terms, self.own, self.at
        n_arms, p = self.fit.theta.shape[:2]
        lift = np.eye(p) if own.lift is None else own.lift[..., 0]
        count = self.sums.biases.shape[2]

        def narrow(slopes: Array) -> Array:
            return np.einsum("Pp,kP...->kp...", lift, slopes)

        gradients = np.zeros((n_arms, p, count))
        if terms.risk:
            gradients = narrow(own.over(functools.partial(_variance_gradients, at))[0])
        hessian, u_slope, _ = self.hessian
        size = n_arms * p
        inverse = solve_constrained(hessian, np.eye(size)[None], u_slope, np.zeros((1, u_slope.shape[1], size)))[0][0]
        raw = self.sums.average[:, 0]
        jacobian = self.problem.scale.jacobian(raw)[: n_arms - 1]
        slope = narrow(self.sums.average_slope[..., 0])
        contrasts = (jacobian[:, :, None] * slope).reshape(n_arms - 1, size)
        U = terms.contrasts @ self.sums.biases[:, 0]
        wide = narrow(self.sums.biases_slope[:, :, 0])
        U_slope = (terms.contrasts[:, :, None, None] * wide).reshape(len(U), size, count)
        return monte_carlo_se(gradients.reshape(size, count).T, contrasts, U, U_slope, terms.n_units, inverse)


def _theta_sums(theta: Array, block: Block, fit: WeightFit) -> Any:
    return theta_sums(trained_rows(block.sample, IPWRA, fit, theta))


def _curvature_at(at: At, rows: Rows, weights: Weights) -> Array:
    return curvature(rows, weights, at.theta, at.start, at.terms, at.sums, at.nu[:, None])


def _variance_gradients(at: At, rows: Rows, weights: Weights) -> Array:
    return variance_gradients(rows, weights, at)


# --- resamples -------------------------------------------------------------------------------------------------------


def refit_jointly(
    problem: JointProblem, fit: JointFit, passes: ResamplePasses, starts: ResamplePasses, fits: NewtonFits | None
) -> Refits:
    """Estimate again under resamples; `starts` are the same passes of IPWRA, whose outcomes may have no level."""
    weighed, widest = Weighed.of(passes, problem.gamma, fit.shifts, fit.joined, fits)
    refits = refit_weighed(starts, weighed.weighing, weighed.failures, widest)
    start, terms = padded(coefficients_of(starts.full, refits), weighed), fit.terms
    count, scale, linear = start.shape[2], problem.scale, problem.family.linear
    first = len(starts.full.params)
    with np.errstate(all="ignore"):  # resamples that cannot be fitted are counted
        beta = lifted(weighed.lift, start)
        if linear:
            of = weighed.sums(beta, beta, terms)
            known = projected(expand(of, terms), weighed.lift, len(beta))
            found = newton(lambda _: (known, None), start, fit.alpha)
            step = lifted(weighed.lift, found.theta) - beta
            raw = of.average + (of.average_slope * step).sum(axis=1)
            bias = -of.R - (of.R_slope * step).sum(axis=1)
        else:
            theta, nu = np.repeat(fit.theta, count, axis=2), np.repeat(fit.nu[None], count, axis=0)
            found = newton(weighed.evaluate(beta, terms), theta, fit.alpha, nu)
            of = weighed.sums(lifted(weighed.lift, found.theta), beta, terms)
            raw, bias = of.average, -of.R
        means = net_means(raw, bias, scale.g_slope(problem.start.model_means), scale)
    failed = Failure.SINGULAR_OUTCOME if linear else Failure.OUTCOME_NOT_CONVERGED
    of_minimum = np.where(found.converged, Failure.OK, failed).astype(np.int8)
    failures = first_failure(refits.failures, of_minimum)
    theta = found.theta[:, : problem.start.theta.shape[1]]
    gamma = weighed.weighing.gamma[: len(problem.start.gamma)]
    collected = collect_refits(np.concatenate([scale.effects(raw), means]), theta, gamma, failures)
    return dataclasses.replace(collected, start=refits.values[:first])


class JointRefitter:
    """Refits JRE in memory.

    Parameters
    ----------
    start : SeparateRefitter
        Refits IPWRA, where each fit starts.
    problem : JointProblem
        The rows.
    fit : JointFit
        The minimum of the sample.
    values : ndarray, shape (d,)
        Its estimates.
    """

    arrays, rows_together = 1, 4096

    def __init__(self, start: SeparateRefitter, problem: JointProblem, fit: JointFit, values: Array) -> None:
        self.start, self.problem, self.fit, self.values = start, problem, fit, values

    @cached_property
    def beside_points(self) -> Array:
        """By how much the estimates, whose replicates are drawn, differ from those at the points of the resamples."""
        found = self._refit(self.start.problem.sample.s[:, None]).values[:, 0]
        return np.where(np.isfinite(found), self.values - found, 0.0)

    def refit(self, counts: Array, fits: NewtonFits | None = None) -> Refits:
        """As in `estimates.Refitter`."""
        found = self._refit(counts, fits)
        return dataclasses.replace(found, values=found.values + self.beside_points[:, None])

    def _refit(self, counts: Array, fits: NewtonFits | None = None) -> Refits:
        kept, weight_fit = self.start.problem, self.start.weight_fit
        if weight_fit is None:
            raise TypeError("the joint estimator has importance weights")
        fits = fits or weight_fit.refit(counts)
        passes = kept_passes(kept, self.start.full.without_level(), counts)
        return refit_jointly(self.problem, self.fit, passes, self.start.passes(counts), fits)


def influence_of_block(
    function: Callable[[BlockInfluence], T], rows: JointEstimateRows, block: Block, fit: WeightFit
) -> T:
    """Apply a function to the influence function of a block of a scan."""
    sample = block.sample
    return function(BlockInfluence(rows.of(block, fit)[1], sample.s, sample.cluster, sample.stratum, block.number))
