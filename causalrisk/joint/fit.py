"""The Joint Robust Estimator from an IPWRA fit: its replicates, the amount of shrinkage, the minimum, its resamples."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from causalrisk.errors import CausalRiskError, Failure, first_failure
from causalrisk.estimation.beyond_memory import stored
from causalrisk.estimation.equations import Equations
from causalrisk.estimation.estimates import Estimate, Refits, collect_refits
from causalrisk.estimation.fits import RefittedScores, SeparateRefitter, SeparateRows, WeightFit
from causalrisk.estimation.specification import EffectScale
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
from causalrisk.joint.rows import AT_ONCE, Joined, Replicates, Weighed, flat, lifted, projected, projected_blocks
from causalrisk.joint.shrinkage import LADDER, Path, choose, compare, held_out
from causalrisk.joint.start import (
    StartSums,
    held_out_scores,
    heterogeneity,
    inverse_of,
    real_share,
    rejected,
    sandwich,
    start_sums,
)
from causalrisk.numerics.blocks import chunk_sizes, is_dask, loaded
from causalrisk.numerics.linalg import Array
from causalrisk.numerics.optimize import OptimizeResult

ROWS = 4096  # that the influence function is worked out for at a time
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
    weights : WeightFit
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
    cluster : ndarray of int, shape (n,), or None
        Cluster of each row.
    folds : ndarray of int, shape (n,)
        Fold of each row in the cross-validation.
    """

    weights: WeightFit
    start: Estimate
    covariance: Array | None
    scale: EffectScale
    n_units: float
    frequency: bool
    cluster: NDArray[np.intp] | None
    folds: NDArray[np.intp]

    @property
    def equations(self) -> Equations:
        """The rows."""
        return self.weights.equations

    @property
    def n_clusters(self) -> int:
        """Number of clusters, 0 without them."""
        return 0 if self.cluster is None else int(loaded(self.cluster.max())) + 1

    @property
    def linear(self) -> bool:
        """Whether the outcome models are linear."""
        return self.equations.sample.family.linear

    @property
    def contrasts(self) -> Array:
        """C: contrasts of the arms, on another scale than the difference in its slopes at the start's means."""
        slopes = self.scale.g_slope(self.start.model_means)
        return bias_contrasts(len(slopes)) * slopes / np.sqrt((slopes**2).mean())

    @property
    def score_influence(self) -> Array:
        """Influence function of the coefficients of the weights, shape (n, Q)."""
        return self.start.influence[:, self.start.block("gamma")]

    def weighed(self, replicates: Replicates, joined: Joined | None = None) -> Weighed:
        """Return the rows at the fitted score."""
        return Weighed(self.equations, self.equations.sample.s[:, None], self.weights.beta, replicates, joined)


# --- what the start decides ------------------------------------------------------------------------------------------


def points_about(problem: JointProblem, spread: float) -> Replicates:
    """Points that stand for the sampling distribution of the score."""
    model, block = problem.equations.model, problem.start.block("gamma")
    known = problem.covariance is None or (model is not None and model.classifier is not None)
    if known or problem.covariance is None:
        return Replicates.of_normal(problem.weights, None)
    return Replicates.of_normal(problem.weights, spread**2 * problem.covariance[block, block])


def meat_of(problem: JointProblem, weighed: Weighed, theta: Array, inverse: Array) -> Array:
    """Sum of squares of the scores held out, within clusters, shape (K P, K P)."""
    sample, clusters = problem.equations.sample, problem.n_clusters

    def squares(part: Weighed, here: slice, place: slice, rows: Rows, weights: Weights) -> Array:
        s = part.equations.sample.s[here]
        own = np.ones(len(s)) if problem.frequency else s
        scores = held_out_scores(rows, weights.w[:, 0], own / sample.total, theta, inverse) / sample.total
        if problem.cluster is None:
            return (scores.T * (s if problem.frequency else s**2)) @ scores
        sums = np.zeros((clusters, scores.shape[1]))
        np.add.at(sums, loaded(problem.cluster[place]), s[:, None] * scores)
        return sums

    found = weighed.over(squares, places=True)
    return found.T @ found if clusters else found


def joined_score(problem: JointProblem, weighed: Weighed, theta: Array, asked: bool | None) -> Joined | None:
    """Return the score's linear predictor among the outcome columns, where it is asked for or a test rejects."""
    if asked is False or "score" not in weighed.beta:
        return None
    joined = further_columns(problem, len(weighed.beta["score"]))
    return joined if joined is not None and (asked or lacks(problem, weighed, theta, joined)) else None


def outcome_misses_square(problem: JointProblem) -> bool:
    """Test whether squares of the score's linear predictors belong to the outcome models of IPWRA."""
    if "score" not in problem.weights.beta:
        return False
    gamma = problem.weights.beta["score"][..., 0].T
    joined = further_columns(problem, gamma.shape[1], gamma)
    weighed = problem.weighed(Replicates.of_normal(problem.weights, None))
    return joined is not None and lacks(problem, weighed, problem.start.theta, joined)


def further_columns(problem: JointProblem, count: int, squared: Array | None = None) -> Joined | None:
    """Return what the score's columns, or squares of predictors with coefficients `squared`, have beyond the formula's.

    There are `count` predictors.
    """
    sample = problem.equations.sample
    X, Z = sample.X.columns, sample.Z.columns
    p, share = X.shape[1], sample.s * sample.in_sample / sample.total
    every = np.hstack([X, Z if squared is None else (Z @ squared) ** 2])
    gram = loaded((every.T * share) @ every)
    from_X = np.linalg.lstsq(gram[:p, :p], gram[:p, p:], rcond=None)[0]
    rest = gram[p:, p:] - gram[p:, :p] @ from_X
    scale = np.sqrt(np.maximum(np.diag(gram)[p:], np.finfo(float).tiny))
    values, vectors = np.linalg.eigh(rest / np.outer(scale, scale))
    kept = values > RANK
    if not kept.any():
        return None
    root = np.sqrt(values[kept])
    from_Z = vectors[:, kept] / root / scale[:, None]
    return Joined(from_Z, from_X @ from_Z, (root * vectors[:, kept] * scale[:, None]).T, count, squared)


def lacks(problem: JointProblem, weighed: Weighed, theta: Array, joined: Joined) -> bool:
    """Test the coefficients of further columns after one step of Newton's method from IPWRA."""
    tried, p = dataclasses.replace(weighed, joined=joined), theta.shape[1]
    wide = np.pad(theta, ((0, 0), (0, joined.of_score.shape[0])))
    lift = joined.lift(weighed.beta["score"], p)[..., 0]
    sums = tried.over(partial(start_sums, theta=wide))
    inverse = inverse_of(lift.T @ sums.bread @ lift)
    step = np.einsum("kpq,kq->kp", inverse, sums.score @ lift)
    everywhere = np.einsum("Pp,kpq,Qq->kPQ", lift, inverse, lift)
    meat = meat_of(problem, tried, wide + step @ lift.T, everywhere)
    lifts = np.kron(np.eye(len(theta)), lift)
    covariance, size = sandwich(inverse, lifts.T @ meat @ lifts), lift.shape[1]
    last = (np.arange(len(theta))[:, None] * size + np.arange(p, size)).ravel()
    return rejected(step.ravel()[last], covariance[np.ix_(last, last)])


# --- how far it is shrunk --------------------------------------------------------------------------------------------


def fold_weights(problem: JointProblem) -> Array:
    """Weight of each row in each fold, shape (n, G); equal rows that a weight counts are dealt out."""
    s, folds = problem.equations.sample.s, problem.folds
    count = int(folds.max()) + 1
    if is_dask(s):
        import dask.array as da

        folds = da.from_array(folds, chunks=(chunk_sizes(s),))
    if not problem.frequency or problem.cluster is not None:
        return (folds[:, None] == np.arange(count)) * s[:, None]
    later = (np.arange(count) - folds[:, None]) % count
    return s[:, None] // count + (later < (s % count)[:, None])


def _averages(rows: Rows, weights: Weights, thetas: Sequence[Array]) -> Array:
    """Averages over the target under A coefficients, shape (A, K, R)."""
    tilted = weights.share * rows.averaged * weights.tilt
    return np.stack([(tilted * rows.family.mean(rows.predictors(theta))).sum(axis=1) for theta in thetas])


def choose_shrinkage(
    problem: JointProblem, own: Weighed, start: Array, terms: Terms, points: Replicates
) -> tuple[Path, NDArray[np.int8]]:
    """Choose alpha by cross-validation; also returns why folds failed.

    `own` are the rows of the sample, `start` (K, P, 1) the models of IPWRA on all columns.
    """
    sample, folds = problem.equations.sample, fold_weights(problem)
    s = sample.s[:, None] - folds
    without, starts, refits = refitted(problem, own.joined, points, s)
    failures = refits.failures
    of_folds, of_all = path_of(without, starts, terms, LADDER), path_of(own, start[:, : starts.shape[1]], terms, LADDER)
    used = (failures == Failure.OK) & np.array([m.converged for m in of_folds]).all(axis=0)
    thetas = np.stack([lifted(without.lift, m.theta) for m in of_folds])
    thetas[..., ~used] = np.nan
    found = list[tuple[Any, ...]]()
    for part, here, place, score, fold, cluster in own.pieces(1, problem.score_influence, folds, problem.cluster):
        inside = part.equations.sample.in_sample[here, None]
        known = np.hstack([score, inside, *([1 - inside] if problem.equations.target.frame else [])])
        tilt, w = problem.weights.tilt[place], problem.weights.w[place]
        psi, weight, row = held_out(part.rows(here), tilt, w, fold, thetas, problem.contrasts)
        found.append((psi, known[row], weight, None if cluster is None else cluster[row]))
    every: Any = [None if each[0] is None else np.concatenate(each) for each in zip(*found, strict=True)]
    averages = own.over(partial(_averages, thetas=[lifted(own.lift, m.theta) for m in of_all]))[..., 0]
    path = choose(
        variances=compare(problem.frequency and problem.cluster is None, *every),
        converged=np.array([bool(m.converged.all()) for m in of_all]),
        effects=np.array([problem.scale.effects(means)[0] for means in averages]),
        total=sample.total,
    )
    return path, failures


def refitted(
    problem: JointProblem, joined: Joined | None, points: Replicates, s: Array, scores: RefittedScores | None = None
) -> tuple[Weighed, Array, Refits]:
    """Rows under columns of weights with the scores of each, and IPWRA there: its models (K, p, R), its estimates."""
    refitter = SeparateRefitter(_separate(problem.start), problem.weights)
    scores = scores or problem.weights.refit(s)
    (scored, beta, _), equations = scores, problem.equations
    if scored.model is not None and scored.model.classifier is not None:  # not in coefficients
        equations = dataclasses.replace(equations, model=scored.model)
    refits = refitter.refit(s, scores)
    bad = ~np.isfinite(flat(beta)).all(axis=0)
    beta = {name: np.where(bad, problem.weights.beta[name], each) for name, each in beta.items()}
    weighed = Weighed(equations, s, beta, points, joined)
    return weighed, coefficients_of(problem.start, refits), refits


def _separate(estimate: Estimate) -> SeparateRows:
    if not isinstance(estimate.rows, SeparateRows):
        raise CausalRiskError("IPWRA trains each arm by itself")
    return estimate.rows


def padded(theta: Array, weighed: Weighed) -> Array:
    """Coefficients of the formula's columns (K, p, R), with zeros for the predictor of the score if that joined."""
    joined = weighed.joined
    return theta if joined is None else np.pad(theta, ((0, 0), (0, joined.width), (0, 0)))


def coefficients_of(start: Estimate, refits: Refits) -> Array:
    """Coefficients of refits of IPWRA, shape (K, p, R); those of the sample where one failed."""
    found = refits.values[start.block("theta")].reshape(*start.theta.shape, -1)
    return np.where(np.isnan(found), start.theta[..., None], found)


def path_of(weighed: Weighed, start: Array, terms: Terms, anchors: tuple[float, ...]) -> list[Minimum]:
    """Minima under each alpha, the most cautious first, each from the one before."""
    theta = padded(start, weighed)
    evaluate, found = weighed.evaluate(lifted(weighed.lift, theta), terms), list[Minimum]()
    if weighed.equations.sample.family.linear:
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
    points : Replicates
        The replicates of resamples, about their score.
    joined : Joined, optional
        The score's predictor among the outcome columns.
    """

    theta: Array
    nu: Array
    alpha: float
    terms: Terms
    points: Replicates
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
        The rows.
    sums : StartSums
        Those of the start.
    points : Replicates
        The replicates of resamples and folds, about their score.
    """

    problem: JointProblem
    replicates: Replicates
    method: str
    terms: Terms
    own: Weighed
    sums: StartSums
    points: Replicates

    @classmethod
    def of(
        cls, problem: JointProblem, replicates: Replicates, points: Replicates, method: str, *, penalty: float | None,
        share: float | None, join: bool | None,
    ) -> Trainer:  # fmt: skip
        """Decide what the objective holds fixed; with a penalty it is "erm"."""
        theta, own = problem.start.theta, problem.weighed(replicates)
        sums = own.over(partial(start_sums, theta=theta))
        risk, C, c = penalty is None, problem.contrasts, 0.0 if penalty is not None else share
        if c is None:
            inverse = inverse_of(sums.bread)
            spreads = own.over(partial(heterogeneity, theta=theta, sums=sums, C=C))
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
        linear, squares = self.problem.linear, max(self.sums.squares, ROUNDING * self.sums.size)
        residual = float(np.sqrt(squares)) or 1.0
        evaluate = self.own.evaluate(self.beta, self.terms)
        return minimize_from(evaluate, self.start, alpha, residual if linear else 1.0, self.method, linear)

    def solution(self, found: Minimum, alpha: float) -> JointEstimateRows:
        """Return a minimum with its rows, of which the influence function is made when asked for."""
        problem, own = self.problem, self.own
        fit = JointFit(found.theta, found.multipliers[0], alpha, self.terms, self.points, own.joined)
        of = own.sums(lifted(own.lift, found.theta), self.beta, self.terms)
        slopes = problem.scale.g_slope(problem.start.model_means)
        means = net_means(of.average[:, 0], -of.R[:, 0], slopes, problem.scale)
        return JointEstimateRows(problem, own, fit, of, self.beta, means)

    def variance(self, covariance: Array) -> float:
        """Variance of the effects, summed over the contrasts of the objective, from a covariance of all estimates."""
        C, means = self.terms.contrasts, self.problem.start.block("means")
        return float(np.trace(C @ covariance[means, means] @ C.T))

    def estimate(self, found: Minimum, rows: JointEstimateRows) -> JointEstimate:
        """Return the estimate of a minimum and its rows with its diagnostics over the replicates."""
        terms, own = self.terms, self.own
        of, before, more = rows.sums, own.sums(self.beta, self.beta, terms), 0.0
        if terms.share:
            more = float(own.over(partial(_left_out, self.beta, self.sums, terms))[0])
        slopes = self.problem.scale.g_slope(self.problem.start.model_means)
        return JointEstimate(
            estimate=rows.estimate,
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
    """

    problem: JointProblem
    own: Weighed
    fit: JointFit
    sums: Sums
    start: Array
    means: Array

    @property
    def estimate(self) -> Estimate:
        """The estimate."""
        start, raw = self.problem.start, self.sums.average[:, 0]
        return Estimate(
            params=np.concatenate([self.problem.scale.effects(raw), self.means]),
            theta=self.fit.theta[:, : start.theta.shape[1], 0],
            gamma=start.gamma,
            model_means=raw,
            rows=self,
        )

    @property
    def lift(self) -> Array:
        """Coefficients of all columns by those of the models, shape (P, p)."""
        lift = self.own.lift
        return np.eye(self.fit.theta.shape[1]) if lift is None else lift[..., 0]

    @cached_property
    def at(self) -> At:
        """The minimum, on all columns."""
        fit, own = self.fit, self.own
        return At(lifted(own.lift, fit.theta), self.start, fit.nu, fit.alpha, fit.terms, self.sums)

    @cached_property
    def predicted(self) -> Array:
        """As in `EstimateRows`."""
        rows = self.own.rows(slice(0, self.problem.equations.sample.n))
        return rows.family.mean(rows.predictors(self.at.theta))[..., 0]

    def risks_of(self, predicted: Array) -> tuple[Array, Array]:
        """Biases (M, K, B) and V (M,) of M predictions in memory, (M, K, n); as in `JointEstimate`."""
        terms, n = self.fit.terms, self.problem.equations.sample.n
        own, every = self.own.with_rows, slice(0, n)
        rows, weights = own.rows(every), own.weights(every, slice(0, 1))
        sums = start_sums(rows, weights, self.start[..., 0])
        more = float(_left_out(self.start, sums, terms, rows, weights)[0]) if terms.share else 0.0
        found = [risk_of(rows, weights, mean[..., None], self.start, terms) for mean in predicted]
        return np.stack([biases for biases, _ in found]), more + np.array([value for _, value in found])

    @cached_property
    def hessian(self) -> tuple[Array, Array, Any]:
        """Hessian (1, K p, K p) and constraint (1, C, K p) of the models, and the expansion on all columns."""
        own, at, fit = self.own, self.at, self.fit
        wide = expand(self.sums, fit.terms)
        of = projected(wide, own.lift, len(at.theta))
        whole, every = of.at(fit.alpha)[2], wide.at(fit.alpha)[2]
        if not self.problem.linear:
            parts = own.over(
                lambda rows, weights: curvature(rows, weights, at.theta, at.start, at.terms, at.sums, at.nu[:, None])
            )
            whole = whole + projected_blocks(parts, own.lift)
            every = every + projected_blocks(parts, None)
        return whole, of.u_slope, dataclasses.replace(wide, hessian=every)

    @cached_property
    def parts(self) -> tuple[Any, ...]:
        """Sums of Phi over the rows, and what the score and the start move of equations and means."""
        own, at, lift = self.own, self.at, self.lift
        n_arms, p = self.fit.theta.shape[:2]
        directions: Any = np.kron(np.eye(n_arms), lift.T).T.reshape(n_arms, len(lift), n_arms * p)

        def of_rows(part: Weighed, here: slice, place: slice, rows: Rows, weights: Weights) -> tuple[Any, ...]:
            slopes = part.slopes(here)
            of_theta, means = phi(rows, weights, slopes, at, directions), linear_parts(rows, weights, slopes, at)
            return of_theta.sums, means.sums, tilt_slopes(weights, slopes)

        of_theta, means, tilts = own.over(of_rows, places=True)
        by_theta, by_means = by_score(of_theta, tilts), by_score((*means, None)[:7], tilts)
        more = self.joined_by_score()
        if more is not None:
            by_theta, by_means = by_theta + more[0], by_means + more[1]
        return directions, of_theta, means, by_theta, by_means, of_theta[6]

    def joined_by_score(self) -> tuple[Array, Array] | None:
        """Return what the score moves through its predictor: of equations (Q, K p), of means (Q, 3 K)."""
        joined, (_, _, wide) = self.own.joined, self.hessian
        if joined is None or joined.fixed:
            return None
        n_arms, width = self.fit.theta.shape[:2]
        p, of, lift = width - joined.width, self.sums, self.lift
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

    @cached_property
    def influence(self) -> Array:
        """As in `EstimateRows`."""
        problem = self.problem
        pieces = self.own.pieces(AT_ONCE // ROWS, problem.score_influence, problem.start.influence)
        found = (self.influence_of(part, here, *given) for part, here, _, *given in pieces)
        return stored(found, chunk_sizes(self.own.s)) if is_dask(self.own.s) else np.concatenate(list(found))

    def influence_of(self, own: Weighed, here: slice, score: Array, started: Array) -> Array:
        """Influence function of some rows, from those of the score and of the start."""
        directions, of_theta, means, by_theta, by_means, by_start = self.parts
        problem, at, terms, n_arms = self.problem, self.at, self.fit.terms, len(self.means)
        rows, weights, slopes = own.rows(here), own.weights(here, slice(0, 1)), own.slopes(here)
        inside = own.equations.sample.in_sample[here, None]
        moved = contributions(phi(rows, weights, slopes, at, directions).value, of_theta, rows, weights, inside)
        value = linear_parts(rows, weights, slopes, at).value
        found = np.hstack([moved, contributions(value, means, rows, weights, inside)])
        n, size = len(found), directions.shape[2]
        equations, direct = found[:, :size] + score @ by_theta, found[:, size:] + score @ by_means
        if terms.share:
            start = started[:, problem.start.block("theta")].reshape(n, n_arms, -1)
            equations = equations + np.einsum("nkp,kpr->nr", start, by_start[:, : start.shape[2]])
        hessian, u_slope, _ = self.hessian
        u = direct[:, 2 * n_arms :] @ (terms.contrasts if terms.risk else terms.contrasts[:0]).T
        theta = -solve_constrained(hessian, equations.T[None], u_slope, u.T[None])[0][0].T
        steps = np.einsum("nkp,Pp->nkP", theta.reshape(n, n_arms, -1), self.lift)
        raw = direct[:, :n_arms] + np.einsum("nkP,kP->nk", steps, self.sums.average_slope[..., 0])
        bias = direct[:, n_arms : 2 * n_arms] - np.einsum("nkP,kP->nk", steps, self.sums.R_slope[..., 0])
        scale, slopes0 = problem.scale, problem.scale.g_slope(problem.start.model_means)
        common = bias @ slopes0 / n_arms
        moved = raw * scale.g_slope(self.sums.average[:, 0]) - common[:, None]
        params = (moved / scale.g_slope(self.means)) @ scale.jacobian(self.means).T
        kept = theta.reshape(n, n_arms, -1)[:, :, : problem.start.theta.shape[1]].reshape(n, -1)
        return np.hstack([params, kept, score])

    def monte_carlo_se(self) -> Array:
        """Monte Carlo standard errors of the effects over redraws of the replicates, shape (K - 1,)."""
        terms, own, at, lift = self.fit.terms, self.own, self.at, self.lift
        n_arms, p = self.fit.theta.shape[:2]
        count = self.sums.biases.shape[2]

        def narrow(slopes: Array) -> Array:
            return np.einsum("Pp,kP...->kp...", lift, slopes)

        gradients = np.zeros((n_arms, p, count))
        if terms.risk:
            gradients = narrow(own.over(partial(variance_gradients, at=at)))
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


# --- resamples -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class JointRefitter:
    """Refits JRE, each resample from its own IPWRA fit, as in `estimates.Refitter`; `values` are the estimates."""

    problem: JointProblem
    fit: JointFit
    values: Array

    @cached_property
    def beside_points(self) -> Array:
        """By how much the estimates, whose replicates are drawn, differ from those at the points of the resamples."""
        found = self._refit(self.problem.equations.sample.s[:, None]).values[:, 0]
        return np.where(np.isfinite(found), self.values - found, 0.0)

    def refit(self, s: Array, weighed: RefittedScores | None = None) -> Refits:
        """Return the estimates under row weights (n, R)."""
        found = self._refit(s, weighed)
        return dataclasses.replace(found, values=found.values + self.beside_points[:, None])

    def _refit(self, s: Array, weighed: RefittedScores | None = None) -> Refits:
        problem, fit, terms, scale = self.problem, self.fit, self.fit.terms, self.problem.scale
        rows, start, refits = refitted(problem, fit.joined, fit.points, s, weighed)
        start = padded(start, rows)
        with np.errstate(all="ignore"):  # resamples that cannot be fitted are counted
            beta = lifted(rows.lift, start)
            if problem.linear:
                of = rows.sums(beta, beta, terms)
                known = projected(expand(of, terms), rows.lift, len(beta))
                found = newton(lambda _: (known, None), start, fit.alpha)
                step = lifted(rows.lift, found.theta) - beta
                raw = of.average + (of.average_slope * step).sum(axis=1)
                bias = -of.R - (of.R_slope * step).sum(axis=1)
            else:
                theta, nu = np.repeat(fit.theta, s.shape[1], axis=2), np.repeat(fit.nu[None], s.shape[1], axis=0)
                found = newton(rows.evaluate(beta, terms), theta, fit.alpha, nu)
                of = rows.sums(lifted(rows.lift, found.theta), beta, terms)
                raw, bias = of.average, -of.R
            means = net_means(raw, bias, scale.g_slope(problem.start.model_means), scale)
        failed = Failure.SINGULAR_OUTCOME if problem.linear else Failure.OUTCOME_NOT_CONVERGED
        of_minimum = np.where(found.converged, Failure.OK, failed).astype(np.int8)
        params = np.concatenate([scale.effects(raw), means])
        gamma = refits.values[problem.start.block("gamma")]
        theta = found.theta[:, : problem.start.theta.shape[1]]
        collected = collect_refits(params, theta, gamma, first_failure(refits.failures, of_minimum))
        return dataclasses.replace(collected, start=refits.values[: len(problem.start.params)])
